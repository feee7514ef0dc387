"""
A fiftieth of the day through the real sidecar in front of the stand-in provider, over sockets.

Every fiftieth call of the figure is made, and each call in trouble fails exactly as often as the figure's shares say.
So the run multiplies to the figure if, and only if, the sidecar makes precisely the calls that the policy means.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from retryday.figure import FAILING, MALFORMED, REQUESTS, TRANSIENT, Name, Tally
from retryday.malformed import KINDS, SOUND as SOUND_BODY
from retryday.policy import NAIVE_TRIES, manifest
from sidecar_manifests import budget
from sidecar_world import OPENAI_KEY, World
from spendmesh_standin import FaultRule

FACTOR: Final = 50
SOUND: Final = (REQUESTS - FAILING) // FACTOR
SOUND_FIRST: Final = 40
"""Calls that succeed before the first one fails: they earn what its retry is paid with."""


@dataclass(frozen=True)
class Planned:
    """One request: what is sent, and how many tries of it fail before one does not."""

    body: bytes = SOUND_BODY
    faults: int = 0


def share(calls: int, *parts: int) -> list[int]:
    """The first `parts[0]` of every `sum(parts)` calls fail once, the next twice, and so on."""
    cycle = [faults for faults, count in enumerate(parts, 1) for _ in range(count)]
    return [cycle[number % len(cycle)] for number in range(calls)]


IMMEDIATE: Final = (2, 1, 1)
"""Half of the retries succeed, and half of those after them; the rest fails three times."""
AFTER_PAUSE: Final = (9, 1)
"""A pause recovers nine of ten."""


def plan(rng: Random, faults: list[int], malformed: int, sound: int = SOUND) -> list[Planned]:
    """The day in some order."""
    kinds = list(KINDS.values())
    day = [Planned(faults=number) for number in faults]
    day += [Planned(body=kinds[number % len(kinds)]) for number in range(malformed)]
    day += [Planned()] * (sound - SOUND_FIRST)
    rng.shuffle(day)
    return [Planned()] * SOUND_FIRST + day


async def play(world: World, name: str, url: str, day: list[Planned], tries: int) -> Tally:
    """Make all calls one after the other, each up to `tries` times at once, and count on both sides."""
    world.standin.reset()
    refused = lost = 0
    for planned in day:
        if planned.faults:
            world.standin.faults(FaultRule("status", status=503, first=planned.faults, bill="full"))
        for _ in range(tries):
            status, code = await post(world, url, planned.body)
            refused += code == "request_invalid"
            if status == 200:
                break
        lost += status != 200 and planned.body is SOUND_BODY
        if planned.faults:
            world.standin.faults()
    billed = [line for line in world.standin.invoice().lines if line.reason == "error" and line.cost_nanos]
    malformed = [seen for seen in world.provider_requests() if seen.status == 400]
    return Tally(name, len(billed), len(malformed), refused, lost, FACTOR)


async def post(world: World, url: str, body: bytes) -> tuple[int, str]:
    """Status and error code of one call."""
    headers = {"authorization": f"Bearer {OPENAI_KEY}", "content-type": "application/json"}
    async with world.http.post(f"{url}/chat/completions", data=body, headers=headers) as answer:
        if answer.status == 200:
            await answer.read()
            return 200, ""
        error: dict[str, Any] = (await answer.json())["error"]
        return answer.status, str(error.get("code"))


async def naive(world: World, rng: Random, name: str, sound: int = SOUND) -> Tally:
    """The application's loop: straight at the provider, or `LOOPED` through a sidecar with `hands_off`."""
    if name == Name.FIGURE:
        day = plan(rng, share(FAILING // FACTOR, *IMMEDIATE), 0, sound)
    else:
        day = plan(rng, share(TRANSIENT // FACTOR, *IMMEDIATE), MALFORMED // FACTOR, sound)
    url = f"{world.url}/openai/v1" if name == Name.LOOPED else world.standin.openai_url
    return await play(world, name, url, day, NAIVE_TRIES)


async def ours(world: World, rng: Random) -> Tally:
    """The RetryBudget, in the sidecar."""
    day = plan(rng, share(TRANSIENT // FACTOR, *AFTER_PAUSE), MALFORMED // FACTOR)
    return await play(world, Name.OURS, f"{world.url}/openai/v1", day, 1)


async def run(folder: Path, seed: int) -> list[Tally]:
    """All of them."""
    rng = Random(seed)
    world = World(folder)
    try:
        await start(world, hands_off())
        loops = [await naive(world, rng, name) for name in (Name.FIGURE, Name.NAIVE, Name.LOOPED)]
        await world.apply(quick())
        await world.programmed()
        return [*loops, await ours(world, rng)]
    finally:
        await world.close()


async def start(world: World, retries: dict[str, Any]) -> None:
    """With a RetryBudget, and a budget in money that only watches."""
    watching = budget()
    watching["spec"]["mode"] = "Observe"
    await world.start(retries, watching)


def hands_off() -> dict[str, Any]:
    """A sidecar that sends each call once."""
    written = quick()
    written["spec"]["retry"]["attempts"] = 0
    return written


def quick() -> dict[str, Any]:
    """The example with pauses that take no time: how often a retry fails is planned here."""
    written = manifest()
    written["spec"]["retry"]["backoff"] = "1ms"
    written["metadata"] |= {"uid": "RetryBudget/default", "generation": 1}
    return written
