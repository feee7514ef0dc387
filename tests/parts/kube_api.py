"""A very small client of the Kubernetes API for tests: one JSON request at a time, errors as they came."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class ApiRefused(RuntimeError):
    """The API server answered with an error; `status` is the HTTP code, `body` what it said (a `Status` object, as a
    rule)."""

    def __init__(self, method: str, path: str, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(f"{method} {path}: {status} {body.get('message', body)}")
        self.status = status
        self.body = body


class KubeApi:
    """Requests to one API server as one user. Ignores proxies; a new connection each time, so it may be shared by
    threads."""

    def __init__(
        self, url: str, authority: Path, certificate: Path | None = None, key: Path | None = None, token: str = ""
    ) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._address = (parts.hostname, parts.port)
        self._context = ssl.create_default_context(cafile=str(authority))
        if certificate is not None:
            self._context.load_cert_chain(certificate, key)
        self._token = token

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
        timeout_seconds: float = 30,
    ) -> tuple[int, dict[str, Any]]:
        """HTTP status and decoded body (text that is no JSON comes as `{"message": text}`). Raises OSError if it
        cannot connect."""
        connection = http.client.HTTPSConnection(*self._address, timeout=timeout_seconds, context=self._context)
        try:
            headers = {"Accept": "application/json", "Content-Type": content_type}
            if self._token:
                headers["Authorization"] = f"Bearer {self._token}"
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        finally:
            connection.close()
        try:
            decoded = json.loads(text)
        except ValueError:
            decoded = None
        return response.status, decoded if isinstance(decoded, dict) else {"message": text}

    def call(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """The body of a successful answer. Raises ApiRefused for any other."""
        status, answer = self.request(method, path, body, content_type)
        if status >= 300:
            raise ApiRefused(method, path, status, answer)
        return answer

    def ready(self) -> bool:
        """Whether the API server answers `/readyz` with ok, its roles and system objects included."""
        try:
            return self.request("GET", "/readyz", timeout_seconds=30)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def token(
        self,
        namespace: str,
        service_account: str,
        audience: str = "",
        *,
        pod: tuple[str, str] | None = None,
        expiration_seconds: int = 3600,
    ) -> str:
        """A ServiceAccount token by TokenRequest, as the kubelet gets it. `audience`: the server's own if empty.
        `pod`: name and uid of an existing pod the token is bound to (it must run under this ServiceAccount). The
        server allows no less than 600 s."""
        spec: dict[str, object] = {"expirationSeconds": expiration_seconds, "audiences": [audience] if audience else []}
        if pod is not None:
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": pod[0], "uid": pod[1]}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        answer = self.call(
            "POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        )
        token: str = answer["status"]["token"]
        return token
