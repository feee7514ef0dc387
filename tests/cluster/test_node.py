"""The node of the cluster tests is a real one: sidecars start in order, Services and names work, `exec` answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import node_images
from node import Node
from otel_collector import Collector

pytestmark = pytest.mark.cluster

PODS = """
apiVersion: v1
kind: Namespace
metadata: {name: node-smoke}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: server, namespace: node-smoke}
data:
  server.py: |
    import http.server, os, socketserver, sys
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = f"{os.environ['WHO']} {self.client_address[0]}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
    http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: node-smoke, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: server, configMap: {name: server}}]
  initContainers:
    - name: sidecar
      image: IMAGE
      imagePullPolicy: Never
      restartPolicy: Always
      command: [python, /server/server.py, "9000"]
      env: [{name: WHO, value: sidecar}]
      startupProbe: {tcpSocket: {port: 9000}, periodSeconds: 1, failureThreshold: 30}
      volumeMounts: [{name: server, mountPath: /server}]
      resources: {limits: {memory: 64Mi}}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        readOnlyRootFilesystem: true
        allowPrivilegeEscalation: false
        capabilities: {drop: [ALL]}
        seccompProfile: {type: RuntimeDefault}
  containers:
    - name: main
      image: IMAGE
      imagePullPolicy: Never
      # Ends at once unless the sidecar answers already.
      command:
        - sh
        - -c
        - >-
          python -c 'import socket; socket.create_connection(("127.0.0.1", 9000), 1)'
          && exec python /server/server.py 8000
      env: [{name: WHO, value: main}]
      readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}
      volumeMounts: [{name: server, mountPath: /server}]
---
apiVersion: v1
kind: Service
metadata: {name: web-service, namespace: node-smoke}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: node-smoke}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: IMAGE, imagePullPolicy: Never, command: [sleep, "3600"]}]
""".replace("IMAGE", node_images.PYTHON_BASE)

FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


@pytest.fixture(scope="module")
def pods(node: Node) -> Node:
    """The node with a pod that has a native sidecar, a Service before it, and a client pod, all ready."""
    node.import_image(node_images.python_base_image())
    node.kubectl("apply", "-f", "-", stdin=PODS)
    node.kubectl("-n", "node-smoke", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s")
    serving = "jsonpath={.endpoints[0].conditions.ready}=true"
    slices = ("endpointslices", "-l", "kubernetes.io/service-name=web-service")
    node.kubectl("-n", "node-smoke", "wait", f"--for={serving}", *slices, "--timeout=30s")
    return node


def test_a_native_sidecar_is_ready_before_the_containers_start(pods: Node) -> None:
    """The main container ends unless its sidecar answers, so no restart means that the order held."""
    pod = json.loads(pods.kubectl("-n", "node-smoke", "get", "pod", "web", "-o", "json").stdout)
    statuses = [*pod["status"]["initContainerStatuses"], *pod["status"]["containerStatuses"]]
    assert [(status["ready"], status["restartCount"]) for status in statuses] == [(True, 0), (True, 0)]


@pytest.mark.parametrize("domain", ["", ".node-smoke.svc", ".node-smoke.svc.cluster.local"])
def test_a_pod_reaches_another_by_its_services_name(pods: Node, domain: str) -> None:
    """CoreDNS knows the name in each of its forms, and kube-proxy sends the call on."""
    url = f"http://web-service{domain}/"
    answer = pods.kubectl("-n", "node-smoke", "exec", "client", "--", "python", "-c", FETCH, url)
    assert answer.stdout.split()[0] == "main"


def test_a_pod_reaches_itself_through_its_service(pods: Node) -> None:
    """The operator's own webhook Service is called like this."""
    url = "http://web-service.node-smoke.svc/"
    answer = pods.kubectl("-n", "node-smoke", "exec", "web", "-c", "main", "--", "python", "-c", FETCH, url)
    assert answer.stdout.split()[0] == "main"


def test_the_api_server_reaches_a_pod(pods: Node) -> None:
    """What a webhook needs: the API server dials a Service's pods."""
    answer = pods.kubectl("get", "--raw", "/api/v1/namespaces/node-smoke/services/web-service:80/proxy/")
    assert answer.stdout.split()[0] == "main"


def test_a_command_runs_in_the_nodes_network(pods: Node) -> None:
    """A test on the machine reaches a ClusterIP by entering the network namespace."""
    address = pods.kubectl(
        "-n", "node-smoke", "get", "service", "web-service", "-o", "jsonpath={.spec.clusterIP}"
    ).stdout
    assert pods.run("python3", "-c", FETCH, f"http://{address}/").stdout.split()[0] == "main"


def test_a_name_outside_the_cluster_does_not_resolve(pods: Node) -> None:
    """No test can call a real provider by accident."""
    look_up = "import socket; socket.getaddrinfo('api.example.com', 443)"
    answer = pods.kubectl("-n", "node-smoke", "exec", "client", "--", "python", "-c", look_up, check=False)
    assert answer.returncode != 0
    assert "Name or service not known" in answer.stderr


def test_a_pod_sends_spans_to_a_collector_on_the_machine(pods: Node, node_collector: Collector) -> None:
    """What a test starts on the node's outer address, pods reach."""
    span = {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "from a pod"}
    export = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    send = (
        "import sys, urllib.request as r; "
        "r.urlopen(r.Request(sys.argv[1], sys.argv[2].encode(), {'Content-Type': 'application/json'}), timeout=10)"
    )
    url = f"{node_collector.endpoint}/v1/traces"
    pods.kubectl("-n", "node-smoke", "exec", "client", "--", "python", "-c", send, url, json.dumps(export))
    assert [span.name for span in node_collector.wait_for_spans(1)] == ["from a pod"]


def test_an_image_is_built_once_for_what_goes_into_it(tmp_path: Path, node: Node) -> None:
    """The same files give the same archive; a changed file gives another. The image holds what the Dockerfile says."""
    dockerfile = 'ARG BASE\nFROM ${BASE}\nCOPY words /words\nUSER 65532\nENTRYPOINT ["cat", "/words/said"]\n'
    (tmp_path / "words").mkdir()

    def build(said: str) -> Path:
        (tmp_path / "words" / "said").write_text(said)
        return node_images.build_image(dockerfile, "spendmesh.test/words:1", context=tmp_path, include=["words"])

    first = build("one")
    assert build("two") != first
    assert build("one") == first
    node.import_image(first)
    flags = ("--image=spendmesh.test/words:1", "--image-pull-policy=Never", "--restart=Never")
    node.kubectl("run", "words", *flags)
    node.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/words", "--timeout=60s")
    assert node.kubectl("logs", "words").stdout == "one"


def test_logs_of_a_container_are_readable(pods: Node) -> None:
    """The API server may ask the kubelet."""
    answer = pods.kubectl("-n", "node-smoke", "logs", "web", "-c", "sidecar")
    assert answer.returncode == 0
