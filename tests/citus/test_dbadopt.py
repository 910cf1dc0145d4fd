"""dbadopt on a cluster: tables that Citus has are refused, and adopted once they are local."""

from tests.conftest import manage
from tests.database.sites import KINDS


def test_tables_that_citus_distributes_are_refused(cluster):
    cluster.execute(f"CREATE SCHEMA site; SET search_path TO site; {KINDS['exact']}")
    cluster.execute("SELECT create_reference_table('site.users')")
    url = f"{cluster.url}&schema=site"

    plan, adopted = manage("dbadopt", url=url), manage("dbadopt", "--yes", url=url)

    cure = "SELECT undistribute_table('accounts', cascade_via_foreign_keys => true)"
    sentence = (
        f"Citus manages accounts: make its tables local again ({cure}),"
        " run `manage.py dbadopt`, and distribute them afterwards.\n"
    )
    assert [(one.returncode, one.stderr) for one in (plan, adopted)] == [(2, sentence)] * 2
    cluster.execute(f"SET search_path TO site; {cure}")
    assert (plan := manage("dbadopt", url=url)).returncode == 0, plan.stderr
