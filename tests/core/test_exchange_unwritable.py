"""A call whose cost cannot be written down is not sent, and is refused by name; what costs nothing goes on."""

from __future__ import annotations

from exchange_world import MODELS, RETRY, World, chat, policy, success
from memory_log import MemoryLog
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.outcome import broken
from spendmesh_sidecar.core.types import Kind, Outcome


def logged_world() -> tuple[World, MemoryLog]:
    world, log = World(policy(retry=RETRY)), MemoryLog()
    world.ledger = log.ledger = Ledger("holder", world.policy.budgets, world.now, journal=log)
    assert world.run(chat(), [success()]).respond.refusal is None
    return world, log


def refusal_of(world: World, *outcomes: Outcome) -> tuple[str, int, float | None, int]:
    """Code, status, Retry-After and attempts of a call that is refused."""
    run = world.run(chat(), outcomes)
    refusal = run.respond.refusal
    assert refusal is not None
    return refusal.code, refusal.status, refusal.retry_after_seconds, len(run.attempts)


def test_without_room_in_the_log_nothing_is_sent_and_nothing_is_booked() -> None:
    world, log = logged_world()
    used, log.full = world.used(), True
    assert refusal_of(world) == ("ledger_unwritable", 503, 5.0, 0)
    assert (world.used(), world.held, world.ledger.open_reservations) == (used, 0, 0)
    log.full = False
    assert world.run(chat(), [success()]).respond.refusal is None


def test_an_operation_that_costs_nothing_needs_no_log() -> None:
    world, log = logged_world()
    log.full = True
    assert world.run(chat(operation=MODELS), [success()]).respond.refusal is None


def test_a_record_that_did_not_reach_the_disk_frees_its_attempt_and_is_not_tried_elsewhere() -> None:
    """With durability Node the write went well and the sync did not. No target has failed, so none is ejected."""
    world, log = logged_world()
    used = world.used()

    def unsent(_: object) -> Outcome:
        log.full = True
        return broken(Kind.UNWRITTEN)

    run = world.run(chat(), unsent)
    assert run.respond.refusal is not None and run.respond.refusal.code == "ledger_unwritable"
    assert (len(run.attempts), world.used(), world.held) == (1, used, 0)
    log.full = False
    for _ in range(2 * RETRY.breaker.consecutive_5xx_errors):
        world.run(chat(), [broken(Kind.UNWRITTEN)])
    assert world.run(chat(), [success()]).respond.refusal is None
