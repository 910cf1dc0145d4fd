"""The guide's five troubleshooting cases, each from a real server, answered as docs/reference/errors.md says."""

import re
import socket

import pytest
from django.db import NotSupportedError, OperationalError

from fly2any.database.errors import CAUSES, explain
from tests import prisma
from tests.conftest import PROJECT, manage
from tests.servers import free_port

PAGE = (PROJECT / "docs" / "reference" / "errors.md").read_text()


def sentence_of(case):
    """The sentence of the page for a case, as a pattern."""
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| *{case}*")]
    return re.escape(row.split(" | ")[2].removesuffix(" |")).replace("…", ".*")


def already_exists(database, own_server):
    database.execute(prisma.exact())
    return manage("migrate", url=database.url)


def tls_required(database, own_server):
    server = own_server()
    server.hba("hostssl all all 127.0.0.1/32 trust")
    return manage("migrate", url=server.url(parameters="?sslmode=disable"))


def permission_denied(database, own_server):
    with database.role() as url:
        return manage("migrate", url=url)


def timeout(database, own_server):
    with socket.socket() as silent:  # It accepts connections and never responds.
        silent.bind(("127.0.0.1", free_port()))
        silent.listen()
        port = silent.getsockname()[1]
        return manage("migrate", url=f"postgresql://u@127.0.0.1:{port}/d?connect_timeout=2")


def lock_timeout(database, own_server):
    with database.connect(application_name="the other") as other:
        other.execute("SELECT pg_advisory_lock(72707369)")
        return manage("migrate", "--lock-wait", "1", url=database.url)


CASES = {
    "relation already exists": already_exists,
    "SSL connection required": tls_required,
    "permission denied": permission_denied,
    "connection timeout": timeout,
    "migration lock timeout": lock_timeout,
}


@pytest.mark.parametrize("case", CASES)
def test_the_guides_five_cases_are_answered_with_cause_and_cure(database, own_server, case):
    result = CASES[case](database, own_server)

    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert re.fullmatch(sentence_of(case), result.stderr.splitlines()[-1]), result.stderr


def test_every_sentence_is_on_the_page():
    said = {re.sub(r"\{\w+\}", "…", cause.sentence).replace("|", "/") for cause in CAUSES}

    assert {sentence for sentence in said if f"| {sentence} |" not in PAGE} == set()


def test_an_error_of_django_is_not_attributed_to_the_database():
    error = NotSupportedError(
        "The AddIndexConcurrently operation cannot be executed inside a transaction (set atomic = False)."
    )

    assert explain(error) == (
        "The AddIndexConcurrently operation cannot be executed inside a transaction (set atomic = False)"
        " (NotSupportedError of Django; --traceback shows where)."
    )


def test_a_node_of_citus_is_not_mistaken_for_the_server():
    error = OperationalError(
        "connection to the remote node app@10.0.0.2:5432 failed with the following error: Connection refused\n\tIs the server running?"
    )

    assert explain(error) == (
        "The node 10.0.0.2:5432 of Citus does not answer: start it, or repair its network (`manage.py dbstatus` shows the nodes)."
    )


def test_a_cause_is_reported_once():
    sentences = [cause.sentence for cause in CAUSES if cause.sqlstates]

    assert len(sentences) == len(set(sentences))
