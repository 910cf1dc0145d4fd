import os

import django

from fly2any.handlers import ASGIHandler
from fly2any.postgres.pool import serve_from_pools

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fly2any.settings")

django.setup(set_prefix=False)
application = ASGIHandler()
serve_from_pools()
