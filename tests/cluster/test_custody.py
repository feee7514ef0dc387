"""Whoever holds the application's container holds no provider key, while the sidecar beside it uses one."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster_mesh import CANARY, SYSTEM, App, Mesh

pytestmark = pytest.mark.cluster

HEX = CANARY.encode().hex()


@pytest.fixture(scope="module", params=["restricted", "root"])
def searched(support: Mesh, request: pytest.FixtureRequest) -> Iterator[App]:
    """An application as a restricted user, and one that is root in its container."""
    if request.param == "restricted":
        yield support.apps("team-a", "app=support")[0]
        return
    support.namespace("plain", restricted=False)
    support.policies("plain")

    def as_root(pod: dict[str, Any]) -> None:
        pod["spec"]["securityContext"] = {}
        pod["spec"]["containers"][0]["securityContext"] = {"runAsUser": 0}

    yield support.start_app("plain", "root", change=as_root)


def test_no_key_can_be_found_from_the_application(searched: App, mesh: Mesh) -> None:
    """Environment, every file, and everything /proc shows, the sidecar's volumes included; yet its calls are paid."""
    assert searched.ask("Who pays? [[out=5]]", max_tokens=16)["status"] == 200
    assert mesh.invoice(searched.namespace), "the sidecar's key paid for the call"
    said = json.loads(searched.execute("python", "search.py", HEX))
    assert said["found"] == []
    assert said["read"] > 1000
    assert not [mount for mount in said["mounts"] if "spendmesh" in mount]


def test_the_search_would_find_one(searched: App) -> None:
    """Planted in a file and in the environment of another process, it is found in both."""
    plant = (
        f"printf {CANARY}planted > /tmp/planted; PLANTED={CANARY}planted sleep 60 >&- 2>&- & "
        f"python search.py {HEX}; rm /tmp/planted; kill $!"
    )
    found = json.loads(searched.execute("sh", "-c", plant))["found"]
    assert "/tmp/planted" in found
    assert [place for place in found if place.endswith("/environ")]


def test_its_service_account_cannot_read_the_secret(searched: App) -> None:
    """The application's own token gives it nothing: the API server answers 403."""
    script = (
        "import ssl, urllib.request as r, urllib.error as e\n"
        "at = '/var/run/secrets/kubernetes.io/serviceaccount/'\n"
        "url = 'https://kubernetes.default.svc/api/v1/namespaces/' + open(at + 'namespace').read()\n"
        "url += '/secrets/model-keys'\n"
        "ask = r.Request(url, headers={'Authorization': 'Bearer ' + open(at + 'token').read()})\n"
        "try: print(r.urlopen(ask, context=ssl.create_default_context(cafile=at + 'ca.crt')).status)\n"
        "except e.HTTPError as error: print(error.code)"
    )
    assert searched.execute("python", "-c", script).strip() == "403"


def test_no_key_is_in_what_people_and_programs_read(support: Mesh) -> None:
    """Pods with their bootstrap copy, logs, metrics, status, books, Events, policies: no key and no prompt."""
    app = support.apps("team-a", "app=support")[0]
    prompt = "canary-prompt-7f3a"
    assert app.ask(f"{prompt} [[out=5]]", max_tokens=16)["status"] == 200
    pod = app.pod()
    bootstrap = gzip.decompress(base64.b64decode(pod["metadata"]["annotations"]["spendmesh.io/bootstrap"])).decode()
    texts = {
        "the pod": json.dumps(pod),
        "its bootstrap copy": bootstrap,
        "the sidecar's metrics": app.sidecar("/metrics"),
        "the sidecar's status": app.sidecar("/status"),
        "the sidecar's log": support.cluster.kubectl("-n", "team-a", "logs", app.name, "-c", "spendmesh-sidecar"),
        "policies": support.cluster.kubectl("get", "mbud,rpol,rbud,mprov", "-A", "-o", "yaml"),
        "the books": support.cluster.kubectl("get", "budgetledgers", "-n", SYSTEM, "-o", "yaml"),
        "Events": support.cluster.kubectl("get", "events", "-A", "-o", "yaml"),
        "spans": repr(support.spans("team-a")),
    }
    for pod_name in support.operator_pods():
        texts[f"the log of {pod_name}"] = support.cluster.kubectl("-n", SYSTEM, "logs", pod_name)
        texts[f"the metrics of {pod_name}"] = support.cluster.ask("GET", f"pods/{SYSTEM}/{pod_name}:8080", "/metrics")
    assert '"provider"' in bootstrap or "openai" in bootstrap
    for place, text in texts.items():
        assert CANARY not in text, f"a key is in {place}"
        assert prompt not in text, f"a prompt is in {place}"
