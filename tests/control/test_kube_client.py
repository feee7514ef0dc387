"""The client against a real API server: `spendmesh_operator.kube.client`."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from control_plane import ControlPlane
from spendmesh_operator.kube import paths
from spendmesh_operator.kube.client import Conflict, Forbidden, Kube, KubeError, KubeUnavailable, NotFound

T = TypeVar("T")


def with_kube(kubeconfig: Path, work: Callable[[Kube], Awaitable[T]]) -> T:
    """Run some work with a client and close it."""

    async def run() -> T:
        kube = await Kube.connect(str(kubeconfig))
        try:
            return await work(kube)
        finally:
            await kube.close()

    return asyncio.run(run())


def secret(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def test_a_stale_version_is_a_conflict(control_plane: ControlPlane) -> None:
    """Compare-and-swap: whoever has read an old version cannot write over a newer one."""
    control_plane.create_namespace("client-cas")

    async def work(kube: Kube) -> None:
        first = await kube.create(paths.collection(paths.CORE, "secrets", "client-cas"), secret("s", a="1"))
        path = paths.item(paths.CORE, "secrets", "client-cas", "s")
        second = await kube.replace(path, {**first, "stringData": {"a": "2"}})
        assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]
        with pytest.raises(Conflict):
            await kube.replace(path, {**first, "stringData": {"a": "3"}})
        with pytest.raises(Conflict) as exists:
            await kube.create(paths.collection(paths.CORE, "secrets", "client-cas"), secret("s"))
        assert exists.value.reason == "AlreadyExists"

    with_kube(control_plane.kubeconfig, work)


def test_a_missing_object_and_a_missing_right_are_told_apart(control_plane: ControlPlane) -> None:
    async def missing(kube: Kube) -> None:
        with pytest.raises(NotFound):
            await kube.get(paths.item(paths.CORE, "secrets", "default", "absent"))

    async def forbidden(kube: Kube) -> None:
        with pytest.raises(Forbidden, match="secrets"):
            await kube.get(paths.item(paths.CORE, "secrets", "default", "absent"))

    with_kube(control_plane.kubeconfig, missing)
    with_kube(control_plane.kubeconfig_for("client-nobody"), forbidden)


def test_a_long_list_comes_whole(control_plane: ControlPlane) -> None:
    """Lists are paged; every item says what it is, as a single object does."""
    control_plane.create_namespace("client-list")
    names = [f"m-{number:04}" for number in range(530)]
    maps = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "client-list"}}
        for name in names
    ]
    control_plane.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": maps}))

    async def work(kube: Kube) -> None:
        items, version = await kube.list(paths.collection(paths.CORE, "configmaps", "client-list"))
        assert [one["metadata"]["name"] for one in items] == names
        assert {one["kind"] for one in items} == {"ConfigMap"} and version > 0

    with_kube(control_plane.kubeconfig, work)


def test_no_server_is_unavailable_and_no_kubeconfig_says_where(control_plane: ControlPlane, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.write_text(control_plane.kubeconfig.read_text().replace(control_plane.url, "https://127.0.0.1:1"))

    async def work(kube: Kube) -> None:
        with pytest.raises(KubeUnavailable):
            await kube.get("/api")

    with_kube(nowhere, work)
    with pytest.raises(KubeUnavailable, match=r"absent\.yaml"):
        asyncio.run(Kube.connect(str(tmp_path / "absent.yaml")))


@contextmanager
def answering(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers one after the other, and the requests that it saw."""
    seen: list[str] = []
    left = list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            seen.append(f"{self.command} {self.path}")
            status, headers, body = left.pop(0)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def kubeconfig_for(url: str, folder: Path) -> Path:
    path = folder / "plain"
    entry = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path.write_text(json.dumps(entry))
    return path


def test_a_throttled_request_is_sent_again(tmp_path: Path) -> None:
    """429 means that nothing was done, so that also a POST may be repeated; Retry-After is obeyed."""
    throttled = (429, {"Retry-After": "0"}, b'{"reason": "TooManyRequests"}')
    with answering(throttled, throttled, (201, {}, b'{"done": true}')) as (url, seen):

        async def work(kube: Kube) -> None:
            assert await kube.create("/api/v1/x", {"a": 1}) == {"done": True}

        with_kube(kubeconfig_for(url, tmp_path), work)
        assert seen == ["POST /api/v1/x"] * 3


def test_a_write_that_failed_inside_the_server_is_sent_once(tmp_path: Path) -> None:
    """It may have been done: only the caller knows whether to ask again."""
    with answering((500, {}, b"etcd is away")) as (url, seen):

        async def work(kube: Kube) -> None:
            with pytest.raises(KubeUnavailable, match="etcd is away"):
                await kube.create("/api/v1/x", {"a": 1})

        with_kube(kubeconfig_for(url, tmp_path), work)
        assert len(seen) == 1


def test_an_error_names_no_token(tmp_path: Path) -> None:
    with answering((422, {}, b'{"reason": "Invalid", "message": "no"}')) as (url, _):

        async def work(kube: Kube) -> None:
            with pytest.raises(KubeError) as refused:
                await kube.create("/x", {"spec": {"token": "canary"}})
            assert "canary" not in str(refused.value) and refused.value.status == 422

        with_kube(kubeconfig_for(url, tmp_path), work)
