"""`spendmesh run -f DIR`: one governed endpoint for a laptop, CI or a VM; the same compile step and sidecar code."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import sys
from dataclasses import replace
from pathlib import Path
from random import SystemRandom
from typing import Any

from rich.console import Console

from spendmesh_cli.control_access import DEFAULT_STATE
from spendmesh_cli.load import Files, load, secret_values
from spendmesh_cli.watching import watch
from spendmesh_operator.clock import SystemClock
from spendmesh_operator.index import OPERATOR_NAMESPACE
from spendmesh_operator.ledger.books.accounts import LedgerError
from spendmesh_operator.ledger.stores.base import LedgerStoreError
from spendmesh_operator.local import LocalControl, LocalPod
from spendmesh_sidecar.keys import StaticKeys
from spendmesh_sidecar.process import Sidecar
from spendmesh_sidecar.settings import Address, Settings, SettingsError, from_environ

log = logging.getLogger("spendmesh.run")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("run", help="one governed endpoint, no cluster", description=__doc__)
    add = parser.add_argument
    add("-f", "--filename", type=Path, required=True, action="append", help="folder or file with the kinds and Secrets")
    add("--listen", default="127.0.0.1:15400", help="data listener (%(default)s); not loopback needs a client token")
    add("--admin", default="127.0.0.1:15490", help="admin listener (%(default)s)")
    add(
        "--state",
        type=Path,
        default=Path(DEFAULT_STATE),
        help="folder of the books and of the calls in flight (%(default)s)",
    )
    survives = "what the record of calls in flight survives: a kill, or also the end of the machine (%(default)s)"
    add("--durability", choices=("Process", "Node"), default="Process", help=survives)
    add("--namespace", help="whose policy applies; default: the only namespace of the files")
    add(
        "--operator-namespace", default=OPERATOR_NAMESPACE, metavar="NAME",
        help="whose budgets may reach other namespaces (%(default)s)",
    )  # fmt: skip
    add("--labels", default="", metavar="K=V,…", help="labels that the workload is taken to have")
    parser.set_defaults(run=_command)


def _command(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        return asyncio.run(_run(options, console))
    except (SettingsError, LedgerStoreError, ValueError, OSError) as error:
        console.print(f"spendmesh run: {error}")
        return 2


async def _run(options: argparse.Namespace, console: Console) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    files = _readable(options.filename)
    namespace = options.namespace or _only_namespace(files)
    pod = LocalPod(namespace, "spendmesh-run", secrets.token_urlsafe(24), _labels(options.labels))
    settings = _settings(options, pod)
    control = LocalControl(
        _objects(files),
        [pod],
        options.state.expanduser(),
        SystemClock(),
        SystemRandom(),
        operator_namespace=options.operator_namespace,
    )
    await control.start()
    state = options.state.expanduser() / "sidecar"
    settings = replace(settings, control_url=control.url, state_dir=state, keep_policy=False)
    keys = StaticKeys(_keys(files, pod.namespace))
    sidecar = await Sidecar.start(settings, keys=keys, token=pod.token)
    _greet(console, control, pod, sidecar, settings)

    async def changed() -> None:
        try:
            now = _readable(options.filename)
            found = _keys(now, pod.namespace)
            await control.update(_objects(now))
        except (ValueError, OSError, LedgerError) as error:
            log.error("kept the last manifests: %s", error)
            return
        keys.replace(found)
        _complain(console, control)

    watching = asyncio.create_task(watch(options.filename, changed))
    await stop.wait()
    watching.cancel()
    await sidecar.stop()
    await control.stop()
    return 0


def _readable(paths: list[Path]) -> Files:
    files = load(paths)
    if files.unreadable:
        first = files.unreadable[0]
        raise ValueError(f"{first.place}: {first.message}")
    return files


def _objects(files: Files) -> list[dict[str, Any]]:
    return [dict(loaded.raw) for loaded in files.objects]


def _only_namespace(files: Files) -> str:
    found = {loaded.raw["metadata"]["namespace"] for loaded in files.objects if loaded.raw.get("kind") != "Namespace"}
    if len(found) != 1:
        names = ", ".join(sorted(found)) or "none"
        raise ValueError(f"the files have objects of several namespaces ({names}): say which with --namespace")
    return str(found.pop())


def _labels(text: str) -> dict[str, str]:
    labels = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"--labels has {item!r} without '='; write app=support,tier=web")
        labels[key.strip()] = value.strip()
    return labels


def _keys(files: Files, namespace: str) -> dict[str, str]:
    """Provider name to key, from the Secrets of the files; a provider without one is said by the sidecar."""
    values = secret_values(files.objects)
    keys = {}
    for loaded in files.objects:
        if loaded.raw.get("kind") != "ModelProvider" or loaded.raw["metadata"]["namespace"] != namespace:
            continue
        auth = (loaded.raw.get("spec") or {}).get("auth") or {}
        reference = (auth.get("apiKey") or {}).get("secretKeyRef") or {}
        value = values.get((namespace, str(reference.get("name"))), {}).get(str(reference.get("key")))
        if value:
            keys[str(loaded.raw["metadata"]["name"])] = value.strip()
    return keys


def _settings(options: argparse.Namespace, pod: LocalPod) -> Settings:
    """Listeners from the options, telemetry from the usual OpenTelemetry variables; the control URL comes later."""
    environment = {
        **{name: value for name, value in os.environ.items() if name.startswith("OTEL_")},
        "SPENDMESH_CONTROL_URL": "http://127.0.0.1",
        "SPENDMESH_LISTEN": options.listen,
        "SPENDMESH_ADMIN_LISTEN": options.admin,
        "SPENDMESH_POD_NAMESPACE": pod.namespace,
        "SPENDMESH_POD_NAME": pod.name,
        "SPENDMESH_DURABILITY": options.durability,
    }
    if not Address.parse(options.listen, "--listen").is_loopback:
        environment["SPENDMESH_CLIENT_TOKEN"] = os.environ.get("SPENDMESH_CLIENT_TOKEN", "")
        if not environment["SPENDMESH_CLIENT_TOKEN"]:
            raise SettingsError(
                f"--listen {options.listen} lets other machines spend: set SPENDMESH_CLIENT_TOKEN, which clients then "
                "show as their API key, or listen on 127.0.0.1"
            )
    return from_environ(environment)


def _greet(console: Console, control: LocalControl, pod: LocalPod, sidecar: Sidecar, settings: Settings) -> None:
    _complain(console, control)
    key = "the client token" if settings.client_token else "anything"
    console.print(
        f"Serving namespace {pod.namespace} on {sidecar.address}; status on http://{sidecar.admin_address}/status\n\n"
        f"  export OPENAI_BASE_URL=http://{sidecar.address}/openai/v1 OPENAI_API_KEY={key!r}\n"
        f"  export ANTHROPIC_BASE_URL=http://{sidecar.address}/anthropic ANTHROPIC_API_KEY={key!r}\n"
    )


def _complain(console: Console, control: LocalControl) -> None:
    """Say what is wrong with the manifests: the operator's verdicts, as in a condition."""
    for key, verdict in sorted(control.compiled.verdicts.items()):
        for finding in verdict.conditions:
            if finding.status == "False":
                console.print(
                    f"{key.kind} {key.namespace}/{key.name}: {finding.type}=False/{finding.reason}: {finding.message}"
                )
