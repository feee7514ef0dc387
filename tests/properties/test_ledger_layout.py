"""Laws of how sections are spread over objects: wherever a commit stops, nothing that counts is missing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, strategies as st

from spendmesh_operator.kube.ledger_layout import RAISE_AFTER, SPLIT_BYTES, Layout, Plan, Section, Shard, arrange, plan
from spendmesh_operator.ledger.stores.base import Commit

NAMES = [f"s{number}" for number in range(6)]
KILOBYTES = st.sampled_from([0, 1, 40, 90, 130])
CHANGES = st.tuples(
    st.dictionaries(st.sampled_from(NAMES), KILOBYTES, max_size=4),
    st.frozensets(st.sampled_from(NAMES), max_size=2),
    st.booleans(),
)
HISTORIES = st.lists(CHANGES, min_size=1, max_size=12)

Contents = Mapping[str, int]
"""What each section says: the number of the commit that put it."""


class Objects:
    """What an API server would hold."""

    def __init__(self) -> None:
        self.epoch = 0
        self.lowest: Mapping[int, int] = {}
        self.shards: dict[int, Shard] = {}

    def stages(self, planned: Plan, epoch: int) -> list[Objects]:
        """The objects after each write of a plan, in its order."""
        steps: list[Objects] = []
        now = self
        for number, shard in planned.first.items():
            now = now._with(shards={**now.shards, number: shard})
            steps.append(now)
        if planned.index is not None:
            now = now._with(lowest=planned.index, epoch=epoch)
            steps.append(now)
        for number, shard in planned.last.items():
            now = now._with(shards={**now.shards, number: shard})
            steps.append(now)
        for number in planned.removed:
            now = now._with(shards={other: shard for other, shard in now.shards.items() if other != number})
            steps.append(now)
        return steps

    def _with(self, **changes: object) -> Objects:
        copy = Objects()
        copy.__dict__.update({**self.__dict__, **changes})
        return copy

    def read(self) -> Layout:
        """As the store reads them: what the index names, each part there and new enough."""
        for number, lowest in self.lowest.items():
            assert self.shards[number].version >= lowest
        return arrange(self.epoch, self.lowest, {number: self.shards[number] for number in self.lowest})


def contents(layout: Layout) -> dict[str, int]:
    return {name: section.document["n"] for name, section in layout.sections.items()}


def commits(history: list[tuple[dict[str, int], frozenset[str], bool]]) -> list[Commit]:
    made, epoch = [], 1
    for number, (sizes, drop, raises) in enumerate(history):
        epoch += raises
        put = {name: {"n": number, "text": "x" * (kilobytes * 1024)} for name, kilobytes in sizes.items()}
        made.append(Commit(str(number), epoch, "", put, drop - put.keys()))
    return made


@given(HISTORIES)
def test_after_each_commit_the_objects_hold_exactly_its_sections(
    history: list[tuple[dict[str, int], frozenset[str], bool]],
) -> None:
    """Put, replaced, moved and dropped: as one document would."""
    objects, wanted = Objects(), {}
    for commit in commits(history):
        planned = plan(objects.read(), commit)
        objects = (objects.stages(planned, commit.epoch) or [objects])[-1]
        wanted = {name: n for name, n in wanted.items() if name not in commit.drop}
        wanted |= {name: document["n"] for name, document in commit.put.items()}
        found = objects.read()
        assert contents(found) == wanted == contents(planned.after)
        assert not found.stale
        assert planned.after == found


@given(HISTORIES)
def test_wherever_a_commit_stops_each_section_is_the_old_or_the_new_one(
    history: list[tuple[dict[str, int], frozenset[str], bool]],
) -> None:
    """Nothing is missing but what is dropped, and that only after all that is put is there."""
    objects = Objects()
    for commit in commits(history):
        before = contents(objects.read())
        stages = objects.stages(plan(objects.read(), commit), commit.epoch)
        for stage in stages:
            found = contents(stage.read())
            for name, old in before.items():
                new = commit.put[name]["n"] if name in commit.put else old
                assert name in commit.drop or found[name] in (old, new)
            if before.keys() - found.keys():
                assert {name: document["n"] for name, document in commit.put.items()}.items() <= found.items()
        objects = stages[-1] if stages else objects


@given(HISTORIES, st.data())
def test_a_history_of_commits_that_stop_loses_nothing(
    history: list[tuple[dict[str, int], frozenset[str], bool]], data: st.DataObject
) -> None:
    """What is read after a stop is the start of the next commit, and copies that were left behind never win."""
    objects = Objects()
    for commit in commits(history):
        before = contents(objects.read())
        stages = objects.stages(plan(objects.read(), commit), commit.epoch)
        if stages:
            objects = stages[data.draw(st.integers(0, len(stages) - 1))]
        found = contents(objects.read())
        newest = before | {name: document["n"] for name, document in commit.put.items()}
        assert all(found[name] in (before[name], newest[name]) for name in before.keys() - commit.drop)


@given(HISTORIES)
def test_objects_stay_small_and_the_index_close_behind(
    history: list[tuple[dict[str, int], frozenset[str], bool]],
) -> None:
    """A section that is alone may be as large as it is; others move away from it."""
    layout = Layout()
    for commit in commits(history):
        layout = plan(layout, commit).after
        for number, shard in layout.shards.items():
            assert shard.size_bytes <= SPLIT_BYTES or len(shard.sections) == 1
            assert shard.version - layout.lowest[number] <= RAISE_AFTER


@given(HISTORIES)
def test_a_newer_epoch_writes_every_object(history: list[tuple[dict[str, int], frozenset[str], bool]]) -> None:
    """So that a writer of an older one finds no version that it knows."""
    layout = Layout()
    for commit in commits(history):
        planned = plan(layout, commit)
        if commit.epoch > layout.epoch:
            assert layout.shards.keys() <= planned.first.keys() and planned.index is not None
        layout = planned.after


@pytest.mark.parametrize("newer", [0, 1])
def test_of_a_section_that_is_found_twice_the_higher_version_counts(newer: int) -> None:
    """Whichever object it is in; the other copy is taken out by the next write of its object."""
    old, new = Section(3, {"n": "old"}, 9), Section(4, {"n": "new"}, 9)
    found = {newer: Shard(4, {"s": new}), 1 - newer: Shard(9, {"s": old, "beside": old})}

    layout = arrange(1, {0: 1, 1: 1}, found)
    planned = plan(layout, Commit("c", 1, "", {"other": {}}))

    assert (layout.sections["s"], layout.stale) == (new, {1 - newer})
    assert "s" not in planned.first[1 - newer].sections


def test_the_index_is_told_the_versions_of_its_objects_once_in_a_while() -> None:
    """Rarely enough to cost nothing, and never further behind than it says."""
    layout, told = Layout(), 0
    for number in range(10 * RAISE_AFTER):
        planned = plan(layout, Commit(str(number), 1, "", {"s": {"n": number}}))
        told += planned.index is not None
        layout = planned.after
        assert layout.shards[0].version - layout.lowest[0] <= RAISE_AFTER

    assert told == 10
