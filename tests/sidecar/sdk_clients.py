"""The clients that users have, each with its own two retries on: one call each, and what the app is told of it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import anthropic
import openai

import litellm_library
from sidecar_beside import chat, message
from sidecar_world import World

HERE = Path(__file__).parent
RETRIES = 2
Ask = Callable[[World, str], Awaitable[str]]
"""Makes one call with this text; answers class and status of the error that the app sees."""


async def openai_async(world: World, text: str) -> str:
    client = await world.client(f"{world.url}/openai/v1", max_retries=RETRIES)
    return await _told(client.chat.completions.create(**chat(text)))


async def openai_sync(world: World, text: str) -> str:
    def ask() -> None:
        with openai.OpenAI(base_url=f"{world.url}/openai/v1", api_key="injected", max_retries=RETRIES) as client:
            client.chat.completions.create(**chat(text))

    return await _told(asyncio.to_thread(ask))


async def anthropic_async(world: World, text: str) -> str:
    return await _told(world.anthropic.with_options(max_retries=RETRIES).messages.create(**message(text)))


async def anthropic_sync(world: World, text: str) -> str:
    def ask() -> None:
        url = f"{world.url}/anthropic"
        with anthropic.Anthropic(base_url=url, api_key="injected", max_retries=RETRIES) as client:
            client.messages.create(**message(text))

    return await _told(asyncio.to_thread(ask))


async def _told(call: Awaitable[Any]) -> str:
    try:
        await call
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        return f"{type(error).__name__} {error.status_code}"
    return "an answer"


class LiteLLM:
    """A process with LiteLLM in it."""

    def __init__(self, packages: Path, log: Path) -> None:
        self._packages, self._log = packages, log

    async def __aenter__(self) -> Self:
        command, environment = litellm_library.python(self._packages)
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                str(HERE / "litellm_caller.py"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(self._log.parent), **environment},
            )
        assert await self._line() == "ready"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.kill()
        await self._process.wait()

    def client(self, api: str, how: str, **options: Any) -> Ask:
        """`api`: `openai` or `anthropic`; `how`: `sync` or `async`; options of `litellm.completion`."""
        base = "/openai/v1" if api == "openai" else "/anthropic"

        async def ask(world: World, text: str) -> str:
            arguments = {**chat(text, f"{api}/auto"), "api_base": world.url + base, "api_key": "injected", **options}
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"how": how, "arguments": arguments}).encode() + b"\n")
            told = json.loads(await self._line())
            return f"{told['error']} {told['status']}" if told["error"] else "an answer"

        return ask

    async def _line(self) -> str:
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode().strip()
        assert line, f"LiteLLM's process ended: {self._log.read_text(errors='replace')[-2000:]}"
        return line
