"""A sidecar that is killed and started again on its state folder: the same holder, at worst, and nothing twice."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import openai
import pytest

from sidecar_beside import chat, eventually
from sidecar_manifests import budget
from sidecar_world import World
from spendmesh_cli.children import Child, ChildFailed
from spendmesh_sidecar.core.ledger.journal import AttemptRecord, LeaseRecord, SettledRecord, VoidedRecord
from spendmesh_sidecar.core.ledger.journal_frames import read_log
from spendmesh_sidecar.state.ledger_log import ASIDE, LOG, LedgerLog
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio

NANOS = 10**9


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def start(world: World, state: Path, **more: str) -> Child:
    return await world.start_sidecar_process(SPENDMESH_STATE_DIR=str(state), SPENDMESH_POD_NAME="app-1", **more)


async def kill(child: Child) -> None:
    os.kill(child.pid, signal.SIGKILL)
    await child.stop()


async def nonce(world: World) -> str:
    return (await world.status())["control"]["nonce"]


async def call(world: World, text: str = "[[out=100]]") -> None:
    assert (await world.openai.chat.completions.create(**chat(text))).choices


def unsettled(state: Path) -> set[str]:
    """Reservations that the file has without an end."""
    found: set[str] = set()
    for record in read_log((state / LOG).read_bytes(), "").records:
        if isinstance(record, AttemptRecord):
            found.add(record.reservation)
        elif isinstance(record, SettledRecord | VoidedRecord):
            found.remove(record.reservation)
    return found


async def test_a_sidecar_killed_in_the_middle_of_a_stream_continues_its_leases(empty_world: World, state: Path) -> None:
    """Row 5: nothing is stranded, what was in flight is charged at its worst, and new calls are served."""
    world = await empty_world.start(budget("0.50"), sidecar=False)
    child = await start(world, state)
    holder = await nonce(world)
    await call(world)
    await eventually(lambda: world.account().state.settled == world.invoice_nanos)
    before = world.invoice_nanos
    world.standin.faults(FaultRule("withhold", stream=True))
    stream = await world.openai.chat.completions.create(**chat("[[out=900]]", max_tokens=1_000), stream=True)
    await anext(aiter(stream))
    await kill(child)
    await eventually(lambda: not world.standin.in_flight)
    world.standin.faults()
    child = await start(world, state)
    assert await nonce(world) == holder
    assert world.account().state.settled >= world.invoice_nanos, "told before it serves"
    await call(world)
    await child.stop()
    account = world.account()
    assert (account.quarantined, account.held) == (0, 0)
    in_flight = account.state.settled - world.invoice_nanos
    assert world.invoice_nanos > before + 900 * 2_000
    assert 0 <= in_flight <= 200 * 2_000, "the stream is charged once, at its worst"


async def test_killing_an_idle_sidecar_again_and_again_costs_nothing(empty_world: World, state: Path) -> None:
    """No row is lost, none is there twice, and the whole limit stays in use."""
    world = await empty_world.start(budget("0.02"), sidecar=False)
    holders = set()
    for _ in range(4):
        child = await start(world, state)
        holders.add(await nonce(world))
        for _ in range(5):
            await call(world)
        await eventually(lambda: world.account().state.settled == world.invoice_nanos)
        await kill(child)
    assert len(holders) == 1
    child = await start(world, state)
    await child.stop()
    account = world.account()
    assert (account.state.settled, account.held, account.quarantined) == (world.invoice_nanos, 0, 0)


async def test_a_limit_holds_and_is_used_up_over_sidecars_killed_in_the_middle_of_calls(
    empty_world: World, state: Path
) -> None:
    world = await empty_world.start(budget("0.05"), sidecar=False)

    async def spend() -> bool:
        """Whether a call was made, or cut off by the kill; not: refused."""
        try:
            await world.openai.chat.completions.create(**chat("[[out=200]]", max_tokens=300))
        except openai.APIConnectionError:
            return True
        except openai.APIStatusError as error:
            return error.status_code != 402
        return True

    for _ in range(4):
        child = await start(world, state)
        calls = [asyncio.create_task(spend()) for _ in range(8)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        await kill(child)
        await asyncio.gather(*calls)
    await start(world, state)
    while await spend():
        pass
    await eventually(lambda: not world.standin.in_flight)
    account = world.account()
    assert account.quarantined == 0
    assert world.invoice_nanos <= account.state.charged <= NANOS // 20
    assert account.state.charged - world.invoice_nanos <= 4 * 8 * 700_000 + 1_000_000


async def test_a_killed_sidecar_serves_its_rights_while_the_operator_is_away(empty_world: World, state: Path) -> None:
    world = await empty_world.start(budget("0.50"), sidecar=False)
    child = await start(world, state)
    await call(world)
    await eventually(lambda: world.account().state.settled == world.invoice_nanos)
    await world.stop_control()
    await kill(child)
    await start(world, state)
    await call(world)


async def test_a_restarted_sidecars_first_question_is_not_taken_for_an_earlier_one(
    empty_world: World, state: Path
) -> None:
    """The coordinator answers a repeated question as before: a holder that goes on must not repeat one by accident."""
    world = await empty_world.start(budget("5.00"), sidecar=False)
    for tokens in (16_000, 30_000):
        child = await start(world, state)
        await world.openai.chat.completions.create(**chat("[[out=10]]", "spendmesh/premium", max_tokens=tokens))
        await eventually(lambda: world.account().state.settled == world.invoice_nanos)
        await kill(child)
    assert world.account().quarantined == 0


async def test_a_clean_stop_leaves_nothing_to_continue(empty_world: World, state: Path) -> None:
    """A folder that is copied after it (a CI cache) makes no second holder of the same rights."""
    world = await empty_world.start(sidecar=False)
    child = await start(world, state)
    holder = await nonce(world)
    await call(world)
    assert (state / LOG).stat().st_mode & 0o777 == 0o600
    await child.stop()
    assert not (state / LOG).exists()
    await start(world, state)
    assert await nonce(world) != holder


@pytest.mark.parametrize("durability", ["Process", "Node"])
async def test_an_attempt_is_in_the_file_before_the_provider_hears_of_it(
    empty_world: World, state: Path, durability: str
) -> None:
    """I4, seen from the provider: at the first byte of a call its reservation can be read, with Node synced."""
    world = await empty_world.start(sidecar=False)
    await world.start_sidecar(state_dir=state, durability=durability)
    seen: list[tuple[set[str], int]] = []

    async def look() -> None:
        while not world.standin.in_flight:
            await asyncio.sleep(0)
        seen.append((unsettled(state), syncs()))

    def syncs() -> int:
        log = world.sidecar.plane.log
        assert isinstance(log, LedgerLog)
        return log.syncs

    world.standin.faults(FaultRule("withhold", stream=True))
    before = syncs()
    looking = asyncio.create_task(look())
    stream = await world.openai.chat.completions.create(**chat("[[out=3]]"), stream=True)
    await looking
    ((reserved, synced),) = seen
    assert len(reserved) == 1 and reserved.pop().endswith("/attempt-1")
    assert (synced > before) == (durability == "Node")
    first = await anext(aiter(stream))
    world.standin.acknowledge(first.id, 10)
    assert [chunk async for chunk in stream]
    await world.quiet()
    await eventually(lambda: not unsettled(state))


# --- what cannot be continued -----------------------------------------------------------------------------


async def test_a_damaged_log_is_kept_aside_and_what_it_held_stays_charged(empty_world: World, state: Path) -> None:
    """Row 7: never half of a log. The new holder is another one; the old one's rights are not given out again."""
    world = await empty_world.start(budget("0.50"), sidecar=False)
    child = await start(world, state)
    holder = await nonce(world)
    await call(world)
    await eventually(lambda: world.account().state.settled == world.invoice_nanos)
    await kill(child)
    damaged = bytearray((state / LOG).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (state / LOG).write_bytes(damaged)
    await start(world, state)
    assert await nonce(world) != holder
    await call(world)
    assert (state / ASIDE).read_bytes() == bytes(damaged)
    assert world.account().quarantined > 0
    assert "is not continued: the record at byte" in world.log.read_text()


async def test_a_log_of_another_pod_is_not_continued(empty_world: World, state: Path) -> None:
    """A folder that was cloned: the first pod's rights are the first pod's."""
    world = await empty_world.start(budget("0.50"), sidecar=False)
    child = await start(world, state)
    holder = await nonce(world)
    await kill(child)
    await world.start_sidecar_process(SPENDMESH_STATE_DIR=str(state), SPENDMESH_POD_NAME="app-2")
    assert await nonce(world) != holder
    assert "it is of another pod" in world.log.read_text()


async def test_two_processes_cannot_write_one_log(empty_world: World, state: Path) -> None:
    world = await empty_world.start(sidecar=False)
    await start(world, state)
    with pytest.raises(ChildFailed, match="is in use by another process: stop that one"):
        await start(world, state)
    await call(world)


async def test_a_copied_state_is_charged_on_both_sides_and_both_go_on(
    empty_world: World, state: Path, tmp_path: Path
) -> None:
    """A snapshot of a machine, started twice: the same pod and nonce, two histories of one lease."""
    world = await empty_world.start(budget("2.00"), sidecar=False)
    child = await start(world, state)
    holder = await nonce(world)
    await call(world)
    await eventually(lambda: world.account().state.settled == world.invoice_nanos)
    await kill(child)
    shutil.copytree(state, tmp_path / "copy")
    places = []
    for folder in (state, tmp_path / "copy"):
        await start(world, folder)
        places.append((world.url, world.admin_url))

    async def parted() -> bool:
        found = set()
        for number, (url, admin_url) in enumerate(places):
            await world.use(url, admin_url)
            await call(world, f"[[out={100 + number}]]")
            found.add(await nonce(world))
        return len(found) == 2 and holder not in found

    await eventually(parted)
    for url, admin_url in places:
        await world.use(url, admin_url)
        await call(world)
    account = world.account()
    assert world.invoice_nanos <= account.state.charged
    assert account.quarantined > 0


# --- a disk that is full ----------------------------------------------------------------------------------


async def test_a_full_disk_refuses_calls_that_cost_until_there_is_room_again(empty_world: World, state: Path) -> None:
    """Row 7: 503 and not ready, nothing is sent; then it goes on, and what was written in part is no damage."""
    world = await empty_world.start(budget("0.50"), sidecar=False)
    child = await start(world, state)
    holder = await nonce(world)
    await call(world)
    await eventually(lambda: world.account().state.settled == world.invoice_nanos)
    _, hard = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, ((state / LOG).stat().st_size + 7, hard))

    async def ready() -> int:
        async with world.http.get(f"{world.admin_url}/readyz") as response:
            return response.status

    async def refused() -> Any:
        try:
            await call(world)
        except openai.InternalServerError as error:
            return error
        return None

    before = len(world.provider_requests())
    error = await refused()
    assert (error.status_code, error.code) == (503, "ledger_unwritable")
    assert "File too large" in error.message and "state folder" in error.message
    assert await ready() == 503
    assert len(world.provider_requests()) == before
    assert (await world.openai.models.list()).data, "what costs nothing goes on"
    await kill(child)
    child = await start(world, state)
    assert await nonce(world) == holder, "the torn end of a file that is full is no damage"
    await call(world)
    await eventually(lambda: world.account().state.settled == world.invoice_nanos)
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, ((state / LOG).stat().st_size + 7, hard))
    assert await refused() is not None
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (hard, hard))

    async def served() -> bool:
        return await refused() is None

    await eventually(served)
    assert await ready() == 200
    await eventually(lambda: world.account().state.settled == world.invoice_nanos)
    await kill(child)
    await start(world, state)
    assert await nonce(world) == holder
    assert world.account().quarantined == 0


async def test_with_durability_node_a_call_is_served_and_its_log_continued(empty_world: World, state: Path) -> None:
    world = await empty_world.start(budget("0.50"), sidecar=False)
    child = await start(world, state, SPENDMESH_DURABILITY="Node")
    holder = await nonce(world)
    await asyncio.gather(*(call(world) for _ in range(8)))
    await eventually(lambda: world.account().state.settled == world.invoice_nanos)
    await kill(child)
    assert any(isinstance(each, LeaseRecord) for each in read_log((state / LOG).read_bytes(), "").records)
    child = await start(world, state, SPENDMESH_DURABILITY="Node")
    assert await nonce(world) == holder
    await child.stop()
    account = world.account()
    assert (account.state.settled, account.quarantined) == (world.invoice_nanos, 0)


async def test_a_durability_that_is_neither_is_refused(empty_world: World, state: Path) -> None:
    world = await empty_world.start(sidecar=False)
    with pytest.raises(ChildFailed, match="SPENDMESH_DURABILITY='Disk' is neither Process"):
        await start(world, state, SPENDMESH_DURABILITY="Disk")
