"""`make sim-storm` in small: a quarter of the provider and of the pods, one seed, the same promises."""

from __future__ import annotations

import csv
from functools import cache
from io import StringIO

import pytest

from stormsim import campaign, promises, report
from stormsim.figures import Result, Run, play as play_anew
from stormsim.fleet import BIN_SECONDS, BINS, Line
from stormsim.provider import TRIGGER, FifoProvider
from stormsim.rows import ROWS, Row

BY_KEY = {row.key: row for row in ROWS}
SEED = 1
play = cache(play_anew)
"""Runs are the same whoever plays them."""


def result(line: Line, seed: int = SEED) -> Result:
    return Result(line, {seed: play(line, seed)})


def quarter(key: str, pods: int = 5) -> Line:
    """Pods as busy as 20 are at 80 calls a second."""
    return Line(BY_KEY[key], pods, offered=20, workers=25)


def tenth(key: str) -> Line:
    """The same with fewer pods and calls, for policies that send many tries."""
    return Line(BY_KEY[key], pods=2, offered=8, workers=10)


@pytest.mark.parametrize(
    "line",
    [
        tenth("naive"),
        tenth("stacked"),
        tenth("industry"),
        quarter("ours"),
        quarter("breaker"),
        quarter("breaker", pods=50),
        quarter("cluster"),
        quarter("cluster", pods=50),
        quarter("cluster + breaker"),
    ],
    ids=str,
)
def test_each_policy_does_in_a_storm_what_is_promised_of_it(line: Line) -> None:
    """At least one promise beside that of the budget is about each line; the whole table is `make sim-storm`."""
    assert any(promise.about(line) for promise in promises.PROMISES if not promise.says.startswith("ours makes"))
    assert promises.broken([result(line)]) == []


def test_the_breaker_that_denies_serves_in_the_first_minute_what_no_retries_do_not() -> None:
    denying, none = result(quarter("breaker")).mean, result(quarter("none")).mean
    assert denying.first_minute_rps >= 10 > none.first_minute_rps
    assert denying.wasted_usd * 3 <= none.wasted_usd


@pytest.mark.parametrize("key", ["ours", "breaker"])
def test_a_policy_that_behaves_like_another_breaks_its_promises(key: str) -> None:
    """The promises can fail: naive retries under the name of ours are told, with the seed."""
    naive = play(tenth("naive"), SEED)
    [told, *_] = promises.broken([Result(quarter(key), {SEED: naive})])
    assert told.startswith(f"{BY_KEY[key].name}, 5 pods, 20/s, seed 1: not true that ours")


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    line = tenth("breaker")
    first, again, other = play_anew(line, 3), play_anew(line, 3), play_anew(line, 4)
    assert first == again and first.counts != other.counts


def test_the_table_shows_the_mean_and_what_was_known_before() -> None:
    """A line that is never back with one of its seeds is never back."""
    back, stuck = play(quarter("breaker"), SEED), play(tenth("naive"), SEED)
    both = Result(Line(BY_KEY["ours"], 20, 80), {1: back, 2: stuck})
    cells = report.text([both]).splitlines()[-1].split(" | ")
    mean = (back.figures.late_rps + stuck.figures.late_rps) / 2
    assert cells[4] == f"{mean:.1f} (80.1)" and cells[-1] == "never |"


def test_data_and_plot_have_every_run() -> None:
    """What `--write` puts into docs/."""
    results = [result(tenth("none")), result(tenth("breaker"))]
    assert [row.split(",")[:4] for row in report.data(results).splitlines()[1:]] == [
        ["none", "2", "8", "1"],
        ["breaker", "2", "8", "1"],
    ]
    rates = list(csv.DictReader(StringIO(report.series(results))))
    assert len(rates) == 2 * BINS
    good = sum(float(row["good_rps"]) * BIN_SECONDS for row in rates if row["policy"] == "none")
    assert good == pytest.approx(sum(play(tenth("none"), SEED).counts.good), abs=1)
    assert report.plot(results, pods=2).count("<polyline") == 2


def test_a_campaign_plays_each_line_with_each_seed() -> None:
    """`make sim-storm`, in a process of its own."""
    line = tenth("none")
    [found] = campaign.run([line], [SEED, 2], 1, print)
    assert found == Result(line, {SEED: play(line, SEED), 2: play(line, 2)})


class Even:
    """Every call takes a second."""

    def expovariate(self, lambd: float) -> float:
        return 1 / lambd


@pytest.mark.parametrize(
    ("sent", "done"),
    [
        pytest.param([0.0] * 20, [1.0] * 10 + [2.0] * 10, id="ten at once, the others in their order"),
        pytest.param([60.0] * 4, [61.0, 61.0, 62.0, 62.0], id="a fifth of the workers in the trigger"),
        pytest.param([59.5] * 12, [60.5] * 10 + [61.5] * 2, id="what has begun is finished"),
        pytest.param([88.0] * 16, [89.0] * 2 + [90.0] * 2 + [91.0] * 10 + [92.0] * 2, id="all workers after it"),
    ],
)
def test_the_provider_serves_in_order_and_loses_four_fifths_of_its_workers(
    sent: list[float], done: list[float]
) -> None:
    provider = FifoProvider(Even(), workers=10)  # type: ignore[arg-type]
    assert TRIGGER == (60, 90)
    assert [provider.send(now) for now in sent] == done


def test_abandoned_work_is_executed_and_counted_as_wasted() -> None:
    """The provider bills what it does, also when nobody waits: capacity of the late minutes is all wasted."""
    run: Run = play(tenth("naive"), SEED)
    assert run.figures.late_wasted_rps == pytest.approx(10, rel=0.05)
    assert run.figures.wasted_usd == pytest.approx(0.01 * sum(run.counts.wasted[6:]))


def test_floors_of_many_pods_keep_an_outage_alive_and_a_shared_one_does_not() -> None:
    """Why there is scope Cluster."""
    each, shared = result(quarter("ours", pods=50)).mean, result(quarter("cluster", pods=50)).mean
    assert each.late_rps <= 1 and shared.late_rps >= 19


def test_a_client_that_stacks_multiplies_what_a_policy_allows() -> None:
    """Three tries of an SDK, each over all tries of a policy."""
    twice = Row("twice", "twice", BY_KEY["none"].spec, client_retries=1)
    line = Line(twice, 2, offered=8, workers=10)
    assert 1.5 <= play(line, SEED).figures.during_amplification <= 2
