"""
The injection webhook: an AdmissionReview in, a patch or a reason out. Decides nothing itself (`injection` does).

Its caller is the API server, which shows no identity to webhooks; what it answers holds no secret. A failure here is
a plain 500 without detail: the API server then does what `failurePolicy` says, and the log has the rest.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from aiohttp import web

from spendmesh_operator.injection import Decision, Injected, Refused, debug

Json = dict[str, Any]

Decide = Callable[[Json, str], Decision]
"""Pod and its namespace to a decision; takes milliseconds and never waits."""

CatchUp = Callable[[str], Awaitable[None]]
"""Returns when `decide` knows all that was applied to a namespace before the call; bounded, and never raises."""

PATH: Final = "/inject"
BODY_BYTES_MAX: Final = 3 * 1024 * 1024
"""kube-apiserver takes no larger object itself (--max-resource-write-bytes, MaxRequestBodyBytes)."""
WARNING_CHARACTERS_MAX: Final = 256
"""The API server cuts longer ones, and all after 4096 characters together."""
WARNINGS_MAX: Final = 8

log = logging.getLogger(__name__)


class Review(NamedTuple):
    """What an AdmissionReview asks about."""

    uid: str
    pod: Json
    namespace: str
    subresource: str
    """Empty, or `ephemeralcontainers` (kubectl debug)."""


class BadReview(ValueError):
    """Not an AdmissionReview of a pod; the message says what is missing."""


def webhook_app(
    decide: Decide,
    is_ready: Callable[[], bool],
    count: Callable[[str], None],
    catch_up: CatchUp,
    is_leaving: Callable[[], bool],
) -> web.Application:
    """`count` is told each outcome: injected, left-alone, refused, invalid."""

    async def inject(request: web.Request) -> web.Response:
        if not is_ready():
            # Before the first list a policy would be missing from the pod for ever.
            return web.json_response({"error": "the operator is starting: try again"}, status=503)
        try:
            uid, pod, namespace, subresource = read_review(await request.read())
        except BadReview as error:
            count("invalid")
            return web.json_response({"error": str(error)}, status=400)
        debugs = subresource == "ephemeralcontainers"
        if not debugs:
            await catch_up(namespace)
        decision = debug(pod) if debugs else decide(pod, namespace)
        outcome = {"Injected": "injected", "Refused": "refused"}.get(type(decision).__name__, "left-alone")
        count(outcome)
        log.info("pod %s", outcome, extra={"namespace": namespace, "pod": _name(pod), "uid": uid})
        return web.json_response(answer(uid, decision))

    async def part(_: web.Request, response: web.StreamResponse) -> None:
        # The API server keeps connections. One that ends under its next question fails the creation of a pod.
        if is_leaving():
            response.headers["Connection"] = "close"
            response.force_close()

    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.on_response_prepare.append(part)
    app.router.add_post(PATH, inject)
    return app


def read_review(body: bytes) -> Review:
    """Raises BadReview."""
    try:
        review = json.loads(body)
    except ValueError as error:
        raise BadReview("the body is not JSON") from error
    request = review.get("request") if isinstance(review, dict) else None
    if not isinstance(request, dict) or review.get("apiVersion") != "admission.k8s.io/v1":
        raise BadReview("the body is not an AdmissionReview of admission.k8s.io/v1 with a request")
    uid, pod, namespace = request.get("uid"), request.get("object"), request.get("namespace")
    if not isinstance(uid, str) or not uid:
        raise BadReview("request.uid is missing")
    if not isinstance(pod, dict) or pod.get("kind") != "Pod" or not isinstance(pod.get("spec"), dict):
        raise BadReview("request.object is not a Pod")
    if not isinstance(namespace, str) or not namespace:
        raise BadReview("request.namespace is missing")
    return Review(uid, pod, namespace, str(request.get("subResource") or ""))


def answer(uid: str, decision: Decision) -> Json:
    """The AdmissionReview that answers `uid`."""
    response: Json = {"uid": uid, "allowed": not isinstance(decision, Refused)}
    if isinstance(decision, Refused):
        response["status"] = {"code": 403, "reason": "Forbidden", "message": f"Spendmesh: {decision.reason}"}
    elif isinstance(decision, Injected):
        if decision.patch:
            response["patchType"] = "JSONPatch"
            response["patch"] = base64.b64encode(json.dumps(list(decision.patch)).encode()).decode()
        if decision.warnings:
            said = (f"Spendmesh: {warning}"[:WARNING_CHARACTERS_MAX] for warning in decision.warnings)
            response["warnings"] = list(said)[:WARNINGS_MAX]
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _name(pod: Json) -> str:
    metadata = pod.get("metadata") or {}
    return str(metadata.get("name") or metadata.get("generateName") or "")
