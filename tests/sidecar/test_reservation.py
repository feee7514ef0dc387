"""Limits that hold less than calls may cost, with every part real: what is spent stays within what they say."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import openai
import pytest

from sidecar_beside import chat, eventually
from sidecar_manifests import budget
from sidecar_world import World, exhaust
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio

AMOUNT_NANOS = 20_000_000
"""Ten calls at their worst, of some 2 million each, and a hundred of the cheap ones."""
MOST_NANOS = AMOUNT_NANOS * 120 // 100
EXPECTED = budget("0.02", reservation="Expected", overshootPercent=20)
CHEAP, DEAR = "[[out=50]]", "[[out=990]]"


async def ask(world: World, text: str) -> str:
    """One call that may write a thousand tokens; answers the code of a refusal."""
    try:
        await world.openai.chat.completions.create(**chat(text, max_tokens=1_000))
    except openai.APIConnectionError:
        return "cut"
    except openai.APIStatusError as error:
        return str(error.code)
    return ""


async def teach(world: World) -> None:
    """Make such calls look cheap."""
    for _ in range(25):
        assert await ask(world, CHEAP) == ""


async def test_cheap_calls_go_on_where_their_worst_case_would_no_longer_fit(empty_world: World) -> None:
    """Utilisation, from both sides: a strict limit stops them while a worst case is left."""
    world = await empty_world.start(EXPECTED)
    await teach(world)
    refusal = await exhaust(world, 50, max_tokens=1_000)
    assert refusal.code == "budget_exceeded"
    left = AMOUNT_NANOS - await world.settled()
    assert left < 1_000_000, "half of a worst case"
    assert world.invoice_nanos == await world.close_the_books() <= AMOUNT_NANOS


async def test_calls_that_turn_dear_at_once_stay_within_the_stated_overshoot(empty_world: World) -> None:
    """The client taught fifty tokens, and then takes all it can, with as many calls at once as it likes."""
    world = await empty_world.start(budget("0.02", reservation="Expected", overshootPercent=100))
    await teach(world)
    codes = await asyncio.gather(*(ask(world, DEAR) for _ in range(30)))
    assert {""} < set(codes) <= {"", "budget_in_flight", "budget_exceeded"}
    await world.quiet()
    assert world.rights.overrun > 0, "they cost more than was held, which is a number of its own"
    await world.stop_sidecar()
    account = world.account()
    assert world.invoice_nanos == account.state.settled <= 2 * AMOUNT_NANOS
    assert account.overrun > 0


async def test_a_killed_sidecars_calls_are_charged_at_their_worst_and_stay_within_it(
    empty_world: World, tmp_path: Path
) -> None:
    world = await empty_world.start(EXPECTED, sidecar=False)
    state = {"SPENDMESH_STATE_DIR": str(tmp_path / "state"), "SPENDMESH_POD_NAME": "app-1"}
    child = await world.start_sidecar_process(**state)
    await teach(world)
    world.standin.faults(FaultRule("withhold", stream=True))
    streams = [
        await world.openai.chat.completions.create(**chat(DEAR, max_tokens=1_000), stream=True) for _ in range(3)
    ]
    for stream in streams:
        await anext(aiter(stream))
    os.kill(child.pid, signal.SIGKILL)
    await child.stop()
    await eventually(lambda: not world.standin.in_flight)
    world.standin.faults()
    await world.start_sidecar_process(**state)
    assert AMOUNT_NANOS // 4 < world.invoice_nanos <= world.account().state.settled, "told before it serves"
    while await ask(world, DEAR) == "":
        pass
    await eventually(lambda: not world.standin.in_flight)
    account = world.account()
    assert account.quarantined == 0
    assert world.invoice_nanos <= account.state.charged <= MOST_NANOS
