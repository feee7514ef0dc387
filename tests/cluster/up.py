"""`make cluster`: a real one-node Kubernetes with Spendmesh on it, left running; `--down` takes it away.

On it are also a stand-in provider (no key, no cost), a real OpenTelemetry Collector, `examples/support` in namespace
team-a, and two pods of an application with the official SDKs. Prints KUBECONFIG and what to try. Needs root on Debian.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "parts")]

import node as nodes
from cluster_access import Cluster
from cluster_mesh import APP_IMAGE, SYSTEM, Mesh, examples_for_standin, render
from go_toolchain import PartsUnavailable
from part_process import PartFailed

NEXT = """
Spendmesh runs in namespace {system}; team-a has policy, a budget and two pods of an application with its sidecars.

  export KUBECONFIG={kubeconfig}
  kubectl -n team-a get mbud,rpol,rbud,mprov
  kubectl -n team-a describe mbud team
  kubectl -n team-a exec deploy/support -c app -- python once.py          # one call of the official SDK
  kubectl -n team-a exec deploy/support -c app -- python ask.py --task extract --plan enterprise 'Where is my order?'
  kubectl explain modelbudget.spec.limits
  kubectl -n team-a edit rpol support                                     # in force within a second, no restart
  kubectl -n {system} logs deploy/spendmesh
  make cluster-down                                                       # takes all of it away
"""


def up(name: str) -> str:
    """Brings everything up, or up to date, and returns what to tell the person. Raises PartsUnavailable, PartFailed."""
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"cluster: {time.monotonic() - started:4.0f} s  {what}", file=sys.stderr, flush=True)

    say("the node starts (the first time its programs are built: some minutes)")
    node = nodes.Node.up(name)
    with Cluster.of_node(node) as cluster:
        mesh = Mesh(cluster, ["team-a"])
        say("images are built (cached while nothing changes) and loaded")
        mesh.prepare()
        say("helm install, two replicas")
        mesh.install("upgrade", "--install", "--set-string", f"operator.podAnnotations.started=at-{int(time.time())}")
        mesh.wait_surroundings()
        say("team-a: policy and application")
        mesh.namespace("team-a")
        cluster.apply(examples_for_standin())
        cluster.apply(render("support.yaml", image=APP_IMAGE))
        cluster.kubectl("-n", "team-a", "rollout", "restart", "deployment/support")
        cluster.kubectl("-n", "team-a", "rollout", "status", "deployment/support", "--timeout=120s")
        for what in ("rpol/support", "mbud/team"):
            cluster.wait("condition=Programmed=True", "-n", "team-a", what)
        say("ready")
    told = NEXT.format(kubeconfig=node.kubeconfig, system=SYSTEM)
    if shutil.which("kubectl") is None:
        told = told.replace("\n  export", f"\n  export PATH={cluster.kubectl_program.parent}:$PATH\n  export", 1)
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Exit status 1 with the reason if it cannot be done here."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--down", action="store_true", help="remove the node and everything on it")
    parser.add_argument("--name", default=nodes.DEFAULT_NAME, help="to have more than one (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        if options.down:
            nodes.down(options.name)
        else:
            print(up(options.name))
    except (PartsUnavailable, PartFailed, ValueError, AssertionError) as failed:
        print(f"cluster: {failed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
