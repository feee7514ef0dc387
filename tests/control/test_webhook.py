"""AdmissionReviews as the API server sends them, and as nobody should: `spendmesh_operator.webhook`."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from pod_samples import CONFIG, ENABLED, pod
from spendmesh_operator.injection import Decision, mutate
from spendmesh_operator.webhook import BODY_BYTES_MAX, webhook_app

Json = dict[str, Any]


def review(**request: Any) -> Json:
    body = {"uid": "u1", "namespace": "team-a", "object": pod(), **request}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": body}


def decide(body: Json, namespace: str) -> Decision:
    assert namespace == "team-a"
    return mutate(body, ENABLED, CONFIG)


async def known(_: str) -> None:
    """All was known before."""


def post(
    body: Any, decide: Callable[[Json, str], Decision] = decide, ready: bool = True
) -> tuple[int, bytes, list[str]]:
    counted: list[str] = []

    async def run() -> tuple[int, bytes, list[str]]:
        app = webhook_app(decide, lambda: ready, counted.append, known, lambda: False)
        async with TestClient(TestServer(app)) as client:
            data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
            async with client.post("/inject", data=data, headers={"Content-Type": "application/json"}) as response:
                return response.status, await response.read(), counted

    return asyncio.run(run())


def test_a_pod_is_answered_with_its_patch() -> None:
    status, body, counted = post(review())
    answer = json.loads(body)["response"]
    assert status == 200 and answer["uid"] == "u1" and answer["allowed"] and answer["patchType"] == "JSONPatch"
    paths = {one["path"] for one in json.loads(base64.b64decode(answer["patch"]))}
    assert "/spec/initContainers" in paths and counted == ["injected"]


def test_a_pod_that_needs_nothing_is_allowed_without_a_patch() -> None:
    once = mutate(pod(), ENABLED, CONFIG)
    answer = json.loads(post(review(object=once.pod))[1])["response"]  # type: ignore[union-attr]
    assert answer == {"uid": "u1", "allowed": True}


@pytest.mark.parametrize(
    ("container", "named"),
    [
        ({"volumeMounts": [{"name": "spendmesh-keys", "mountPath": "/k"}]}, "spendmesh-keys"),
        ({"targetContainerName": "spendmesh-sidecar"}, "targets spendmesh-sidecar"),
    ],
)
def test_a_debug_container_that_reaches_the_sidecar_is_refused(container: Json, named: str) -> None:
    """The sidecar's keys and its files are nobody else's; other debugging is none of our business."""
    once = mutate(pod(), ENABLED, CONFIG)
    spec = once.pod["spec"]  # type: ignore[union-attr]
    for added, allowed in (({}, True), (container, False)):
        running = pod(**{**spec, "ephemeralContainers": [{"name": "debugger", **added}]})
        answer = json.loads(post(review(object=running, subResource="ephemeralcontainers"))[1])["response"]
        assert answer["allowed"] is allowed and "patch" not in answer
        assert allowed or named in answer["status"]["message"]


def test_a_refusal_says_what_to_change() -> None:
    _, body, counted = post(review(object=pod(hostNetwork=True)))
    answer = json.loads(body)["response"]
    assert not answer["allowed"] and answer["status"]["message"].startswith("Spendmesh: hostNetwork")
    assert counted == ["refused"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "not JSON"),
        (b"[]", "not an AdmissionReview"),
        ({"apiVersion": "admission.k8s.io/v1beta1", "request": {}}, "not an AdmissionReview"),
        (review(uid=""), "request.uid"),
        (review(uid=7), "request.uid"),
        (review(object=None), "request.object is not a Pod"),
        (review(object={"kind": "Service", "spec": {}}), "request.object is not a Pod"),
        (review(object={"kind": "Pod", "spec": None}), "request.object is not a Pod"),
        (review(namespace=None), "request.namespace"),
    ],
)
def test_what_is_no_review_of_a_pod_is_refused_by_name(body: Any, sentence: str) -> None:
    status, text, counted = post(body)
    assert status == 400 and sentence in json.loads(text)["error"] and counted == ["invalid"]


def test_a_body_that_no_api_server_sends_is_not_read() -> None:
    assert post(b"x" * (BODY_BYTES_MAX + 1))[0] == 413


def test_before_the_first_compilation_the_api_server_is_told_to_ask_again() -> None:
    """Injected now, the pod would lack its policy's keys for its whole life."""
    assert post(review(), ready=False)[0] == 503


def test_a_failure_inside_shows_nothing_of_itself() -> None:
    def fails(_: Json, __: str) -> Decision:
        raise RuntimeError("canary /srv/secret/path")

    status, body, _ = post(review(), fails)
    assert status == 500 and b"canary" not in body and b"Traceback" not in body


def test_a_pod_is_decided_about_with_what_was_applied_before_it() -> None:
    """Whatever the watch has not told yet is read first, of the pod's namespace."""
    order: list[str] = []

    async def catch_up(namespace: str) -> None:
        order.append(f"read {namespace}")

    def decides(body: Json, namespace: str) -> Decision:
        order.append("decide")
        return decide(body, namespace)

    async def run() -> int:
        app = webhook_app(decides, lambda: True, lambda _: None, catch_up, lambda: False)
        async with TestClient(TestServer(app)) as client, client.post("/inject", json=review()) as response:
            return response.status

    assert asyncio.run(run()) == 200 and order == ["read team-a", "decide"]


def test_a_replica_that_leaves_sends_the_api_server_to_another_connection() -> None:
    """It keeps connections, and one that ends under its next question fails the creation of a pod."""

    async def run() -> list[str]:
        leaving, said = [False], []
        app = webhook_app(decide, lambda: True, lambda _: None, known, lambda: leaving[0])
        async with TestClient(TestServer(app)) as client:
            for leaving[0] in (False, True):
                async with client.post("/inject", json=review()) as response:
                    said.append(response.headers.get("Connection", ""))
        return said

    assert asyncio.run(run()) == ["", "close"]
