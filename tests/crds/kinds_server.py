"""A real API server that has our kinds, as tests use it: create, replace and apply, strictly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from control_plane import ControlPlane
from spendmesh_operator.manifests import API_VERSION, KINDS


@dataclass(frozen=True)
class KindsServer:
    """A real API server that has our kinds; everything happens in one namespace."""

    plane: ControlPlane
    namespace: str

    def path(self, document: Mapping[str, Any], *, named: bool = False) -> str:
        """Where objects of the document's kind are; with `named`, where the document itself is."""
        kind = KINDS[document["kind"]]
        path = f"/apis/{API_VERSION}/namespaces/{self.namespace}/{kind.CRD.plural}"
        return f"{path}/{document['metadata']['name']}" if named else path

    def create(self, document: Mapping[str, Any], *, dry_run: bool = False) -> tuple[int, dict[str, Any]]:
        """What the server answers to a strict create of the document."""
        query = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        return self.plane.api.request("POST", self.path(document) + query, as_kubectl_sends(document))

    def replace(self, document: Mapping[str, Any], version: str) -> tuple[int, dict[str, Any]]:
        """What the server answers to a strict replace of the object at that resourceVersion."""
        body = {**document, "metadata": {**document["metadata"], "resourceVersion": version}}
        path = self.path(document, named=True) + "?fieldValidation=Strict"
        return self.plane.api.request("PUT", path, as_kubectl_sends(body))

    def apply(self, document: Mapping[str, Any], manager: str, *, status: bool = False) -> tuple[int, dict[str, Any]]:
        """What the server answers to a server-side apply by that manager."""
        path = self.path(document, named=True) + ("/status" if status else "")
        query = f"?fieldManager={manager}&fieldValidation=Strict&force=true"
        return self.plane.api.request("PATCH", path + query, document, "application/apply-patch+yaml")


def as_kubectl_sends(value: Any) -> Any:
    """kubectl writes the number 2.00 of a YAML file as the JSON number 2; Python would write 2.0."""
    if isinstance(value, Mapping):
        return {key: as_kubectl_sends(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_kubectl_sends(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
