"""The keys of advisory locks: defined in one place, and each used for one purpose."""

import re

from fly2any.database.migration import advisory_locks
from tests.test_imports import LAYERS, PROJECT

TAKES = re.compile(r"pg_(?:try_)?advisory_(?:xact_)?(?:un)?lock(?:_shared)?\((?!%s)")


def test_no_two_advisory_locks_have_the_same_key():
    keys = {name: key for name, key in vars(advisory_locks).items() if name.endswith("_LOCK") and isinstance(key, int)}

    assert keys == {"MIGRATION_LOCK": 72707369, "MAINTENANCE_LOCK": 72707370, "ERASURE_LOCK": 72707371, "SIGN_IN_LOCK": 14102}
    assert len(set(keys.values())) == len(keys)


def test_no_statement_has_the_key_of_an_advisory_lock_in_its_text():
    files = [file for room in LAYERS for file in (PROJECT / room.replace(".", "/")).rglob("*.py")]
    found = [(file.name, match[0]) for file in files for match in TAKES.finditer(file.read_text())]

    assert found == []
