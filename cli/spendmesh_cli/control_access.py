"""Where the control server is and what to show it: options of the commands that ask it something, and the question."""

from __future__ import annotations

import argparse
import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec

from spendmesh_operator.local import ACCESS_FILE

DEFAULT_STATE = "~/.local/state/spendmesh"
"""Where `spendmesh run` keeps its books, and says how to reach it."""
TIMEOUT_SECONDS = 10.0

T = TypeVar("T")


class ControlError(Exception):
    """The control server said no, or nothing; the message is for people."""


@dataclass(frozen=True)
class Access:
    """How to reach a control server as a person."""

    url: str
    token: str = field(repr=False)
    tls: ssl.SSLContext | None = None
    server_name: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which control server, and as whom."""
    group = parser.add_argument_group(
        "control server", "of `spendmesh run` on this machine, or of a cluster with --url"
    )
    add = group.add_argument
    add("--state", type=Path, default=Path(DEFAULT_STATE), help="state folder of `spendmesh run` (%(default)s)")
    add("--url", help="control server of a cluster, such as https://127.0.0.1:8443 after kubectl port-forward")
    add("--token-file", type=Path, help="file with a token: kubectl create token NAME --audience spendmesh.io")
    add("--ca-file", type=Path, help="the operator's authority, PEM: ca.crt of its TLS Secret")
    add("--server-name", help="name in the server's certificate, where --url has another: NAME-control.NAMESPACE.svc")


def access_of(options: argparse.Namespace) -> Access:
    """Read the options. Raises ControlError naming the option and what to do."""
    if options.url is None:
        return _local(options.state.expanduser())
    if options.token_file is None:
        raise ControlError("--url needs --token-file: kubectl create token NAME --audience spendmesh.io > FILE")
    try:
        token = options.token_file.read_text("ascii").strip()
        tls = ssl.create_default_context(cafile=options.ca_file) if options.url.startswith("https:") else None
    except (OSError, ValueError) as error:
        raise ControlError(f"--token-file or --ca-file cannot be read: {error}") from error
    return Access(options.url.rstrip("/"), token, tls, options.server_name)


def _local(state: Path) -> Access:
    path = state / ACCESS_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Access(found["url"], found["token"])
    except FileNotFoundError:
        raise ControlError(
            f"{path} is not there: start `spendmesh run` with --state {state}, or say --url and --token-file"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise ControlError(f"{path} cannot be read: {error}") from error


async def ask(access: Access, path: str, question: msgspec.Struct, answer: type[T]) -> T:
    """One question. Raises ControlError with the server's own sentence."""
    headers = {"authorization": f"Bearer {access.token}", "content-type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    connector = aiohttp.TCPConnector(ssl=access.tls if access.tls is not None else True)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session,
            session.post(
                access.url + path,
                data=msgspec.json.encode(question),
                headers=headers,
                allow_redirects=False,
                server_hostname=access.server_name,
            ) as response,
        ):
            body = await response.read()
            if response.status != 200:
                raise ControlError(_sentence(body) or f"the control server answered {response.status}")
            return msgspec.json.decode(body, type=answer)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ControlError(f"{access.url} does not answer ({type(error).__name__}): is it running?") from error
    except msgspec.DecodeError as error:
        raise ControlError(
            f"the answer is not readable: do the versions of command and server differ? {error}"
        ) from error


def _sentence(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
