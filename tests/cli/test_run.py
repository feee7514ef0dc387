"""`spendmesh run` as a process that is killed: its state folder has the books and the calls in flight."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from part_process import free_port
from sidecar_beside import chat, eventually, openai_client
from sidecar_manifests import NAMESPACE, budget, provider, routing, secret
from spendmesh_standin import DEFAULT_KEYS, StandIn

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


class Run:
    """One `spendmesh run` on a folder of manifests."""

    def __init__(self, folder: Path, standin: StandIn) -> None:
        self.folder = folder
        self.data, self.admin = free_port(), free_port()
        objects = [
            {"kind": "Namespace", "metadata": {"name": NAMESPACE}},
            secret(openai=DEFAULT_KEYS[0].secret),
            provider("openai", standin.openai_url),
            routing("openai"),
            budget("0.50"),
        ]
        (folder / "manifests").mkdir()
        (folder / "manifests" / "all.yaml").write_text("\n---\n".join(map(json.dumps, objects)))

    async def start(self, durability: str = "Process") -> asyncio.subprocess.Process:
        words = ["run", "-f", str(self.folder / "manifests"), "--state", str(self.folder / "state")]
        words += [
            "--listen",
            f"127.0.0.1:{self.data}",
            "--admin",
            f"127.0.0.1:{self.admin}",
            "--durability",
            durability,
        ]
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "spendmesh_cli", *words, stderr=asyncio.subprocess.PIPE
        )

    async def status(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.get(f"http://127.0.0.1:{self.admin}/readyz") as ready:
                    if ready.status != 200:
                        return {}
                async with session.get(f"http://127.0.0.1:{self.admin}/status") as response:
                    found: dict[str, Any] = await response.json()
            except aiohttp.ClientError:
                return {}
        return found if found["rights"] else {}


async def test_a_killed_run_continues_with_what_it_held_and_a_second_one_is_refused(tmp_path: Path) -> None:
    async with StandIn() as standin:
        run = Run(tmp_path, standin)
        process = await run.start()
        holder = (await eventually(run.status))["control"]["nonce"]
        async with openai_client(f"http://127.0.0.1:{run.data}/openai/v1") as client:
            await client.chat.completions.create(**chat("[[out=100]]"))

            async def settled() -> bool:
                return (await run.status())["rights"][0]["settled"] == standin.invoice().cost_nanos

            await eventually(settled)
            second = await run.start()
            _, said = await second.communicate()
            assert second.returncode == 2
            assert b"is in use by another process" in said
            os.kill(process.pid, signal.SIGKILL)
            await process.communicate()
            process = await run.start("Node")
            assert (await eventually(run.status))["control"]["nonce"] == holder
            await client.chat.completions.create(**chat("[[out=100]]"))
            await eventually(settled)
        process.terminate()
        await process.communicate()
        assert process.returncode == 0
    assert not (tmp_path / "state" / "sidecar" / "policy").exists()
