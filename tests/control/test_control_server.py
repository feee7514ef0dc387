"""Over real loopback HTTP: who may do what, rights and reports, limits of messages, and a follower that passes on."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from msgspec.structs import replace

from control_samples import OTHER, POD, TABLE, TOKENS, client, policy, replica
from ledger_samples import BUDGET, acquire, budget, report, want
from spendmesh_operator.control.leader import PATH_STAMP, StampQuery
from spendmesh_operator.control.people import PATH_BILL, BillQuery
from spendmesh_operator.ledger.stores.base import MemoryStore
from spendmesh_sidecar.core.specs import RetrySpec
from spendmesh_sidecar.protocol import (
    PATH_ACK,
    PATH_ACQUIRE,
    PATH_OBSERVATIONS,
    PATH_PRICE_TABLE,
    PATH_REPORT,
    PATH_SHARE,
    PATH_STREAM,
    Ack,
    AcquireReply,
    Observations,
    ReportReply,
    ReportRequest,
    ShareReply,
    ShareReport,
    ShareRequest,
    Stamp,
)

ASK = acquire("r", "n", want(10))
ACK = Ack(nonce="n", digest="d", stamp=Stamp(epoch=1, sequence=1))
SEEN = Observations(client_retries=("marked",))
SHARED = RetrySpec(name="team-a/shared", scope="Cluster", min_retry_count=4, min_retry_interval_ms=30_000)
SHARE = ShareRequest(instance="i", reports=(ShareReport(budget=SHARED.name, sequence=1, wants=400),))
POSTS = [
    (PATH_ACQUIRE, ASK),
    (PATH_REPORT, ReportRequest(nonce="n", reports=())),
    (PATH_ACK, ACK),
    (PATH_OBSERVATIONS, SEEN),
    (PATH_SHARE, SHARE),
]
PATHS = [
    *POSTS,
    (PATH_STAMP, StampQuery(digest="d")),
    (PATH_STREAM, None),
    (PATH_PRICE_TABLE.format(digest="0" * 64), None),
]


def sentence(body: bytes) -> str:
    return msgspec.json.decode(body, type=dict[str, str])["error"]


@pytest.mark.parametrize("token", ["", "forged", "pod-token-and-more", "ä"])
@pytest.mark.parametrize(("path", "message"), PATHS, ids=[path for path, _ in PATHS])
def test_a_forged_or_missing_token_gets_401_on_every_path(path: str, message: object, token: str) -> None:
    """Every request is authenticated, and the answer says what to send."""

    async def scenario() -> tuple[int, bytes]:
        async with replica() as at, client(at, token) as caller:
            return await (caller.get(path + "?nonce=n") if message is None else caller.post(path, message))

    status, body = asyncio.run(scenario())

    assert status == 401
    assert "token" in sentence(body)


@pytest.mark.parametrize(("path", "message"), POSTS)
def test_a_token_that_is_not_a_pods_gets_403(path: str, message: object) -> None:
    """Contract §3: bound to a pod; others are refused."""

    async def scenario() -> tuple[int, bytes]:
        async with replica() as at, client(at, "replica-token") as caller:
            return await caller.post(path, message)

    status, body = asyncio.run(scenario())

    assert (status, sentence(body)) == (403, "this token is not bound to a pod")


def test_a_pod_may_not_ask_for_stamps() -> None:
    """That path is for replicas."""

    async def scenario() -> int:
        async with replica() as at, client(at) as caller:
            return (await caller.post(PATH_STAMP, StampQuery(digest="d")))[0]

    assert asyncio.run(scenario()) == 403


def test_acquire_and_report_move_the_books() -> None:
    """The way of every unit of spend."""

    async def scenario() -> tuple[int, ReportReply, int]:
        async with replica() as at, client(at) as caller:
            _, body = await caller.post(PATH_ACQUIRE, acquire("r", "n", want(100)))
            (lease,) = msgspec.json.decode(body, type=AcquireReply).leases
            news = ReportRequest(nonce="n", reports=(report(lease.id, 40, closed=1),))
            _, body = await caller.post(PATH_REPORT, news)
            state = at.coordinator.states()[BUDGET, "hourly", ()]
            return lease.granted, msgspec.json.decode(body, type=ReportReply), state.charged

    granted, reply, charged = asyncio.run(scenario())

    assert (granted, charged) == (100, 40)
    assert [(state.sequence, state.fenced) for state in reply.leases] == [(1, False)]


def test_another_pods_nonce_and_lease_are_refused() -> None:
    """One pod cannot spend, report or close for another."""

    async def scenario() -> tuple[int, int, int]:
        async with replica() as at, client(at) as owner, client(at, "other-token") as thief:
            _, body = await owner.post(PATH_ACQUIRE, acquire("r", "n", want(100)))
            (lease,) = msgspec.json.decode(body, type=AcquireReply).leases
            with_nonce, _ = await thief.post(PATH_ACQUIRE, acquire("r", "n", want(100)))
            close = report(lease.id, 0, closed=1)
            with_lease, _ = await thief.post(PATH_REPORT, ReportRequest(nonce="thief", reports=(close,)))
            return with_nonce, with_lease, at.coordinator.states()[BUDGET, "hourly", ()].charged

    assert asyncio.run(scenario()) == (403, 403, 100)


def test_a_replaced_nonce_gets_409() -> None:
    """Take a new one."""

    async def scenario() -> tuple[int, bytes]:
        async with replica() as at, client(at) as caller:
            for nonce in ("old", "new"):
                await caller.post(PATH_ACQUIRE, acquire("r", nonce, want(1)))
            return await caller.post(PATH_ACQUIRE, acquire("r2", "old", want(1)))

    status, body = asyncio.run(scenario())

    assert status == 409
    assert "take a new one" in sentence(body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PATH_ACQUIRE, b""),
        (PATH_ACQUIRE, b"not json"),
        (PATH_ACQUIRE, b"[]"),
        (PATH_ACQUIRE, b'{"id":"r","nonce":"n"}'),
        (PATH_ACQUIRE, b'{"id":"r","nonce":"n","wants":[]}'),
        (PATH_ACQUIRE, b'{"id":"r","nonce":"n","wants":[{"account":{"budget":"b","limit":"l"},"need":1.5,"want":2}]}'),
        (PATH_ACQUIRE, b'{"id":"r","nonce":"n","wants":[{"account":{"budget":"b","limit":"l"},"need":-1,"want":2}]}'),
        (PATH_ACQUIRE, b'{"id":"","nonce":"n","wants":[{"account":{"budget":"b","limit":"l"},"need":1,"want":2}]}'),
        (PATH_REPORT, b'{"nonce":"n","reports":[{"lease":"l","sequence":1,"used":-5,"held":0}]}'),
        (PATH_REPORT, b'{"nonce":"n","reports":[{"lease":"l","sequence":1,"used":1e400,"held":0}]}'),
        (PATH_ACK, b'{"nonce":"n"}'),
        (PATH_ACK, b"\xff\xfe"),
        (PATH_OBSERVATIONS, b'{"unpaid":[{"provider":1}]}'),
    ],
)
def test_malformed_messages_get_400_and_change_nothing(path: str, body: bytes) -> None:
    """Row 23, on this side: a sentence, not a traceback."""

    async def scenario() -> tuple[int, bytes, int]:
        async with replica() as at, client(at) as caller:
            before = at.coordinator.books.revision
            status, answer = await caller.post(path, body)
            return status, answer, at.coordinator.books.revision - before

    status, answer, changes = asyncio.run(scenario())

    assert status == 400
    assert sentence(answer)
    assert changes == 0


def test_a_body_over_the_limit_gets_413() -> None:
    """Row 26: bounded before it is read whole."""

    async def scenario() -> int:
        async with replica() as at, client(at) as caller:
            return (await caller.post(PATH_REPORT, b" " * (512 * 1024 + 1)))[0]

    assert asyncio.run(scenario()) == 413


def test_a_price_table_is_found_by_its_digest_only() -> None:
    """Content-addressed; an unknown one is 404."""

    async def scenario() -> tuple[bytes, int]:
        async with replica() as at, client(at) as caller:
            _, table = await caller.get(PATH_PRICE_TABLE.format(digest="0" * 64))
            return table, (await caller.get(PATH_PRICE_TABLE.format(digest="f" * 64)))[0]

    assert asyncio.run(scenario()) == (TABLE, 404)


def test_a_pod_that_appears_within_the_wait_is_served() -> None:
    """A pod may be faster than the informer (contract §3)."""

    async def scenario() -> int:
        async with replica() as at, client(at) as caller:
            at.publish({OTHER.uid: policy()})
            waiting = asyncio.create_task(caller.post(PATH_ACQUIRE, ASK))
            await asyncio.sleep(0)
            at.publish({OTHER.uid: policy(), POD.uid: policy()})
            return (await waiting)[0]

    assert asyncio.run(scenario()) == 200


def test_a_follower_passes_rights_reports_and_acks_on_to_the_leader() -> None:
    """The leader's books and acknowledgements move; the follower's own coordinator never serves."""

    async def scenario() -> tuple[int, int, int, dict[str, frozenset[str]]]:
        async with replica() as leader, replica(leads=False, leader=leader) as follower, client(follower) as caller:
            _, body = await caller.post(PATH_ACQUIRE, acquire("r", "n", want(100)))
            (lease,) = msgspec.json.decode(body, type=AcquireReply).leases
            news = ReportRequest(nonce="n", reports=(report(lease.id, 40),))
            reported, _ = await caller.post(PATH_REPORT, news)
            acknowledged, _ = await caller.post(PATH_ACK, ACK)
            settled = leader.coordinator.states()[BUDGET, "hourly", ()].settled
            return reported, acknowledged, settled, leader.hub.programmed()

    assert asyncio.run(scenario()) == (200, 204, 40, {"d": frozenset({POD.uid})})


def test_a_follower_passes_on_what_a_sidecar_sees() -> None:
    """The leader writes the conditions."""

    async def scenario() -> tuple[int, object]:
        async with replica() as leader, replica(leads=False, leader=leader) as follower, client(follower) as caller:
            status, _ = await caller.post(PATH_OBSERVATIONS, SEEN)
            return status, leader.hub.sightings.troubles(0.0).client_retries

    assert asyncio.run(scenario()) == (204, {POD.uid: ("marked",)})


def test_shares_of_a_retry_budget_come_from_the_leader_for_policies_that_have_it() -> None:
    """Also through a follower. A pod whose policy lacks the budget, or has it for itself, gets no share of it."""
    alone = replace(SHARED, scope="Pod")

    async def scenario() -> list[tuple[int, int]]:
        found = []
        async with replica() as leader, replica(leads=False, leader=leader) as follower:
            for mine in (SHARED, alone, RetrySpec()):
                policies = {POD.uid: replace(policy(), retry=mine), OTHER.uid: replace(policy(), observed_retry=SHARED)}
                leader.publish(policies)
                for url, token in ((follower, "pod-token"), (leader, "other-token")):
                    async with client(url, token) as caller:
                        status, body = await caller.post(PATH_SHARE, SHARE)
                        grants = msgspec.json.decode(body, type=ShareReply).grants
                        found.append((status, len(grants)))
                        assert all(grant.epoch == leader.coordinator.epoch for grant in grants)
        return found

    assert asyncio.run(scenario()) == [(200, 1), (200, 1), (200, 0), (200, 1), (200, 0), (200, 1)]


def test_a_leader_that_does_not_keep_the_books_grants_no_share() -> None:
    """Its epoch would not be newer than another leader's."""

    async def scenario() -> tuple[int, bytes]:
        async with replica() as at, client(at) as caller:
            await at.coordinator.stop()
            return await caller.post(PATH_SHARE, SHARE)

    status, body = asyncio.run(scenario())

    assert (status, sentence(body)) == (503, "the books are not open here: retry")


def test_a_follower_passes_the_leaders_refusal_on() -> None:
    """Status and sentence as the leader gave them."""

    async def scenario() -> int:
        async with (
            replica() as leader,
            replica(leads=False, leader=leader) as follower,
            client(leader, "other-token") as owner,
            client(follower) as thief,
        ):
            await owner.post(PATH_ACQUIRE, acquire("r", "n", want(100)))
            return (await thief.post(PATH_ACQUIRE, acquire("r", "n", want(100))))[0]

    assert asyncio.run(scenario()) == 403


def test_without_a_leader_a_follower_answers_503_with_a_sentence() -> None:
    """Retry; nothing is granted by guess."""

    async def scenario() -> tuple[int, bytes]:
        async with replica(leads=False) as follower, client(follower) as caller:
            return await caller.post(PATH_ACQUIRE, ASK)

    status, body = asyncio.run(scenario())

    assert (status, sentence(body)) == (503, "no replica is the leader now: retry")


def test_a_leader_that_does_not_answer_gives_503() -> None:
    """A dead leader's address is known for a moment longer than it lives."""

    async def scenario() -> tuple[int, bytes]:
        async with replica(leads=False) as follower, client(follower) as caller:
            follower.link.leader_url = "http://127.0.0.1:1"
            return await caller.post(PATH_ACQUIRE, ASK)

    status, body = asyncio.run(scenario())

    assert status == 503
    assert "the leader does not answer" in sentence(body)


def test_a_request_that_was_passed_on_is_not_passed_on_again() -> None:
    """Two followers that each take the other for the leader do not play ping-pong."""

    async def scenario() -> tuple[int, bytes]:
        async with replica(leads=False) as one, replica(leads=False, leader=one) as two, client(two) as caller:
            one.link.leader_url = two.url
            return await caller.post(PATH_ACQUIRE, ASK)

    status, body = asyncio.run(scenario())

    assert (status, sentence(body)) == (503, "the leader has changed: retry")


def test_a_leader_whose_books_are_fenced_answers_503() -> None:
    """It does not grant under an old epoch."""

    async def scenario() -> int:
        store = MemoryStore()
        async with replica(store=store) as old, replica(store=store) as _, client(old) as caller:
            return (await caller.post(PATH_ACQUIRE, ASK))[0]

    assert asyncio.run(scenario()) == 503


def test_no_answer_holds_a_token() -> None:
    """Row 30, on this side."""

    async def scenario() -> bytes:
        answers = b""
        async with replica() as at:
            for token in (*TOKENS, "forged-canary"):
                async with client(at, token) as caller:
                    for path, message in POSTS:
                        answers += (await caller.post(path, message))[1]
        return answers

    answers = asyncio.run(scenario())

    assert not [token for token in (*TOKENS, "forged-canary") if token.encode() in answers]


# --- people -------------------------------------------------------------------------------------------------


def test_a_follower_passes_a_bill_on_to_the_leader_who_checks_the_person() -> None:
    """The books are the leader's; the follower of this test would answer nobody."""

    async def scenario() -> None:
        async with replica(person="alice") as leader, replica(leads=False, leader=leader) as follower:
            await leader.coordinator.remember({"team-a/team": budget(1000)}, ["team-a/team"])
            async with client(follower, "alice") as caller:
                status, body = await caller.post(PATH_BILL, BillQuery())
            assert (status, len(msgspec.json.decode(body)["lines"])) == (200, 1)
            for token, expected in (("mallory", 401), ("pod-token", 401), ("", 401)):
                async with client(follower, token) as caller:
                    assert (await caller.post(PATH_BILL, BillQuery()))[0] == expected
            async with client(follower, "alice") as caller:
                assert (await caller.post(PATH_BILL, b'{"namespaces": "team-a"}'))[0] == 400

    asyncio.run(scenario())
