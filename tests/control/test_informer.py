"""The index follows the API server and leaves no trace in it: `spendmesh_operator.kube.informer`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from control_plane import ControlPlane
from spendmesh_operator.index import Index, ObjectKey
from spendmesh_operator.kube.client import Kube
from spendmesh_operator.kube.informer import WATCHED, Informer

Json = dict[str, Any]


def provider(namespace: str, name: str, url: str = "https://api.example.com/v1") -> str:
    return json.dumps(
        {
            "apiVersion": "spendmesh.io/v1alpha1",
            "kind": "ModelProvider",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"dialect": "OpenAI", "baseURL": url, "auth": {"type": "None"}},
        }
    )


def pod(name: str, labels: dict[str, str]) -> str:
    spec = {"containers": [{"name": "app", "image": "app"}]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec})


@contextlib.asynccontextmanager
async def informed(
    kubeconfig: Path, index: Index, namespace: str = ""
) -> AsyncIterator[tuple[Informer, Callable[[], int]]]:
    """An informer that has synced, and how often it said that something changed."""
    changes: list[None] = []
    kube = await Kube.connect(str(kubeconfig))
    informer = Informer(kube, index, namespace=namespace, on_change=lambda: changes.append(None), rng=random.Random(1))
    task = asyncio.create_task(informer.run())
    try:
        await asyncio.wait_for(informer.synced.wait(), 60)
        yield informer, lambda: len(changes)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await kube.close()


async def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def test_objects_come_change_and_go(kinds: ControlPlane) -> None:
    """Applied, edited, deleted; also what was there before the start."""
    kinds.create_namespace("informer-life", {"spendmesh.io/inject": "enabled"})
    kinds.kubectl("apply", "-f", "-", stdin=provider("informer-life", "before"))

    async def run() -> None:
        index = Index()
        async with informed(kinds.kubeconfig, index) as (_, changes):
            assert index.entry(ObjectKey("ModelProvider", "informer-life", "before")) is not None
            assert index.namespace_labels("informer-life") is not None
            kinds.kubectl("apply", "-f", "-", stdin=provider("informer-life", "later"))
            later = ObjectKey("ModelProvider", "informer-life", "later")
            await eventually(lambda: index.entry(later) is not None)
            kinds.kubectl("apply", "-f", "-", stdin=provider("informer-life", "later", "https://b.example.com/v1"))
            await eventually(lambda: (entry := index.entry(later)) is not None and entry.generation == 2)
            before = changes()
            kinds.kubectl("delete", "modelprovider", "-n", "informer-life", "later")
            await eventually(lambda: index.entry(later) is None)
            assert changes() > before

    asyncio.run(run())


def test_only_injected_pods_are_watched(kinds: ControlPlane) -> None:
    """The selector is the server's: other pods never travel."""
    kinds.create_namespace("informer-pods")

    async def run() -> None:
        index = Index()
        async with informed(kinds.kubeconfig, index):
            for name, labels in (("other", {}), ("ours", {"spendmesh.io/injected": "true"})):
                kinds.kubectl("create", "-n", "informer-pods", "-f", "-", stdin=pod(name, labels))
            await eventually(lambda: any(one.name == "ours" for one in index.pods()))
            assert [one.name for one in index.pods() if one.namespace == "informer-pods"] == ["ours"]

    asyncio.run(run())


def test_nothing_is_written_to_anybodys_object(kinds: ControlPlane) -> None:
    """No finalizer, no annotation, no managed field: deleting works though no operator runs."""
    kinds.create_namespace("informer-trace")
    kinds.kubectl("apply", "--server-side", "-f", "-", stdin=provider("informer-trace", "clean"))
    path = "/apis/spendmesh.io/v1alpha1/namespaces/informer-trace/modelproviders/clean"
    before = kinds.api.call("GET", path)

    async def run() -> None:
        index = Index()
        async with informed(kinds.kubeconfig, index):
            kinds.kubectl("apply", "-f", "-", stdin=provider("informer-trace", "marker"))
            marker = ObjectKey("ModelProvider", "informer-trace", "marker")
            await eventually(lambda: index.entry(marker) is not None)

    asyncio.run(run())
    assert kinds.api.call("GET", path) == before


def test_a_deletion_that_no_watch_told_of_is_found_by_listing(kinds: ControlPlane) -> None:
    """kopf lists again after an interrupted watch, and does not tell what is missing then."""
    kinds.create_namespace("informer-missed")

    async def run() -> None:
        index = Index()
        async with informed(kinds.kubeconfig, index) as (informer, _):
            ghost = json.loads(provider("informer-missed", "ghost"))
            ghost["metadata"]["uid"] = "1"
            informer._seen("ModelProvider", "ADDED", ghost)
            key = ObjectKey("ModelProvider", "informer-missed", "ghost")
            assert index.entry(key) is not None
            await informer._resync_all()
            assert index.entry(key) is None

    asyncio.run(run())


def test_one_namespace_needs_rights_in_that_namespace_only(kinds: ControlPlane) -> None:
    """Without any cluster-wide right, and others' objects are not seen."""
    kinds.create_namespace("informer-own", {"spendmesh.io/inject": "enabled"})
    kinds.create_namespace("informer-foreign")
    kinds.kubectl("apply", "-f", "-", stdin=provider("informer-foreign", "foreign"))
    rules = [
        {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["informer-own"], "verbs": ["get"]},
        *({"apiGroups": [one.selector[0]], "resources": [one.plural], "verbs": ["list", "watch"]} for one in WATCHED),
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": rules}
    kinds.kubectl("create", "-n", "informer-own", "-f", "-", stdin=json.dumps(role))
    kinds.kubectl("create", "-n", "informer-own", "rolebinding", "r", "--role=r", "--user=informer-user")

    async def run() -> None:
        index = Index()
        async with informed(kinds.kubeconfig_for("informer-user"), index, "informer-own"):
            assert index.namespace_labels("informer-own") is not None
            kinds.kubectl("apply", "-f", "-", stdin=provider("informer-own", "mine"))
            await eventually(lambda: [entry.key.name for entry in index.entries()] == ["mine"])

    asyncio.run(run())


def test_what_was_just_applied_is_known_when_it_is_read(kinds: ControlPlane) -> None:
    """Even where no watch has told of it, in the namespaces that are asked for only; once known it is no news."""
    kinds.create_namespace("informer-now")
    kinds.create_namespace("informer-then")

    async def run() -> None:
        index, changes = Index(), 0

        def count() -> None:
            nonlocal changes
            changes += 1

        kube = await Kube.connect(str(kinds.kubeconfig))
        informer = Informer(kube, index, on_change=count, rng=random.Random(1))
        for namespace in ("informer-now", "informer-then"):
            kinds.kubectl("apply", "-f", "-", stdin=provider(namespace, "new"))
        before = index.objects_version
        await informer.read_now({"informer-now"})
        assert index.entry(ObjectKey("ModelProvider", "informer-now", "new")) is not None
        assert index.entry(ObjectKey("ModelProvider", "informer-then", "new")) is None
        assert index.namespace_labels("informer-now") is not None
        known = changes, index.objects_version
        assert known == (2, before + 2)  # the object, and the namespace's labels
        await informer.read_now({"informer-now"})
        assert (changes, index.objects_version) == known
        await kube.close()

    asyncio.run(run())
