"""The policy stream over real HTTP: whole policy first and on change, stamps that never go back, ACKs, the end."""

from __future__ import annotations

import asyncio

import pytest

from control_samples import OTHER, POD, Replica, client, eventually, policy, replica
from spendmesh_sidecar.policy import Policy, decode_policy
from spendmesh_sidecar.protocol import PATH_ACK, PATH_STREAM, Ack, Drain, Snapshot, Stamp, StreamEvent


def snapshot(event: StreamEvent) -> Snapshot:
    assert isinstance(event, Snapshot)
    return event


def amount(event: StreamEvent) -> int:
    return decode_policy(bytes(snapshot(event).policy)).budgets[0].limits[0].amount


def everywhere(policy_: Policy, *replicas: Replica) -> None:
    for each in replicas:
        each.publish({POD.uid: policy_, OTHER.uid: policy_})


def test_the_whole_policy_comes_first_with_digest_and_stamp() -> None:
    """The digest covers exactly the bytes that are sent."""

    async def scenario() -> tuple[Snapshot, str]:
        async with replica() as at, client(at) as caller, caller.stream() as stream:
            return snapshot(await stream.next()), at.policies[POD.uid].digest

    sent, digest = asyncio.run(scenario())

    assert sent.digest == digest
    assert bytes(sent.policy) == bytes(sent.policy).strip()
    assert sent.stamp == Stamp(epoch=1, sequence=1)


def test_a_change_is_sent_at_once_and_one_that_is_none_is_not() -> None:
    """Hot update: the next event is the changed policy, though the same one was published in between."""

    async def scenario() -> list[int]:
        async with replica() as at, client(at) as caller, caller.stream() as stream:
            seen = [amount(await stream.next())]
            everywhere(policy(1000), at)
            everywhere(policy(2000), at)
            return [*seen, amount(await stream.next())]

    assert asyncio.run(scenario()) == [1000, 2000]


def test_a_relabelled_pod_gets_the_policy_of_its_new_class_live() -> None:
    """Contract §3; the other pod of the old class hears nothing."""

    async def scenario() -> list[int]:
        async with (
            replica() as at,
            client(at) as caller,
            client(at, "other-token") as other,
            caller.stream() as stream,
            other.stream() as others,
        ):
            seen = [amount(await stream.next()), amount(await others.next())]
            at.publish({POD.uid: policy(5), OTHER.uid: policy(1000)})
            seen.append(amount(await stream.next()))
            at.publish({POD.uid: policy(5), OTHER.uid: policy(7)})
            return [*seen, amount(await others.next())]

    assert asyncio.run(scenario()) == [1000, 1000, 5, 7]


def test_stamps_grow_with_each_change_also_when_an_edit_is_undone() -> None:
    """A digest that comes back is newer than the one it replaces, or sidecars would refuse it."""

    async def scenario() -> list[Stamp]:
        async with replica() as at, client(at) as caller, caller.stream() as stream:
            stamps = [snapshot(await stream.next()).stamp]
            for number in (2, 1, 2):
                everywhere(policy(number * 1000), at)
                stamps.append(snapshot(await stream.next()).stamp)
            return stamps

    stamps = asyncio.run(scenario())

    assert stamps == sorted(set(stamps))


def test_a_follower_serves_a_stream_with_the_leaders_stamps() -> None:
    """Any replica serves sidecars."""

    async def scenario() -> tuple[Snapshot, Snapshot]:
        async with replica() as leader, replica(leads=False, leader=leader) as follower:
            everywhere(policy(2000), leader, follower)
            async with client(follower) as caller, caller.stream() as stream:
                first = snapshot(await stream.next())
                everywhere(policy(3000), leader, follower)
                return first, snapshot(await stream.next())

    first, second = asyncio.run(scenario())

    assert first.stamp.epoch == second.stamp.epoch == 1
    assert first.stamp < second.stamp


def test_a_follower_that_lags_behind_sends_nothing_that_is_no_longer_in_force() -> None:
    """An older policy never comes back over another replica."""

    async def scenario() -> list[int]:
        async with replica() as leader, replica(leads=False, leader=leader) as follower:
            everywhere(policy(2000), leader)  # the follower still has 1000
            async with client(follower) as caller, caller.stream() as stream:
                waiting = asyncio.create_task(stream.next())
                await eventually(lambda: leader.tokens.shown["replica-token"] >= 2)
                everywhere(policy(2000), follower)
                return [amount(await waiting)]

    assert asyncio.run(scenario()) == [2000]


def test_after_an_undone_edit_a_follower_asks_for_the_new_stamp() -> None:
    """What it kept from before would be refused by the sidecar."""

    async def scenario() -> tuple[Stamp, Stamp]:
        async with replica() as leader, replica(leads=False, leader=leader) as follower:
            async with client(leader) as caller, caller.stream() as stream, client(follower, "other-token") as other:
                async with other.stream() as others:
                    await others.next()  # the follower keeps the first stamp of 1000
                await stream.next()
                everywhere(policy(2000), leader)
                newest = snapshot(await stream.next())
                everywhere(policy(1000), leader)
            async with client(follower) as caller, caller.stream(newest.digest, newest.stamp.epoch) as stream:
                return newest.stamp, snapshot(await stream.next()).stamp

    newest, again = asyncio.run(scenario())

    assert newest < again


def test_a_sidecar_that_has_seen_a_later_epoch_raises_the_leaders() -> None:
    """A restored API server must not hand out stamps that everybody refuses. Row 13."""

    async def scenario() -> Stamp:
        async with replica() as at, client(at) as caller, caller.stream(epoch=7) as stream:
            return snapshot(await stream.next()).stamp

    assert asyncio.run(scenario()) == Stamp(epoch=8, sequence=1)


@pytest.mark.parametrize(("seen", "answered"), [(1, (1, 1)), (2, (3, 1))])
def test_a_later_stamp_of_the_leaders_own_epoch_tells_it_that_its_books_were_restored(
    seen: int, answered: tuple[int, int]
) -> None:
    """They were copied before a leader of the same number gave it. The newest of our own is no such proof."""

    async def scenario() -> Stamp:
        async with (
            replica() as leader,
            replica(leads=False, leader=leader) as follower,
            client(follower) as caller,
            caller.stream(epoch=1, sequence=seen) as stream,
        ):
            return snapshot(await stream.next()).stamp

    stamp = asyncio.run(scenario())

    assert (stamp.epoch, stamp.sequence) == answered


def test_acknowledgements_show_who_obeys_what_and_who_refused_why() -> None:
    """For `Programmed`: the last word of each pod; a NACK keeps what the pod obeyed before."""

    async def scenario() -> tuple[dict[str, frozenset[str]], list[tuple[str, str, str]], dict[str, tuple[str, ...]]]:
        async with replica() as at, client(at) as caller, client(at, "other-token") as other:
            stamp = Stamp(epoch=1, sequence=1)
            for each in (caller, other):
                await each.post(PATH_ACK, Ack(nonce="n", digest="one", stamp=stamp))
            refusal = Ack(nonce="n", digest="two", stamp=stamp, error="upgrade the pod", missing_keys=("openai",))
            await caller.post(PATH_ACK, refusal)
            nacks = [(nack.pod, nack.digest, nack.error) for nack in at.hub.nacks().values()]
            return at.hub.programmed(), nacks, at.hub.missing_keys()

    programmed, nacks, missing = asyncio.run(scenario())

    assert programmed == {"one": frozenset({POD.uid, OTHER.uid})}
    assert nacks == [("team-a/support-1", "two", "upgrade the pod")]
    assert missing == {POD.uid: ("openai",)}


def test_of_an_acknowledgement_only_so_much_is_kept() -> None:
    """It ends up in a status, and a pod may write anything."""

    async def scenario() -> tuple[int, int, int]:
        async with replica() as at, client(at) as caller:
            keys = tuple("k" * 1000 for _ in range(100))
            ack = Ack(
                nonce="n", digest="d" * 1000, stamp=Stamp(epoch=1, sequence=1), error="e" * 9000, missing_keys=keys
            )
            await caller.post(PATH_ACK, ack)
            (nack,) = at.hub.nacks().values()
            return len(nack.digest), len(nack.error), sum(map(len, at.hub.missing_keys()[POD.uid]))

    assert asyncio.run(scenario()) == (64, 500, 32 * 253)


def test_a_pod_that_is_gone_is_forgotten() -> None:
    """It counts for no status any more."""

    async def scenario() -> dict[str, frozenset[str]]:
        async with replica() as at, client(at) as caller:
            await caller.post(PATH_ACK, Ack(nonce="n", digest="one", stamp=Stamp(epoch=1, sequence=1)))
            at.hub.keep_only({OTHER.uid})
            return at.hub.programmed()

    assert asyncio.run(scenario()) == {}


def test_shutting_down_sends_streams_away_with_a_hint() -> None:
    """Reconnect elsewhere after a moment, not all at once."""

    async def scenario() -> StreamEvent:
        async with client("http://unused") as caller:
            async with replica() as at:
                caller.url = at.url
                opened = caller.stream()
                stream = await opened.__aenter__()
                await stream.next()
            last = await stream.next()
            await opened.__aexit__(None, None, None)
            return last

    event = asyncio.run(scenario())

    assert isinstance(event, Drain)
    assert event.retry_in_ms > 0


def test_a_strange_query_gets_400() -> None:
    """It names the field."""

    async def scenario() -> tuple[int, bytes]:
        async with replica() as at, client(at) as caller:
            return await caller.get(PATH_STREAM + "?nonce=n&epoch=many")

    status, body = asyncio.run(scenario())

    assert status == 400
    assert b"epoch" in body
