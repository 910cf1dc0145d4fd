"""Every command, option, finding, setting and make target is documented, and no link in the docs is broken."""

import ast
import re
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

from fly2any.database.findings import CODES
from fly2any.database.health.security import TOPICS as SECURITY
from fly2any.database.health.topics import TOPICS
from fly2any.database.report.collect import NOT_OF_A_RELEASE
from fly2any.database.retention.rules import RULES

PROJECT = Path(__file__).resolve().parent.parent
DOCS = PROJECT / "docs"
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", PROJECT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
# In the changelog a change is one line, so that lines which two commits append merge.
WRAPPED = [page for page in PAGES if page.name != "CHANGELOG.md"]
COMMANDS = {name: app for name, app in sorted(get_commands().items()) if app.startswith("fly2any.")}
WITHOUT_PAGE = {
    "changepassword",
    "createsuperuser",
    "squashmigrations",
    "test",
    "testserver",
}  # Django's commands, except for a message or a guard.
OF_DJANGO = {
    "--help",
    "--version",
    "--verbosity",
    "--settings",
    "--pythonpath",
    "--traceback",
    "--no-color",
    "--force-color",
    "--skip-checks",
}
# Django's commands, with options of ours.
OF_DJANGOS_COMMAND = {
    "flush": {"--noinput", "--no-input", "--database"},
    "inspectdb": {"--database", "--include-partitions", "--include-views"},
    "loaddata": {"--app", "--database", "--exclude", "--format", "--ignorenonexistent"},
    "migrate": {
        "--noinput", "--no-input", "--database", "--fake", "--fake-initial", "--plan", "--run-syncdb", "--check", "--prune"
    },
}  # fmt: skip


def test_the_commands_are_these():
    assert list(COMMANDS) == [
        "changepassword",
        "createsuperuser",
        "dbadopt",
        "dbbackup",
        "dbcontract",
        "dbdistribute",
        "dbhealth",
        "dbmaintain",
        "dbperson",
        "dbreset",
        "dbrestore",
        "dbroles",
        "dbseed",
        "dbstaff",
        "dbstatus",
        "dbupgrade",
        "flush",
        "inspectdb",
        "loaddata",
        "migrate",
        "squashmigrations",
        "test",
        "testserver",
    ]


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - WITHOUT_PAGE))
def test_a_command_has_a_page_with_each_of_its_options(command):
    parser = load_command_class(COMMANDS[command], command).create_parser("manage.py", command)
    options = {word for action in parser._actions for word in action.option_strings if word.startswith("--")} - OF_DJANGO
    options -= OF_DJANGOS_COMMAND.get(command, set())
    page = (DOCS / "reference" / f"{command}.md").read_text()

    assert {option for option in options if not re.search(rf"^\| `{option}\b", page, re.M)} == set()
    assert f"docs/reference/{command}.md" in (PROJECT / "README.md").read_text()


@pytest.mark.parametrize(("option", "parts"), [("--security", SECURITY), ("--release", NOT_OF_A_RELEASE)])
def test_dbstatus_describes_each_part_of_an_option(option, parts):
    parser = load_command_class("fly2any.database", "dbstatus").create_parser("manage.py", "dbstatus")
    [said] = [action.help for action in parser._actions if option in action.option_strings]
    [row] = re.findall(rf"^\| `{option}` \| (.*) \|$", (DOCS / "reference" / "dbstatus.md").read_text(), re.M)

    for text in (said, row):
        assert [part for part in parts if part.removesuffix(".") not in text] == []


def test_the_findings_page_has_each_code_and_no_other():
    page = (DOCS / "reference" / "findings.md").read_text()

    assert set(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", page, re.M)) == CODES


def _literals(node, found):
    """Return the texts that `found` has for the constants of an expression, which may be conditional; none for any other."""
    if isinstance(node, ast.IfExp):
        return _literals(node.body, found) | _literals(node.orelse, found)
    return found(node) if isinstance(node, ast.Constant | ast.Attribute) else set()


def _severities():
    """Return the severities of each code, as far as the code that makes findings writes both."""
    severities: dict[str, set[str]] = {}
    for path in (PROJECT / "fly2any").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            name = isinstance(call, ast.Call) and ast.unparse(call.func)
            if name not in ("Finding", "to.add", "obstacle"):
                continue
            place, default = {"Finding": (0, ""), "to.add": (4, "ERROR"), "obstacle": (4, "WARNING")}[name]
            default_node = ast.parse(f"Severity.{default}", mode="eval").body if default else None
            severity = call.args[place] if len(call.args) > place else default_node
            for code in _literals(call.args[name == "Finding"], lambda node: {str(getattr(node, "value", ""))}) & CODES:
                severities.setdefault(code, set()).update(_literals(severity, lambda node: {node.attr.lower()}))
    return severities


def test_the_findings_page_says_how_severe_each_finding_is():
    page = (DOCS / "reference" / "findings.md").read_text()
    rows = re.findall(r"^\| (error|warning|note)((?:, | or )?.*?) \| (`.*`) \|$", page.partition("## Severities")[2], re.M)
    documented = {
        code: {first, *re.findall(r"error|warning|note", others)}
        for first, others, codes in rows
        for code in re.findall(r"`(.*?)`", codes)
    }

    assert sorted(code for *_, codes in rows for code in re.findall(r"`(.*?)`", codes)) == sorted(CODES)
    assert {code: found for code, found in _severities().items() if not found <= documented[code]} == {}
    assert len(_severities()) > 100


def test_the_guides_page_names_only_commands_options_and_topics_that_exist():
    page = (DOCS / "reference" / "guide.md").read_text()
    named = {words.split()[0]: set() for words in re.findall(r"manage\.py ([a-z]+)", page)}
    for command, words in re.findall(r"manage\.py ([a-z]+)([^`&]*)", page):
        named[command] |= set(re.findall(r"--[a-z-]+", words))
    unknown = {}
    for command, options in named.items():
        app = get_commands().get(command)
        parser = app and load_command_class(app, command).create_parser("manage.py", command)
        known = {word for action in parser._actions for word in action.option_strings} if parser else set()
        if not parser or options - known:
            unknown[command] = options - known

    assert "dbadopt" in named
    assert unknown == {}
    assert set(re.findall(r"manage\.py dbhealth ([a-z]+)", page)) <= set(TOPICS)


def test_the_readme_names_each_make_target():
    targets = re.findall(r"^([a-z-]+):.*## ", (PROJECT / "Makefile").read_text(), re.M)
    readme = (PROJECT / "README.md").read_text()

    assert targets == ["help", "migrate", "test", "admin", "check", "pictures", "bench", "django-suite", "lanes"]
    assert [target for target in targets if not re.search(rf"`(make )?{target}`|make {target}", readme)] == []


@pytest.mark.parametrize("page", WRAPPED, ids=lambda page: str(page.relative_to(PROJECT)))
def test_a_line_of_prose_has_at_most_100_characters(page):
    prose = re.sub(r"^\s*(?:\d+\. )?```.*?```$", "", page.read_text(), flags=re.M | re.S)
    lines = [line for line in prose.splitlines() if not re.match(r"\s*(\||!\[|\[[^]]+\]\(\S+\)\S*$)", line)]

    assert [line for line in lines if len(line) > 100] == []


def _anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_change_is_one_line_of_the_changelog():
    lines = (PROJECT / "CHANGELOG.md").read_text().splitlines()

    assert [line for line in lines if line and not line.startswith(("- ", "#"))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if not link.startswith("http")]
    targets = [(link, page.parent / link.partition("#")[0] if link[0] != "#" else page) for link in links]

    assert [link for link, target in targets if not target.exists()] == []
    assert [link for link, target in targets if "#" in link and link.partition("#")[2] not in _anchors(target)] == []


def test_every_page_is_reached_from_the_readme():
    reached, todo = set(), [PROJECT / "README.md"]
    while todo:
        page = todo.pop().resolve()
        if page in reached:
            continue
        reached.add(page)
        if page.suffix == ".md":
            links = re.findall(r"\]\(([^)#]+)", page.read_text())
            found = [(page.parent / link) for link in links if not link.startswith("http")]
            todo += [path for link in found for path in (sorted(link.glob("*.md")) if link.is_dir() else [link])]

    assert [page for page in PAGES if page.resolve() not in reached] == []


def test_the_page_of_dbmaintain_lists_the_rules_of_retention():
    page = (DOCS / "reference" / "dbmaintain.md").read_text()
    rows = re.findall(r"^\| (`.*`) \| (.*) \| (yes|no)\b.* \|$", page.partition("| archived |")[2], re.M)
    listed = {
        table: (set(re.findall(r"`(\w+)`", what)), kept == "yes")
        for tables, what, kept in rows
        for table in re.findall(r"\w+", tables)
    }

    times = {name: set(re.findall(r'"(\w+)"', f"{rule.time} {rule.child_time}")) for name, rule in RULES.items()}
    assert listed == {name: (times[name], rule.archived) for name, rule in RULES.items()}


def test_where_is_names_files_that_exist_in_a_table_of_one_screen():
    part = (PROJECT / "CONTRIBUTING.md").read_text().partition("### Where is…?")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+) \| `([^`]+)` \|$", part, re.M)
    lines = [line for line in part.splitlines() if line.startswith("|")]

    assert 0 < len(rows) == len(lines) - 2 <= 40  # Without the header and its rule.
    assert [path for _, path in rows if not (PROJECT / path).is_file()] == []
    assert len({question for question, _ in rows}) == len(rows)
