"""Limits that hold less than calls may cost, with every part real: what is spent stays within what they say."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import anthropic
import openai
import pytest

from sidecar_beside import chat, eventually
from sidecar_manifests import budget
from sidecar_world import World, exhaust
from spendmesh_standin import FaultRule, Settings as StandInSettings

pytestmark = pytest.mark.anyio

AMOUNT_NANOS = 20_000_000
"""Ten calls at their worst, of some 2 million each, and sixty of the cheap ones."""
EXPECTED = budget("0.02", reservation="Expected", overshootPercent=20)
CHEAP, DEAR = "[[out=150]]", "[[out=990]]"


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
    refusal = await exhaust(world, 150, max_tokens=1_000)
    assert refusal.code == "budget_exceeded"
    left = AMOUNT_NANOS - await world.settled()
    assert left < 1_000_000, "half of a worst case"
    assert world.invoice_nanos == await world.close_the_books() <= AMOUNT_NANOS


async def test_calls_that_turn_dear_at_once_stay_within_the_stated_overshoot(empty_world: World) -> None:
    """The client taught fifty tokens, and then takes all it can, with as many calls at once as it likes."""
    world = await empty_world.start(budget("0.02", reservation="Expected", overshootPercent=100))
    await teach(world)
    codes = await asyncio.gather(*(ask(world, DEAR) for _ in range(30)))
    assert "" in codes and {code.split("_")[0] for code in codes} == {"", "budget"}
    await world.quiet()
    assert world.rights.overrun > 0, "they cost more than was held, which is a number of its own"
    await world.stop_sidecar()
    account = world.account()
    assert world.invoice_nanos == account.state.settled <= 2 * AMOUNT_NANOS
    assert account.overrun > 0


@pytest.mark.parametrize(("reservation", "tokens"), [("Expected", 1_000), ("Streaming", 3_000)])
async def test_a_killed_sidecars_calls_are_charged_at_their_worst_and_stay_within_it(
    empty_world: World, tmp_path: Path, reservation: str, tokens: int
) -> None:
    """It holds a fraction of what three streams may cost, and is killed in the middle of them."""
    limited = budget("0.02", reservation=reservation, overshootPercent=50)
    world = await empty_world.start(limited, sidecar=False)
    state = {"SPENDMESH_STATE_DIR": str(tmp_path / "state"), "SPENDMESH_POD_NAME": "app-1"}
    child = await world.start_sidecar_process(**state)
    if reservation == "Expected":
        await teach(world)
    world.standin.faults(FaultRule("withhold", stream=True))
    text = f"[[out={tokens - 10}]]"
    for _ in range(3):
        begun = await world.openai.chat.completions.create(**chat(text, max_tokens=tokens), stream=True)
        await anext(aiter(begun))
    os.kill(child.pid, signal.SIGKILL)
    await child.stop()
    await eventually(lambda: not world.standin.in_flight)
    world.standin.faults()
    await world.start_sidecar_process(**state)
    assert 3 * tokens * 1_900 < world.invoice_nanos <= world.account().state.settled, "told before it serves"
    while await ask(world, DEAR) == "":
        pass
    await eventually(lambda: not world.standin.in_flight)
    account = world.account()
    assert account.quarantined == 0
    assert world.invoice_nanos <= account.state.charged <= AMOUNT_NANOS * 150 // 100


# --- streams ----------------------------------------------------------------------------------------------

STREAMING = budget("0.02", reservation="Streaming", overshootPercent=100)
LONG = StandInSettings(chunk_tokens=2)
"""Streams of 7,000 tokens that are longer than what a connection buffers: none is over before it is looked at."""


async def stream(world: World, text: str, maximum: int = 9_000) -> tuple[int, str]:
    """A streamed call: how many chunks came, and the code of what ended it."""
    seen = 0
    try:
        async for _ in await world.openai.chat.completions.create(**chat(text, max_tokens=maximum), stream=True):
            seen += 1
    except openai.APIStatusError as error:
        return seen, str(error.code)
    except openai.APIError as error:
        assert isinstance(error.body, dict)
        return seen, str(error.body["code"])
    return seen, ""


async def test_a_stream_is_served_whose_worst_case_is_larger_than_what_is_left(empty_world: World) -> None:
    """9,000 tokens of 2,000 nano-dollars are nine tenths of the budget: they fit once, and what is left is less."""
    world = await empty_world.start(STREAMING, standin=StandInSettings(chunk_tokens=20))
    for _ in range(5):
        seen, code = await stream(world, "[[out=300]]")
        assert code == "" and seen > 10
    assert await world.settled() == world.invoice_nanos
    assert world.rights.overrun == 0
    assert world.invoice_nanos == await world.close_the_books()


async def test_a_stream_that_outgrows_the_budget_is_ended_with_an_error_that_the_sdk_raises(
    empty_world: World,
) -> None:
    """It is charged at its worst: the provider may go on and bill it, as this one does."""
    world = await empty_world.start(STREAMING, standin=LONG)
    assert (await stream(world, "[[out=7000]]", 7_100))[1] == ""
    seen, code = await stream(world, "[[out=7000]]", 7_100)
    assert seen > 0 and code.startswith("budget_")
    await world.quiet()
    await eventually(lambda: not world.standin.in_flight)
    assert await world.total("spendmesh_refusals_total", code=code) == 1
    assert await world.total("spendmesh_attempts_total", outcome="stopped") == 1
    await world.stop_sidecar()
    account = world.account()
    assert (account.held, account.quarantined) == (0, 0)
    assert world.invoice_nanos <= account.state.settled <= 2 * AMOUNT_NANOS
    assert account.overrun > 0


async def test_an_anthropic_stream_is_ended_in_its_own_words(empty_world: World) -> None:
    world = await empty_world.start(STREAMING, standin=LONG)

    async def message(tokens: int) -> int:
        seen = 0
        text = [{"role": "user", "content": f"[[out={tokens}]]"}]
        async for _ in await world.anthropic.messages.create(
            model="medium-1", max_tokens=7_100, messages=text, stream=True
        ):
            seen += 1
        return seen

    assert await message(7_000) > 100
    with pytest.raises(anthropic.APIStatusError, match=r"budget_[a-z_]+: The answer was ended"):
        await message(7_000)
    await world.quiet()
    await eventually(lambda: not world.standin.in_flight)
    await world.stop_sidecar()
    assert world.invoice_nanos <= world.account().state.settled <= 2 * AMOUNT_NANOS
