"""What a sidecar tells the control server of what only it sees: when, how often, and nothing while there is nothing."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import openai
import pytest

from sidecar_beside import chat, eventually
from sidecar_manifests import retries
from sidecar_world import POD, World
from spendmesh_operator.local import LocalPod
from spendmesh_sidecar.control.client import ControlUnavailable
from spendmesh_sidecar.control.observer import AGAIN_SECONDS, REPAIR_SECONDS, Observer
from spendmesh_sidecar.core.failures.client_retries import ClientRetries
from spendmesh_sidecar.protocol import PATH_OBSERVATIONS, Ejection, Observations, SpentAccount
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio

SPENT = Observations(unpaid=(SpentAccount(provider="openai", code="insufficient_quota"),))


class Plane:
    """What an observer reads of a data plane, as a test wants it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.accounts: dict[str, str] = {}
        self.clock = SimpleNamespace(monotonic=lambda: self.now)
        self.client_retries = ClientRetries()
        self.ejected: dict[tuple[str, int], float] = {}

    def ejections(self, now: float) -> dict[tuple[str, int], float]:
        return self.ejected

    def unpaid_accounts(self) -> dict[str, str]:
        return self.accounts


class Control:
    """A control server's client that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Observations] = []
        self.away = False

    async def observe(self, said: Observations) -> None:
        if self.away:
            raise ControlUnavailable("away")
        self.told.append(said)


@pytest.fixture
def plane() -> Any:
    return Plane()


@pytest.fixture
def control() -> Any:
    return Control()


@pytest.fixture
def observer(plane: Any, control: Any) -> Observer:
    return Observer(plane, control, Random(1))


async def test_nothing_is_sent_while_there_is_nothing_to_say(observer: Observer, plane: Any, control: Any) -> None:
    for plane.now in range(1000):
        await observer.look()
    assert control.told == []


async def test_a_trouble_is_said_at_once_and_its_end_too(observer: Observer, plane: Any, control: Any) -> None:
    for accounts in ({"openai": "insufficient_quota", "backup": ""}, {"openai": ""}):
        plane.accounts = accounts
        for _ in range(5):
            plane.now += 1.0
            await observer.look()
    assert control.told == [SPENT, Observations()]


async def test_a_trouble_that_stays_is_said_again_every_minute(observer: Observer, plane: Any, control: Any) -> None:
    """So that a new leader hears it."""
    plane.accounts = {"openai": "insufficient_quota"}
    for plane.now in range(int(10 * AGAIN_SECONDS)):
        await observer.look()
    assert set(control.told) == {SPENT}
    assert 10 <= len(control.told) <= 13


async def test_what_was_not_heard_is_said_again_soon(observer: Observer, plane: Any, control: Any) -> None:
    plane.accounts, control.away = {"openai": "insufficient_quota"}, True
    await observer.look()
    control.away = False
    await observer.look()
    assert control.told == [], "not at once: the control server may be busy"
    plane.now += REPAIR_SECONDS
    await observer.look()
    assert control.told == [SPENT]


async def test_clients_that_retry_are_said_by_how_they_do_it(observer: Observer, plane: Any, control: Any) -> None:
    plane.client_retries.seen("unmarked", 0.0)
    await observer.look()
    assert control.told == [Observations(client_retries=("unmarked",))]


async def test_an_ejection_is_said_once_and_the_next_one_again(observer: Observer, plane: Any, control: Any) -> None:
    """Its end is no news: it runs out by itself."""
    for plane.ejected in ({("openai/m", 2): 5.0}, {("openai/m", 2): 4.0}, {}, {("openai/m", 4): 10.0}):
        plane.now += 1.0
        await observer.look()
    assert control.told == [
        Observations(ejected=(Ejection(target="openai/m", reopens_in_ms=5000),)),
        Observations(ejected=(Ejection(target="openai/m", reopens_in_ms=10_000),)),
    ]


# --- the whole way ----------------------------------------------------------------------------------------


async def test_an_account_out_of_money_reaches_the_leader_and_so_does_its_recovery(empty_world: World) -> None:
    world = await empty_world.start(retries(retry={"unpaidProbeInterval": "1s"}))
    world.standin.faults(FaultRule("status", status=429, code="insufficient_quota", type="insufficient_quota"))
    with pytest.raises(openai.RateLimitError):
        await world.openai.chat.completions.create(**chat())

    def unpaid() -> dict[str, dict[str, str]]:
        troubles = world.control.hub.sightings.troubles(world.sidecar.plane.clock.monotonic())
        return {ref: dict(pods) for ref, pods in troubles.unpaid.items()}

    await eventually(lambda: unpaid() == {"team-a/openai": {POD.identity.uid: "insufficient_quota"}})
    world.standin.faults()

    async def served() -> bool:
        try:
            await world.openai.chat.completions.create(**chat())
        except openai.InternalServerError:
            return False
        return True

    await eventually(served, "no call asked the account again")
    await eventually(lambda: unpaid() == {})


async def test_a_loop_around_an_sdk_reaches_the_leader(empty_world: World) -> None:
    world = await empty_world.start(retries(attempts=0, failures=0))
    world.standin.faults(FaultRule("status", status=500))
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            await world.openai.chat.completions.create(**chat())
    assert await world.total("spendmesh_client_retries_total", outcome="unmarked") == 1
    sightings = world.control.hub.sightings
    now = world.sidecar.plane.clock.monotonic()
    await eventually(lambda: sightings.troubles(now).client_retries == {POD.identity.uid: ("unmarked",)})


async def test_an_sdk_that_retries_is_seen(world: World) -> None:
    headers = {"x-stainless-retry-count": "1"}
    async with world.http.post(f"{world.url}/openai/v1/chat/completions", json=chat(), headers=headers) as answer:
        await answer.read()
    plane = world.sidecar.plane
    await eventually(lambda: plane.client_retries.standing(plane.clock.monotonic()) == ("marked",))


async def test_another_pod_s_ejection_makes_failures_count_sooner_and_ejects_nothing(empty_world: World) -> None:
    """Two targets are hinted: the one that answers stays through a failure, the other is ejected by its first one."""
    breaker = {"consecutive5xxErrors": 5, "baseEjectionTime": "30m", "maxEjectionTime": "1h"}
    world = await empty_world.start(retries(attempts=0, circuitBreaker=breaker))
    other = LocalPod(POD.namespace, "app-2", token="token-of-another")
    await world.control.admit(other)
    for _ in range(3):
        await world.openai.chat.completions.create(**chat())
    tried, untried = "openai/medium-1", "openai/large-1"
    said = Observations(ejected=tuple(Ejection(target=key, reopens_in_ms=300_000) for key in (tried, untried)))
    async with world.http.post(
        world.control_url + PATH_OBSERVATIONS,
        data=msgspec.json.encode(said),
        headers={"authorization": f"Bearer {other.token}"},
    ) as answer:
        assert answer.status == 204

    async def hinted() -> bool:
        return await world.total("spendmesh_breaker_hinted") == 2

    await eventually(hinted, "the hints do not arrive")
    assert set((await world.status())["breakers"].values()) == {"serving"}
    world.standin.faults(FaultRule("status", status=503))
    for model in ("spendmesh/standard", "spendmesh/premium"):
        with pytest.raises(openai.InternalServerError):
            await world.openai.chat.completions.create(**chat(model=model))
    breakers = (await world.status())["breakers"]
    assert breakers[tried] == "serving", "one failure of four calls"
    assert await world.total("spendmesh_breaker_ejections_total", target=untried) == 1
