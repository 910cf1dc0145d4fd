"""The deployment files: their commands are run as written; the rest is checked to be well-formed."""

import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from tests.conftest import PROJECT, manage
from tests.servers import free_port

BIN = Path(sys.executable).parent
UNITS = sorted((PROJECT / "deploy" / "systemd").iterdir())


def environment(database, **more):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "DATABASE_", "DJANGO_"))}
    return {
        **clean, "PATH": f"{BIN}:{os.environ['PATH']}", "POSTGRES_URL": database.url, "SECRET_KEY": "only for tests", "ALLOWED_HOSTS": "localhost",
        "TRUST_PROXY": "true", **more,
    }  # fmt: skip


def procfile():
    return dict(line.split(": ", 1) for line in (PROJECT / "Procfile").read_text().splitlines())


def workflow():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: make check installs it")
    return yaml.safe_load((PROJECT / ".github" / "workflows" / "deploy.yml").read_text())


def railway():
    return json.loads((PROJECT / "railway.json").read_text())["deploy"]


def unit(name):
    return (PROJECT / "deploy" / "systemd" / name).read_text()


PHASES = {
    "Procfile": lambda: procfile()["release"],
    "railway.json": lambda: railway()["preDeployCommand"][0],
    "deploy.yml": lambda: workflow()["jobs"]["release"]["steps"][-1]["run"],
    "systemd": lambda: " && ".join(re.findall(r"^ExecStart=(.*)$", unit("fly2any-release.service"), re.M)).replace(
        "/srv/fly2any/.venv/bin/", ""
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PHASES)
def test_a_release_phase_builds_the_database_and_stops_if_it_differs(database, name):
    def release():
        return subprocess.run(
            PHASES[name](),
            shell=True,
            cwd=PROJECT,
            env=environment(database, BACKUP_LOCATION="/nonexistent"),
            capture_output=True,
            text=True,
        )

    first = release()  # A backup location without backups does not stop a deploy.
    database.execute('DROP INDEX "price_alerts_active_idx"')
    second = release()

    assert (first.returncode, "Phase 7, total          18/18     188/188     33/33          13/13" in first.stdout) == (0, True)
    assert (second.returncode, "index.missing" in second.stdout) == (4, True)


@pytest.mark.slow
@pytest.mark.parametrize("command", {procfile()["web"], railway()["startCommand"]})
def test_the_web_process_serves_reports_readiness_and_stops_on_sigterm(migrated, command):
    port = free_port()
    web = subprocess.Popen(
        [BIN / command], cwd=PROJECT, env=environment(migrated, PORT=str(port), GUNICORN_CMD_ARGS=f"--bind=127.0.0.1:{port}"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip

    def ask(path):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}", headers={"Host": "localhost", "X-Forwarded-Proto": "https"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()

    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                ready = ask(railway()["healthcheckPath"])
                break
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        login = ask("/admin/login/")
        style = ask("/static/fly2any/admin.css")
    finally:
        web.send_signal(signal.SIGTERM)
        said, _ = web.communicate(timeout=60)

    assert ready == (200, '{"status": "ok", "database": "ok", "migrations": "ok"}')
    assert (login[0], 'name="username"' in login[1], style[0]) == (200, True, 200)
    assert web.returncode == 0, said
    assert '"message": "GET /admin/login/ 200"' in said


@pytest.mark.slow
@pytest.mark.parametrize(("given", "workers"), [({}, "2"), ({"WEB_CONCURRENCY": "4"}, "4")])
def test_the_platform_sets_the_number_of_processes(migrated, given, workers):
    config = subprocess.run(
        [BIN / "gunicorn", "--print-config"], cwd=PROJECT, env=environment(migrated, **given), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout  # fmt: skip

    assert re.search(r"^workers\s+= (\d+)$", config, re.M)[1] == workers


@pytest.mark.slow
def test_the_number_of_processes_is_read_from_the_file_too(migrated, tmp_path):
    (tmp_path / "env").write_text("WEB_CONCURRENCY=5\n")

    config = subprocess.run(
        [BIN / "gunicorn", "--print-config"], cwd=PROJECT, env=environment(migrated, ENV_FILE=str(tmp_path / "env")),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ).stdout  # fmt: skip

    assert re.search(r"^workers\s+= (\d+)$", config, re.M)[1] == "5"


@pytest.mark.parametrize("given", ["0", "-1", "1_0", "1001"])
def test_an_invalid_number_of_processes_is_reported_in_one_sentence(given, monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", given)

    with pytest.raises(SystemExit, match=r"^WEB_CONCURRENCY is not a number from 1 to 1000: correct it\.$"):
        runpy.run_path(str(PROJECT / "gunicorn.conf.py"))
    with pytest.raises(ImproperlyConfigured, match=r"^WEB_CONCURRENCY is not a number from 1 to 1000: correct it\.$"):
        runpy.run_path(str(PROJECT / "fly2any" / "settings.py"))


@pytest.mark.slow  # It needs PyYAML.
def test_one_workflow_at_a_time_never_cancels_a_run_that_migrates():
    jobs = workflow()["jobs"]
    checked = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", ".github/workflows/deploy.yml"],
        cwd=PROJECT, capture_output=True, text=True,
    )  # fmt: skip

    assert checked.returncode == 0, checked.stdout
    assert jobs["test"]["steps"][-1]["run"] == ".ci/run"
    assert os.access(PROJECT / ".ci" / "run", os.X_OK)
    assert jobs["release"]["needs"] == "test"
    assert jobs["release"]["concurrency"] == {"group": "release", "cancel-in-progress": False}
    python = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["ruff"]["target-version"]
    assert jobs["release"]["steps"][1]["with"]["python-version"].replace(".", "") == python.removeprefix("py")


def test_the_units_are_well_formed(tmp_path):
    for unit in UNITS:  # With an existing program and folder.
        text = (
            unit.read_text()
            .replace("/srv/fly2any/.venv/bin/", f"{BIN}/")
            .replace("WorkingDirectory=/srv/fly2any", f"WorkingDirectory={PROJECT}")
        )
        (tmp_path / unit.name).write_text(text.replace("User=fly2any", "User=root"))

    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *sorted(map(str, tmp_path.iterdir()))], capture_output=True, text=True
    )  # fmt: skip

    assert (checked.returncode, checked.stderr) == (0, "")


def commands_in(text, **environment):
    """Yield the manage.py commands of a unit; `environment` is that of its EnvironmentFile, which overrides its own."""
    variables = {**dict(re.findall(r'^Environment="(\w+)=(.*)"$', text, re.M)), **environment}
    for line in re.findall(r"^ExecStart(?:Pre)?=-?(.*)$", text, re.M):
        words = shlex.split(re.sub(r"\$(\w+)", lambda match: variables[match[1]], line))
        if words[1:2] == ["manage.py"]:
            for period in ("weekly", "monthly", "quarterly") if "%i" in line else ("",):
                yield " ".join(words[2:]).replace("%i", period)


def commands_of_units():
    for unit in UNITS:
        yield from commands_in(unit.read_text())


def railway_crons():
    files = sorted((PROJECT / "deploy" / "railway").iterdir())
    return {file.stem: json.loads(file.read_text())["deploy"] for file in files}


CRONS = {
    "*-*-* 02:00:00": "0 2 * * *",
    "Sun *-*-* 03:15:00": "15 3 * * 0",
    "*-*-01 04:15:00": "15 4 1 * *",
    "*-01,04,07,10-01 05:15:00": "15 5 1 1,4,7,10 *",
}  # The times of systemd's timers, as cron writes them.


def test_railways_cron_services_run_the_commands_of_the_timers_at_the_same_times():
    timers = {
        one.stem.removeprefix("fly2any-"): CRONS[re.search("^OnCalendar=(.*)$", one.read_text(), re.M)[1]]
        for one in UNITS
        if one.suffix == ".timer"
    }
    page = (PROJECT / "docs" / "how-to" / "railway.md").read_text()
    table = re.findall(r"^   \| `/deploy/railway/(\S+)\.json` \| `(.*?)`", page, re.M)

    assert {name: cron["cronSchedule"] for name, cron in railway_crons().items()} == timers
    assert {cron["startCommand"] for cron in railway_crons().values()} == {
        f"python manage.py {line}" for line in commands_of_units() if line.startswith(("dbbackup", "dbmaintain"))
    }
    assert {name: f"python manage.py {line}" for name, line in table} == {
        name: cron["startCommand"] for name, cron in railway_crons().items()
    }
    # Railway reads these files in place of railway.json: no release phase, no health check, and no second run after a finding.
    assert {tuple(cron) for cron in railway_crons().values()} == {("startCommand", "cronSchedule", "restartPolicyType")}
    assert {cron["restartPolicyType"] for cron in railway_crons().values()} == {"NEVER"}


@pytest.mark.slow
@pytest.mark.parametrize("line", sorted(set(commands_of_units())))
def test_each_command_of_a_unit_runs(migrated, tmp_path, line):
    result = manage(*line.split(), url=migrated.url, BACKUP_LOCATION=str(tmp_path / "backups"))

    assert result.returncode in (0, 4), result.stderr  # 4: the tests' role is a superuser, and no backup is there.
    assert result.stderr == ""


@pytest.mark.slow
def test_the_unit_takes_encrypted_backups_without_the_key_and_verifies_them_where_the_key_is(migrated, tmp_path):
    import pyrage

    key = pyrage.x25519.Identity.generate()
    (tmp_path / "key.txt").write_text(f"{key}\n")
    page = (PROJECT / "docs" / "how-to" / "back-up.md").read_text()
    here, there = (value.strip('"') for value in re.findall(r"^ *DBBACKUP_OPTIONS=(.*)$", page, re.M))

    def run(options, **more):
        (command,) = commands_in(unit("fly2any-backup.service"), DBBACKUP_OPTIONS=options)
        return manage(*command.split(), url=migrated.url, BACKUP_LOCATION=str(tmp_path / "backups"), **more)

    taken = run(here, BACKUP_RECIPIENT=str(key.to_public()))
    verified = run(there, BACKUP_IDENTITY_FILE=str(tmp_path / "key.txt"))

    assert (taken.returncode, ", encrypted" in taken.stdout, taken.stderr) == (0, True, "")
    assert (verified.returncode, "Verdict   verified" in verified.stdout, verified.stderr) == (0, True, "")


def test_each_timer_has_its_service_and_every_unit_the_same_sandbox():
    services = {unit.name: unit.read_text() for unit in UNITS if unit.suffix == ".service"}
    walls = {
        name: frozenset(re.findall(r"^(?:NoNew|Private|Protect|Restrict|Lock|Cap|System|UMask|User).*$", text, re.M))
        for name, text in services.items()
    }
    timers = {unit.stem: unit.read_text() for unit in UNITS if unit.suffix == ".timer"}

    assert len(set(walls.values())) == 1
    assert len(next(iter(walls.values()))) == 20
    for name, text in timers.items():
        unit = re.search(r"^Unit=(.*)$", text, re.M)
        service = re.sub(r"@\w+\.", "@.", unit[1]) if unit else f"{name}.service"
        assert service in services
