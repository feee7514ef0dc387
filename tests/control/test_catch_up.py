"""A new pod's policy is what was applied before it: `spendmesh_operator.kube.catch_up`, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine

import looptime
import pytest

from spendmesh_operator.kube.catch_up import PATIENCE_SECONDS, SPACING_SECONDS, CatchUp
from spendmesh_operator.kube.client import KubeUnavailable


class Reads:
    """Says when each read began and of what; a read takes `seconds`."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.began: list[tuple[float, set[str]]] = []
        self._seconds = seconds
        self._error = error

    async def __call__(self, namespaces: Collection[str]) -> None:
        self.began.append((now(), set(namespaces)))
        await asyncio.sleep(self._seconds)
        if self._error is not None:
            raise self._error


def now() -> float:
    return asyncio.get_running_loop().time()


def catching_up(reads: Reads) -> CatchUp:
    return CatchUp(reads, now)


def played(story: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(story)


async def called(catch_up: CatchUp, namespace: str, at: float) -> float:
    """Calls at a moment; when the call came back."""
    await asyncio.sleep(at - now())
    await catch_up(namespace)
    return now()


def test_the_first_pod_waits_for_one_read_only() -> None:
    async def story() -> None:
        reads = Reads(seconds=0.01)
        assert await called(catching_up(reads), "a", at=5.0) == pytest.approx(5.01)
        assert reads.began == [(5.0, {"a"})]

    played(story())


def test_pods_that_come_together_share_a_read() -> None:
    """And one that comes while a read runs gets the next: the running one may not see what came before the pod."""

    async def story() -> None:
        reads = Reads(seconds=0.5)
        catch_up = catching_up(reads)
        ends = await asyncio.gather(
            called(catch_up, "a", 0.0),
            called(catch_up, "b", 0.0),
            called(catch_up, "a", 0.1),
            called(catch_up, "c", 0.4),
        )
        assert reads.began == [(0.0, {"a", "b"}), (0.5, {"a", "c"})]
        assert ends == [0.5, 0.5, 1.0, 1.0]

    played(story())


def test_a_roll_out_costs_a_bounded_number_of_reads() -> None:
    async def story() -> None:
        reads = Reads()
        catch_up = catching_up(reads)
        await asyncio.gather(*(called(catch_up, "a", number / 1000) for number in range(1000)))
        apart = [later - earlier for (earlier, _), (later, _) in zip(reads.began, reads.began[1:], strict=False)]
        assert len(reads.began) > 1 and min(apart) >= SPACING_SECONDS * 0.999

    played(story())


@pytest.mark.parametrize(
    "error", [KubeUnavailable(503, "", "away"), ExceptionGroup("both", [KubeUnavailable(503, "", "away")])]
)
def test_an_api_server_that_cannot_be_read_stops_no_pod(error: Exception) -> None:
    """Nor does the next pod go without a read."""

    async def story() -> None:
        reads = Reads(error=error)
        catch_up = catching_up(reads)
        assert await called(catch_up, "a", 0.0) == 0.0
        await called(catch_up, "a", 1.0)
        assert len(reads.began) == 2

    played(story())


def test_an_api_server_that_hangs_holds_no_pod_for_longer_than_stated() -> None:
    """Not the one that came first, and not those that wait behind its read."""

    async def story() -> None:
        catch_up = catching_up(Reads(seconds=60))
        ends = await asyncio.gather(called(catch_up, "a", 0.0), called(catch_up, "b", 1.0))
        assert ends == [pytest.approx(PATIENCE_SECONDS), pytest.approx(1 + PATIENCE_SECONDS)]

    played(story())
