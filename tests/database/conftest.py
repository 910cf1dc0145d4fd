import pytest

from fly2any.database.backup.store import Folder
from fly2any.database.backup.take import take
from fly2any.database.backup.trial_restore import check
from fly2any.database.progress import Progress
from tests.conftest import django, fresh, manage
from tests.database.other_roles import PLANTED
from tests.database.people import ANA, BOB, EMAIL
from tests.database.sites import KINDS, fill


@pytest.fixture(params=["exact", pytest.param("superset", marks=pytest.mark.slow)])
def site(request, database):
    """A database as the site uses it."""
    return fill(database, KINDS[request.param])


@pytest.fixture
def exact(database):
    return fill(database, KINDS["exact"])


@pytest.fixture
def probe(tmp_path):
    """A function that creates the next migration of the test's own app, from its source."""
    folder = tmp_path / "probe" / "migrations"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder.parent / "__init__.py").touch()
    (tmp_path / "probe_settings.py").write_text('from fly2any.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, "probe"]\n')

    def write(operations, atomic=True):
        number = len(list(folder.glob("0*.py"))) + 1
        before = f'("probe", "{number - 1:04}_step")' if number > 1 else '("accounts", "0004_session_user_index")'
        (folder / f"{number:04}_step.py").write_text(
            "import time\nfrom django.db import migrations, models\nfrom django.db.migrations import RunPython, RunSQL\n\n"
            f"class Migration(migrations.Migration):\n    atomic = {atomic}\n    dependencies = [{before}]\n"
            f"    operations = [{operations}]\n"
        )
        return {"PYTHONPATH": str(tmp_path), "DJANGO_SETTINGS_MODULE": "probe_settings"}

    return write


@pytest.fixture(scope="session")
def seeded(migrated_template):
    """The name of a database with demo data, to copy."""
    for database in fresh(migrated_template):
        result = manage("dbseed", "--production", "--users", "40", "--seed", "1", "--until", "2026-05-01", url=database.url)
        assert result.returncode == 0, result.stderr
        yield database.name


@pytest.fixture
def filled(server, seeded):
    """A database with demo data of 40 people."""
    yield from fresh(seeded)


@pytest.fixture
def place(tmp_path):
    """The location of backups."""
    return str(tmp_path / "backups")


@pytest.fixture
def two(migrated):
    """Two people without other rows."""
    for identity, email in ((ANA, EMAIL), (BOB, "bob@example.com")):
        migrated.execute('INSERT INTO users (id, email, "updatedAt") VALUES (%s, %s, now())', [identity, email])
    return migrated


@pytest.fixture
def taken(migrated, place):
    """A function that runs statements in a database, takes a backup, applies `edit` to its manifest, verifies it and returns it."""

    def make(statement="SELECT 1", edit=lambda manifest: manifest):
        migrated.execute(statement)
        with django(migrated) as connection:
            store = Folder(place)
            return check(connection, store, edit(take(connection, store, Progress())), Progress())

    return make


@pytest.fixture
def other_role_of():
    """A function that makes a role that may create in a database's schema public, and nothing else, and returns its name."""
    made = []

    def make(database):
        role = f"{database.name}_stranger"
        made.append((database, role))
        database.execute(f"CREATE ROLE {role}; {PLANTED.format(role=role)}")
        return role

    yield make
    for database, role in made:
        database.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
