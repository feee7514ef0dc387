"""A coordinator that goes away: what a limit allows meanwhile, and that all of it is in the books when it is back."""

from __future__ import annotations

import openai
import pytest

from sidecar_beside import chat, eventually
from sidecar_manifests import budget
from sidecar_world import World

pytestmark = pytest.mark.anyio
CALL = chat("[[out=100]]", max_tokens=150)


async def test_allowed_calls_are_served_unverified_up_to_the_cap_and_booked_afterwards(empty_world: World) -> None:
    """No budget header, a refusal at the cap, and ledger = invoice once the coordinator answers again."""
    world = await empty_world.start(budget("0.004", onUnverifiable="Allow", allowCap="0.002"))
    port = int(world.control_url.rpartition(":")[2])
    await world.stop_control()
    create = world.openai.chat.completions.with_raw_response.create
    first = await create(**CALL)
    assert "x-spendmesh-budget-remaining" not in first.headers
    with pytest.raises(openai.APIStatusError) as refused:
        for _ in range(50):
            await create(**CALL)
    assert (refused.value.status_code, refused.value.code) == (503, "budget_unverifiable")
    assert 0.0012 * 10**9 <= world.invoice_nanos <= 0.0021 * 10**9

    await world.start_control(port)
    await eventually(lambda: world.control.coordinator.views() and world.account().state.settled == world.invoice_nanos)
    assert world.account().overrun > 0
    served = await create(**CALL)
    assert "x-spendmesh-budget-remaining" in served.headers


async def test_what_is_kept_for_silence_is_served_in_it(empty_world: World) -> None:
    """Rights that were granted before: nothing is owed afterwards, and the limit holds."""
    world = await empty_world.start(budget("0.01", onUnverifiable="Survival", survivalPercent=50))
    create = world.openai.chat.completions.with_raw_response.create
    await create(**CALL)
    await world.stop_control()
    served = 0
    with pytest.raises(openai.APIStatusError) as refused:
        for _ in range(50):
            await create(**CALL)
            served += 1
    assert refused.value.code == "budget_unverifiable"
    assert served >= 5
    assert world.invoice_nanos <= 0.006 * 10**9
