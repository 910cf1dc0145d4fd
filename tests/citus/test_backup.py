"""Backups of a distributed database."""

from tests.conftest import manage


def test_a_backup_is_verified_and_restored_into_another_database_but_not_over_this_one(distributed, tmp_path):
    places = {"BACKUP_LOCATION": str(tmp_path / "backups")}
    assert manage("dbseed", "--users", "10", "--yes", "--production", url=distributed.url).returncode == 0
    into = f"{distributed.name}_copy"

    verified = manage("dbbackup", "--verify", url=distributed.url, timeout=300, **places)
    assert verified.returncode == 0, verified.stderr
    assert "Verdict   verified: " in verified.stdout
    for words in ([], ["--yes"]):
        refused = manage("dbrestore", "latest", *words, url=distributed.url, **places)
        assert refused.returncode == 2
        assert refused.stderr.startswith("Citus distributes this database, and the old one would lose its shards")
    try:
        restored = manage("dbrestore", "latest", "--into", into, url=distributed.url, timeout=300, **places)
        assert restored.returncode == 0, restored.stderr
        assert f"Restored  into {into}: every row was compared and matches.\n" in restored.stdout
    finally:
        distributed.execute(f"DROP DATABASE IF EXISTS {into} WITH (FORCE)")
