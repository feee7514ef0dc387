"""Which fault rule acts on which request: decided by counters, a seed and a clock that is handed in."""

from __future__ import annotations

from typing import Any

import pytest

from spendmesh_standin import FaultPlan, FaultRule
from spendmesh_standin.faults import Seen

CHAT = Seen("small-1", "/v1/chat/completions", "default", "team-a", stream=False)
LIST = Seen("", "/v1/models", "default", "team-a", stream=False, free=True)


def acting(plan: FaultPlan, count: int, request: Seen = CHAT) -> list[bool]:
    return [plan.effects(request, now=0.0).has("status") for _ in range(count)]


def error(**more: Any) -> FaultRule:
    return FaultRule("status", status=500, **more)


def test_first_and_after_bound_how_often_a_rule_acts() -> None:
    assert acting(FaultPlan([error(first=2)]), 4) == [True, True, False, False]
    assert acting(FaultPlan([error(after=2)]), 4) == [False, False, True, True]
    assert acting(FaultPlan([error(after=1, first=1)]), 4) == [False, True, False, False]


@pytest.mark.parametrize(
    ("match", "acts"),
    [
        ({"model": "small-*"}, True),
        ({"model": "large-*"}, False),
        ({"path": "/v1/chat/*"}, True),
        ({"path": "/v1/models"}, False),
        ({"provider": "backup"}, False),
        ({"account": "team-a"}, True),
        ({"account": "team-b"}, False),
        ({"stream": False}, True),
        ({"stream": True}, False),
    ],
)
def test_a_rule_acts_on_what_it_names(match: Any, acts: bool) -> None:
    assert acting(FaultPlan([error(**match)]), 1) == [acts]


def test_free_operations_are_left_alone_unless_their_path_is_named() -> None:
    assert acting(FaultPlan([error()]), 1, LIST) == [False]
    assert acting(FaultPlan([error(path="/v1/models*")]), 1, LIST) == [True]


def test_a_rule_acts_only_between_its_times() -> None:
    plan = FaultPlan([error(between=(1.0, 2.0))], now=100.0)
    assert [plan.effects(CHAT, now).has("status") for now in (100.5, 101.0, 101.9, 102.0)] == [False, True, True, False]


def test_chance_is_the_same_for_the_same_seed_and_near_its_rate() -> None:
    once, again, other = (acting(FaultPlan([error(probability=0.3)], seed=seed), 1000) for seed in (1, 1, 2))
    assert once == again != other
    assert 250 < sum(once) < 350
    assert acting(FaultPlan([error(probability=0.0)]), 50) == [False] * 50


def test_the_first_answer_that_replaces_the_model_wins_and_the_others_do_not_count() -> None:
    plan = FaultPlan([error(first=1), FaultRule("reset"), FaultRule("no_usage")])
    first, second = plan.effects(CHAT, 0.0), plan.effects(CHAT, 0.0)
    assert (first.has("status"), first.has("reset"), first.has("no_usage")) == (True, False, True)
    assert (second.has("status"), second.has("reset")) == (False, True)
    assert [count["applied"] for count in plan.counts()] == [1, 1, 2]
    assert [count["seen"] for count in plan.counts()] == [2, 2, 2]


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ({"rule": []}, "rule: no such field"),
        (5, "plan"),
        ([5], r"rules\[0\]"),
        ([{"status": 500}], "action: missing"),
        ([{"action": "explode"}], "explode"),
        ([{"action": "status"}], "status: the action status needs it"),
        ([{"action": "reset"}, {"action": "reset", "tokens": 5}], r"rules\[1\].tokens"),
        ([{"action": "status", "status": 500, "colour": "red"}], "colour"),
        ([{"action": "status", "status": 500, "bill": "half"}], "bill"),
        ([{"action": "status", "status": 500, "probability": 2}], "probability"),
        ([{"action": "framing", "styles": ["morse"]}], "morse"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused_by_name(data: Any, names: str) -> None:
    with pytest.raises((ValueError, TypeError), match=names):
        FaultPlan.parse(data, now=0.0)


def test_a_plan_is_read_from_json() -> None:
    data = {
        "seed": 7,
        "rules": [
            {"action": "status", "status": 429, "retry_after": 2, "between": [0, 60]},
            {"action": "framing", "styles": "crlf"},
        ],
    }
    plan = FaultPlan.parse(data, now=0.0)
    assert plan.rules == (
        FaultRule("status", status=429, retry_after=2, between=(0, 60)),
        FaultRule("framing", styles=("crlf",)),
    )


def test_a_bad_plan_leaves_the_active_one_in_force(stage: Any) -> None:
    stage.faults(error())
    refused = stage.raw("POST", "/_standin/faults", [{"action": "explode"}], {})
    assert refused.status == 400 and "explode" in refused.json()["error"]
    body = {"model": "small-1", "messages": [{"role": "user", "content": "x"}]}
    assert stage.raw("POST", "/v1/chat/completions", body).status == 500
    assert stage.raw("POST", "/_standin/faults", [], {}).json() == {"rules": 0}
    assert stage.raw("POST", "/v1/chat/completions", body).status == 200
