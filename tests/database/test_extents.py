"""What tables store: partitions count for their table, and what cannot be measured is not known."""

import pytest

from fly2any.database.findings import Finding
from fly2any.database.health.examine import Figure, Reader
from fly2any.database.health.storage import indexes
from fly2any.database.health.tables import tables
from fly2any.database.maintenance.run import Refreshed, maintain
from fly2any.database.progress import Progress
from fly2any.database.schema.extents import read_estimates, read_extents, read_index_use
from fly2any.database.schema.relations import Kind
from fly2any.database.units import size
from tests.conftest import django
from tests.database.test_dbhealth import found
from tests.servers import REPORTED_SQL, wait_until
