"""`python -m spendmesh_standin`: a stand-in in a process of its own; prints its address as a JSON line when ready."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

from spendmesh_standin.faults import FaultPlan
from spendmesh_standin.server import StandIn
from spendmesh_standin.settings import DEFAULT_KEYS, Key, Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Exit status 2 for arguments that cannot be used."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        settings = _settings(options)
        plan_data = _read_plan(options.faults)
        FaultPlan.parse(plan_data, now=0.0)
        tls = _tls(options)
        standin = StandIn(settings, host=options.host, port=options.port, invoice_file=options.invoice, tls=tls)
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))
    try:
        asyncio.run(_serve(standin, plan_data, port_only=options.print_port))
    except OSError as error:
        print(f"spendmesh_standin: cannot listen on {options.host}:{options.port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="spendmesh_standin", description="A stand-in for paid model providers.")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=int, default=0, help="port to listen on; 0 takes a free one (%(default)s)")
    add("--key", action="append", metavar="DIALECT[:ACCOUNT]=KEY", help="a key to accept: openai=, anthropic=, any=")
    add("--provider", action="append", metavar="NAME=PREFIX", help="a logical provider under a path prefix: backup=/b")
    add("--invoice", type=Path, metavar="FILE", help="append every invoice line to this file, and continue it")
    add("--faults", type=Path, metavar="FILE", help="begin with this fault plan (JSON, or YAML by its ending)")
    add("--ttft", type=float, default=0.0, metavar="SECONDS", help="time to first token (%(default)s)")
    add("--tokens-per-second", type=float, default=0.0, help="speed of generation; 0 is at once (%(default)s)")
    add("--output-tokens", type=int, default=16, help="tokens of a reply that names no number (%(default)s)")
    add("--chunk-tokens", type=int, default=1, help="tokens in one chunk of a stream (%(default)s)")
    add("--disconnect-billing", default="full", choices=("none", "input", "streamed", "full"))
    add("--record-bodies", action="store_true", help="keep request bodies for GET /_standin/requests")
    add("--print-port", action="store_true", help="print the bare port when ready, not a JSON line")
    add("--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate chain (PEM)")
    add("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    providers = {"default": ""}
    for item in options.provider or ():
        name, separator, prefix = item.partition("=")
        if not name or not separator:
            raise ValueError(f"provider: {item!r} must be NAME=PREFIX, as backup=/backup")
        providers[name] = prefix
    return Settings(
        keys=tuple(Key.parse(item) for item in options.key) if options.key else DEFAULT_KEYS,
        providers=providers,
        default_output_tokens=options.output_tokens,
        chunk_tokens=options.chunk_tokens,
        ttft_seconds=options.ttft,
        tokens_per_second=options.tokens_per_second,
        disconnect_billing=options.disconnect_billing,
        record_bodies=options.record_bodies,
    )


def _read_plan(path: Path | None) -> object:
    if path is None:
        return []
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".yaml", ".yml"):
        import yaml  # only here, so that a JSON plan needs nothing but aiohttp

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{path.name}: {error}") from error
    return json.loads(text)


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.tls_cert, options.tls_key)
    return context


async def _serve(standin: StandIn, plan_data: object, *, port_only: bool) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await standin.start()
    standin.set_plan(FaultPlan.parse(plan_data, now=loop.time()))
    ready = {"url": standin.url, "openai_base_url": standin.openai_url, "anthropic_base_url": standin.url}
    print(standin.port if port_only else json.dumps({**ready, "port": standin.port}), flush=True)
    try:
        await ended.wait()
    finally:
        await standin.stop()


if __name__ == "__main__":
    sys.exit(main())
