"""
The Kubernetes API as a few calls on raw dicts: the only module that imports the client library.

`kubernetes.aio` brings login, TLS and the connection pool. Its models are not used: decoding typed objects costs
three times as much and refuses fields that it does not know. Who may call what is the chart's RBAC.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

from spendmesh_operator.kube import paths

Json = dict[str, Any]

REQUEST_TIMEOUT_SECONDS: Final = 15.0
"""A whole request; client-go's leader election gives up after 10 s, a list of 500 objects takes well below one."""
CONNECT_TIMEOUT_SECONDS: Final = 5.0
LIST_CHUNK: Final = 500
"""As client-go's pager and kubectl."""
THROTTLED_ATTEMPTS: Final = 4
THROTTLED_SECONDS_MAX: Final = 10.0
FIELD_MANAGER: Final = "spendmesh-operator"

_APPLY = "application/apply-patch+yaml"
_JSON_PATCH = "application/json-patch+json"


class KubeError(Exception):
    """The API server's answer was no; `reason` is its machine word, the message its sentence."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{reason or status}: {message}")
        self.status = status
        self.reason = reason


class NotFound(KubeError):
    """404: the object, or the whole kind, is not there."""


class Conflict(KubeError):
    """409: somebody else was faster (Conflict), or it exists already (AlreadyExists)."""


class Forbidden(KubeError):
    """401 or 403: the chart's RBAC does not allow this."""


class KubeUnavailable(KubeError):
    """No answer, a 5xx or throttled too long. A write may have happened."""


_BY_STATUS: Final[Mapping[int, type[KubeError]]] = {401: Forbidden, 403: Forbidden, 404: NotFound, 409: Conflict}


@dataclass(frozen=True)
class Login:
    """How to reach the API server: what kopf needs to log in as we do."""

    server: str
    ca_path: str | None
    token: str | None
    certificate_path: str | None
    private_key_path: str | None
    verifies: bool = True


class Kube:
    """One connection pool. Made by `connect`, ended by `close`."""

    def __init__(self, configuration: Any) -> None:
        self._configuration = configuration
        self._api = ApiClient(configuration)

    @classmethod
    async def connect(cls, kubeconfig: str = "") -> Kube:
        """Log in with a kubeconfig file, or (empty) as the pod's service account. Raises KubeUnavailable."""
        # retries=None: what is safe to repeat is decided here, by meaning, not by HTTP method.
        configuration = Configuration(retries=None)
        try:
            if kubeconfig:
                await kube_config.load_kube_config(
                    config_file=kubeconfig, client_configuration=configuration, persist_config=False
                )
            else:
                kube_config.load_incluster_config(client_configuration=configuration)
        except (kube_config.ConfigException, OSError) as error:
            where = kubeconfig or "the pod's service account"
            raise KubeUnavailable(0, "Login", f"cannot log in with {where}: {error}") from error
        return cls(configuration)

    async def close(self) -> None:
        """Close the pool."""
        await self._api.close()

    async def login(self) -> Login:
        """What another client needs to be the same user; a token is read anew each time."""
        configuration = self._configuration
        bearer = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return Login(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            token=bearer.split(" ", 1)[-1] if bearer else None,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            verifies=bool(configuration.verify_ssl),
        )

    async def get(self, path: str) -> Json:
        """Read one object. Raises KubeError."""
        return await self._request("GET", path)

    async def create(self, collection_path: str, body: Json) -> Json:
        """Create; Conflict with reason AlreadyExists if it is there."""
        return await self._request("POST", collection_path, body)

    async def replace(self, path: str, body: Json) -> Json:
        """Write over; Conflict if `metadata.resourceVersion` in the body is no longer the stored one."""
        return await self._request("PUT", path, body)

    async def delete(self, path: str, resource_version: str) -> None:
        """Delete exactly this version; Conflict if it has changed."""
        preconditions = {"preconditions": {"resourceVersion": resource_version}}
        await self._request("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", **preconditions})

    async def apply(self, path: str, body: Json) -> Json:
        """Server-side apply as the owner of all fields in the body (forced)."""
        query = f"?fieldManager={FIELD_MANAGER}&force=true"
        return await self._request("PATCH", path + query, body, _APPLY)

    async def json_patch(self, path: str, operations: list[Json]) -> Json:
        """RFC 6902; a failed `test` operation is 422 Invalid."""
        return await self._request("PATCH", path, operations, _JSON_PATCH)

    async def review_token(self, token: str, audience: str) -> Json:
        """Status of a TokenReview for one audience."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        status: Json = (await self._request("POST", paths.TOKEN_REVIEWS, body)).get("status") or {}
        return status

    async def list(self, path: str, label_selector: str = "") -> tuple[list[Json], int]:
        """All objects of a collection and the version of the list. Items carry kind and apiVersion."""
        items: list[Json] = []
        version = 0
        async for page in self._pages(path, label_selector):
            kind = str(page.get("kind", "")).removesuffix("List")
            about = {"apiVersion": page.get("apiVersion"), "kind": kind}
            items.extend({**about, **one} for one in page.get("items") or [])
            version = int((page.get("metadata") or {}).get("resourceVersion") or 0)
        return items, version

    async def _pages(self, path: str, label_selector: str) -> AsyncIterator[Json]:
        token = ""
        while True:
            query = {"limit": str(LIST_CHUNK), "labelSelector": label_selector, "continue": token}
            chosen = {name: value for name, value in query.items() if value}
            page = await self._request("GET", f"{path}?{urlencode(chosen)}")
            yield page
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    async def _request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> Json:
        for attempt in range(1, THROTTLED_ATTEMPTS + 1):
            status, headers, text = await self._exchange(method, path, body, content_type)
            # A throttled request was not carried out, so any method may be repeated.
            if status == 429 and attempt < THROTTLED_ATTEMPTS:
                await asyncio.sleep(_retry_after_seconds(headers))
                continue
            if status < 300:
                parsed: Json = json.loads(text)
                return parsed
            break
        reason, message = _explanation(text)
        raise _error(status, reason, f"{method} {path.partition('?')[0]}: {message}")

    async def _exchange(
        self, method: str, path: str, body: object, content_type: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"Content-Type": content_type, "Accept": "application/json", "User-Agent": FIELD_MANAGER}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS)
        try:
            response = await self._api.rest_client.request(
                method, self._configuration.host + path, headers=headers, body=body, _request_timeout=timeout
            )
            text: bytes = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            what = f"{method} {path.partition('?')[0]}: {type(error).__name__} {error}".strip()
            raise KubeUnavailable(0, "NoAnswer", what) from error
        return response.status, response.headers, text


def _retry_after_seconds(headers: Mapping[str, str]) -> float:
    given = headers.get("Retry-After", "1")
    return min(float(given) if given.isdigit() else 1.0, THROTTLED_SECONDS_MAX)


def _explanation(text: bytes) -> tuple[str, str]:
    try:
        status = json.loads(text)
    except ValueError:
        return "", text[:200].decode("utf-8", "replace")
    if not isinstance(status, dict):
        return "", ""
    return str(status.get("reason") or ""), str(status.get("message") or "")[:500]


def _error(status: int, reason: str, message: str) -> KubeError:
    if status >= 500 or status == 429:
        return KubeUnavailable(status, reason, message)
    return _BY_STATUS.get(status, KubeError)(status, reason, message)
