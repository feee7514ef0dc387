"""
How many calls reach a provider when clients have their own two retries on, over one retry of ours.

`SEEN` is the table of docs/resilience.md. `python -m pytest tests/sidecar/test_sdk_calls.py -s` measures it and prints
it again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import sdk_clients
from sdk_clients import Ask, LiteLLM
from sidecar_manifests import retries
from sidecar_world import World
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).parents[2] / "docs" / "resilience.md"
STATUSES = (400, 408, 429, 500, 503, 529)
OURS = {"percent": 100, "minimum": 1000, "failures": 0}
"""A retry budget that is no obstacle, and no breaker: attempts alone bound what is sent."""


@dataclass(frozen=True)
class Seen:
    """What became of one call of an app, for each of `STATUSES`, while the provider answers nothing else."""

    asked: tuple[int, ...]
    """Calls that the client made of it."""
    sent: tuple[int, ...]
    """Calls that reached the provider."""
    told: tuple[str, ...] = tuple(map(str, STATUSES))
    """Status that the app sees."""
    named: tuple[int, ...] = (0,) * len(STATUSES)
    """Calls that were recognized as repeats that the client does not mark."""


OFFICIAL: dict[tuple[str, str], Ask] = {
    ("openai", "async"): sdk_clients.openai_async,
    ("openai", "sync"): sdk_clients.openai_sync,
    ("anthropic", "async"): sdk_clients.anthropic_async,
    ("anthropic", "sync"): sdk_clients.anthropic_sync,
}
LITELLM = [
    (api, option, how)
    for option in ("max_retries", "num_retries")
    for api in ("openai", "anthropic")
    for how in ("async", "sync")
]

ALLOWED = Seen(asked=(1, 1, 1, 1, 1, 1), sent=(1, 2, 2, 2, 2, 2))
"""400 is not tried again; all others are once, by us, and the client asks once."""
LOOPED = Seen(asked=(3, 3, 3, 3, 3, 3), sent=(3, 6, 6, 6, 6, 6), named=(2, 2, 2, 2, 2, 2))
"""LiteLLM's own loop makes three calls of one, with no sign on the second and third: each is one call to us, and known
as a repeat by what it asks."""
AS_500 = ("400", "408", "429", "500", "503", "500")

SEEN = {
    "openai": ALLOWED,
    "anthropic": ALLOWED,
    "LiteLLM, openai, `max_retries=2`": ALLOWED,
    "LiteLLM, anthropic, `max_retries=2`": Seen(ALLOWED.asked, ALLOWED.sent, AS_500),
    "LiteLLM, openai, `num_retries=2`": LOOPED,
    "LiteLLM, anthropic, `num_retries=2`": Seen(LOOPED.asked, LOOPED.sent, AS_500, LOOPED.named),
}


@pytest.fixture(scope="module")
async def patient_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    world = World(tmp_path_factory.mktemp("world"))
    try:
        yield await world.start(retries(attempts=1, **OURS))
    finally:
        await world.close()


@pytest.fixture(scope="module")
async def litellm_process(litellm: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiteLLM]:
    async with LiteLLM(litellm, tmp_path_factory.mktemp("litellm") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def measured() -> Iterator[dict[str, Seen]]:
    """What was counted, by client; printed at the end."""
    rows: dict[str, Seen] = {}
    yield rows
    print(f"\n{table(rows)}")


@pytest.mark.parametrize("client", OFFICIAL, ids=", ".join)
async def test_an_sdk_s_retries_do_not_multiply_ours(
    patient_world: World, client: tuple[str, str], measured: dict[str, Seen]
) -> None:
    """Two retries over one of ours would be six calls if both acted. The SDK asks once and tells the app the status."""
    measured[client[0]] = seen = await _count(patient_world, OFFICIAL[client])
    assert seen == SEEN[client[0]]


@pytest.mark.parametrize("client", LITELLM, ids=", ".join)
async def test_litellm_s_own_loop_multiplies_and_its_sdk_s_retries_do_not(
    patient_world: World, litellm_process: LiteLLM, client: tuple[str, str, str], measured: dict[str, Seen]
) -> None:
    """`num_retries` ignores `x-should-retry` and repeats even what is malformed; each of its calls is bounded."""
    api, option, how = client
    name = f"LiteLLM, {api}, `{option}={sdk_clients.RETRIES}`"
    ask = litellm_process.client(api, how, **{option: sdk_clients.RETRIES})
    measured[name] = seen = await _count(patient_world, ask)
    assert seen == SEEN[name]


def test_the_documented_table_is_the_measured_one() -> None:
    assert table(SEEN) in DOCS.read_text()


async def _count(world: World, ask: Ask) -> Seen:
    asked, sent, told, named = [], [], [], []
    for status in STATUSES:
        known = await _repeats(world)
        world.standin.faults(FaultRule("status", status=status, should_retry=True))
        arrived, called = len(world.provider_requests()), await world.total("spendmesh_requests_total")
        told.append((await ask(world, f"{status} {called} [[out=5]]")).rpartition(" ")[2])
        await world.quiet()
        sent.append(len(world.provider_requests()) - arrived)
        asked.append(int(await world.total("spendmesh_requests_total") - called))
        named.append(int(await _repeats(world) - known))
    return Seen(tuple(asked), tuple(sent), tuple(told), tuple(named))


async def _repeats(world: World) -> float:
    return await world.total("spendmesh_client_retries_total", outcome="unmarked")


def table(rows: dict[str, Seen]) -> str:
    """As Markdown."""
    lines = [f"| client | {' | '.join(map(str, STATUSES))} | calls of the client | known as repeats | the app sees |"]
    lines.append("|---|" + "---|" * (len(STATUSES) + 3))
    for client, seen in rows.items():
        other = [f"{status} as {told}" for status, told in zip(STATUSES, seen.told, strict=True) if told != str(status)]
        sees = "; ".join(["the same status", *other])
        lines.append(
            f"| {client} | {' | '.join(map(str, seen.sent))} | {max(seen.asked)} | {max(seen.named)} | {sees} |"
        )
    return "\n".join(lines)
