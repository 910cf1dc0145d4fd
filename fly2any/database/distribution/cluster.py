"""The nodes of Citus, and the reasons for which a database cannot be distributed over them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from ..errors import Refusal
from ..schema.relation_kinds import has_citus
from ..sql import fetch_all, fetch_one

OLDEST = (13, 2)  # The version that the tests in tests/citus run on.
HOW = "docs/how-to/distribute.md"

CITUS_SQL = """
    SELECT pg_catalog.split_part(e.extversion, '-', 1), (SELECT g.groupid FROM pg_catalog.pg_dist_local_group AS g)
    FROM pg_catalog.pg_extension AS e WHERE e.extname = 'citus'
"""
NODES_SQL = """
    SELECT n.nodeid, n.groupid, n.nodename || ':' || n.nodeport, n.isactive, n.shouldhaveshards
    FROM pg_catalog.pg_dist_node AS n WHERE n.noderole = 'primary' ORDER BY n.groupid, n.nodeid
"""
# The second is NULL before the minor versions that have the setting, and for a role that may not see it.
SETTINGS_SQL = """
    SELECT nodeid, success, result FROM pg_catalog.run_command_on_all_nodes($$
        SELECT json_build_array(current_setting('wal_level'),
                                (SELECT s.setting FROM pg_catalog.pg_settings AS s WHERE s.name = 'output_plugin_libraries'))$$)
"""


@dataclass(frozen=True, slots=True)
class Node:
    """A server of the cluster; `error` is its answer if it could not be asked for its settings."""

    id: int
    group: int
    name: str  # host:port
    active: bool
    has_shards: bool
    wal_level: str = ""
    output_plugins: str | None = None
    error: str = ""

    @property
    def is_coordinator(self) -> bool:
        return self.group == 0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Citus as a database sees it; `version` is empty without Citus, `group` is 0 on the coordinator."""

    version: str
    group: int
    nodes: tuple[Node, ...]

    @property
    def workers(self) -> tuple[Node, ...]:
        """Return the nodes that hold shards of distributed tables."""
        return tuple(node for node in self.nodes if node.has_shards)

    def unfit(self) -> str:
        """Return the sentence that says why tables cannot be distributed, "" if they can."""
        if not self.version:
            return f"This database has no Citus: install it on this server and on each worker, then run CREATE EXTENSION citus ({HOW})."
        if tuple(map(int, re.findall(r"\d+", self.version)[:2])) < OLDEST:
            return f"Citus {self.version} is too old: upgrade it to {'.'.join(map(str, OLDEST))} or later on each node."
        if self.group:
            return "This server is a worker: connect to the coordinator, and run the command again."
        if not any(node.is_coordinator for node in self.nodes):
            return "The coordinator is not registered, which foreign keys to reference tables need: run SELECT citus_set_coordinator_host('HOST', PORT);"
        if not self.workers:
            return "No worker is registered: run SELECT citus_add_node('HOST', PORT); on the coordinator for each one."
        for node in self.nodes:
            if not node.active or node.error:
                return f"The node {node.name} {f'does not answer ({node.error})' if node.active else 'is disabled'}: repair or remove it, and run the command again."
            if node.wal_level != "logical":
                return f"wal_level is {node.wal_level} on {node.name}: set it to logical on each node, and restart the nodes."
            if node.output_plugins is not None and "citus" not in re.split(r"[\s,]+", node.output_plugins):
                return (
                    f"output_plugin_libraries on {node.name} lacks citus: add it on each node, and reload their configuration."
                )
        return ""


def read_cluster(connection) -> Cluster:
    """Return the version of Citus and the nodes, with the settings of those that answer."""
    if not has_citus(connection):
        return Cluster("", 0, ())
    version, group = fetch_one(connection, CITUS_SQL)
    if group:  # Only the coordinator asks all nodes.
        return Cluster(version, group, ())
    answers = {node: (success, result) for node, success, result in fetch_all(connection, SETTINGS_SQL)}
    return Cluster(version, group, tuple(_node(row, answers.get(row[0])) for row in fetch_all(connection, NODES_SQL)))


def _node(row: tuple[int, int, str, bool, bool], answer: tuple[bool, str] | None) -> Node:
    if answer is None:  # Only active nodes are asked.
        return Node(*row)
    success, result = answer
    return Node(*row, *json.loads(result)) if success else Node(*row, error=result.strip().partition("\n")[0])


def require_cluster(connection) -> Cluster:
    """Return the cluster; raise Refusal if the database cannot be distributed over it."""
    cluster = read_cluster(connection)
    if reason := cluster.unfit():
        raise Refusal(reason)
    return cluster
