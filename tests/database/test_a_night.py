"""A whole night: seed, back up, verify, damage, get findings, restore, and all rows are as before."""

import json

import pytest

from tests.conftest import manage
from tests.database.taken import databases, rows


@pytest.mark.slow
@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "encrypted"])
def test_nightly_damage_is_found_and_cured(migrated, tmp_path, sealed):
    import pyrage

    settings = {"url": migrated.url, "BACKUP_LOCATION": str(tmp_path / "backups")}
    if sealed:
        key = pyrage.x25519.Identity.generate()
        (tmp_path / "key").write_text(f"{key}\n")
        settings |= {"BACKUP_RECIPIENT": str(key.to_public()), "BACKUP_IDENTITY_FILE": str(tmp_path / "key")}

    def run(*words):
        result = manage(*words, **settings)
        assert "Traceback" not in result.stderr
        return result

    def codes(*words):
        return {finding["code"] for finding in json.loads(run(*words, "--format", "json").stdout)["findings"]}

    assert run("dbseed", "--production", "--users", "60", "--seed", "1", "--until", "2026-05-01").returncode == 0
    usual = codes("dbhealth")
    held = rows(migrated)
    assert run("dbbackup", "--verify", "--prune").returncode == 0
    assert run("dbstatus").returncode == 0

    migrated.execute(
        'DROP INDEX "price_alerts_active_idx"; ALTER TABLE notifications DROP CONSTRAINT "notifications_userId_fkey"'
    )
    migrated.execute("DELETE FROM users; UPDATE price_history SET price = 0")
    migrated.execute(
        "CREATE INDEX theirs ON price_history (origin); CREATE INDEX theirs_too ON price_history (origin, destination)"
    )

    assert codes("dbstatus") == {"index.missing", "foreign_key.missing"}
    assert codes("dbhealth") - usual == {"index.missing", "foreign_key.missing", "indexes.redundant"}
    assert run("dbstatus").returncode == 4
    restored = run("dbrestore", "latest", "--yes")
    assert (restored.returncode, ": every row was compared and matches." in restored.stdout) == (0, True)
    left = {"backup.none", "server.leftover"}  # None of the restored database, and the one before the restore.
    assert codes("dbstatus", "--write-check") == left
    assert codes("dbhealth") - usual == left
    assert rows(migrated) == held
    for name in databases(migrated) - {migrated.name}:
        migrated.execute(f'DROP DATABASE "{name}"')
