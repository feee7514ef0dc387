"""What sidecars say that only they see: what is kept of it, for how long, and as which conditions people read it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from compile_samples import Raw, compiled, pod, policy_of, provider, retries, routing, section
from spendmesh_operator.compile import Compiled
from spendmesh_operator.control.sightings import KEPT_SECONDS, NO_TROUBLES, Sightings, Troubles
from spendmesh_operator.index import ObjectKey
from spendmesh_operator.manifests.conditions import Status
from spendmesh_operator.status import Programmed, events, status_of
from spendmesh_sidecar.protocol import MAX_OBSERVED, Ejection, Observations, SpentAccount

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
OBJECTS: tuple[Raw, ...] = (pod(), pod("web-2"), provider(), routing(), retries())
RESULT = compiled(*OBJECTS)
POLICY = policy_of(RESULT)
(FIRST, SECOND) = sorted(
    uid for uids in RESULT.verdicts[ObjectKey("RetryBudget", "team-a", "retry")].effective.values() for uid in uids
)


def unpaid(code: str = "insufficient_quota", alias: str = "openai") -> Observations:
    return Observations(unpaid=(SpentAccount(provider=alias, code=code),))


def heard(*words: tuple[str, Observations]) -> Sightings:
    sightings = Sightings()
    for uid, said in words:
        sightings.hear(uid, POLICY, said, 0.0)
    return sightings


# --- what is kept -----------------------------------------------------------------------------------------


def test_an_account_is_known_by_its_modelprovider_whatever_the_policy_calls_it() -> None:
    troubles = heard((FIRST, unpaid()), (SECOND, unpaid("billing_error"))).troubles(1.0)
    assert troubles.unpaid == {"team-a/openai": {FIRST: "insufficient_quota", SECOND: "billing_error"}}


@pytest.mark.parametrize("code", ["", "x" * 65, "Your key sk-123 is spent!", "a\nb"])
def test_what_is_no_code_is_not_repeated_to_people(code: str) -> None:
    """A pod may write anything."""
    assert heard((FIRST, unpaid(code))).troubles(1.0).unpaid == {"team-a/openai": {FIRST: "unpaid"}}


def test_what_the_pod_s_policy_does_not_have_is_dropped() -> None:
    many = Observations(unpaid=tuple(SpentAccount(provider=f"p{n}", code="c") for n in range(MAX_OBSERVED * 2)))
    odd = Observations(client_retries=("marked", "haunted"))
    assert heard((FIRST, unpaid(alias="another")), (SECOND, many)).troubles(1.0) == NO_TROUBLES
    assert heard((FIRST, odd)).troubles(1.0).client_retries == {FIRST: ("marked",)}


def test_the_last_word_counts_and_an_empty_one_takes_it_back() -> None:
    sightings = Sightings()
    news = [sightings.hear(FIRST, POLICY, said, 0.0) for said in (unpaid(), unpaid(), Observations(), Observations())]
    assert news == [True, False, True, False]
    assert sightings.troubles(1.0) == NO_TROUBLES


def test_what_is_not_said_again_is_forgotten() -> None:
    """Two of three repetitions may be lost."""
    sightings = heard((FIRST, unpaid()))
    assert sightings.troubles(KEPT_SECONDS - 0.1) != NO_TROUBLES
    assert sightings.troubles(KEPT_SECONDS) == NO_TROUBLES


def test_what_a_pod_said_goes_with_the_pod() -> None:
    sightings = heard((FIRST, unpaid()), (SECOND, unpaid()))
    sightings.keep_only([SECOND])
    assert set(sightings.troubles(1.0).unpaid["team-a/openai"]) == {SECOND}


# --- hints ------------------------------------------------------------------------------------------------


def ejection(seconds: float = 5.0, target: str = "openai/gpt-5-mini") -> Observations:
    return Observations(ejected=(Ejection(target=target, reopens_in_ms=int(seconds * 1000)),))


def test_an_ejection_is_told_to_others_with_the_time_that_is_left_and_then_forgotten() -> None:
    sightings = heard((FIRST, ejection(5.0)))
    (hint,) = sightings.hints(SECOND, POLICY, 2.0)
    assert (hint.target, hint.reopens_in_ms) == ("openai/gpt-5-mini", 3000)
    assert sightings.hints(FIRST, POLICY, 2.0) == (), "it is the only one that says so"
    assert sightings.hints(SECOND, POLICY, 5.0) == ()
    assert not sightings.ejected, "reports cost nothing again"


def test_the_pod_that_ejects_longest_hears_of_the_second_one() -> None:
    sightings = heard((FIRST, ejection(9.0)), (SECOND, ejection(5.0)), ("third", ejection(1.0)))
    told = {uid: sightings.hints(uid, POLICY, 0.0)[0].reopens_in_ms for uid in (FIRST, SECOND, "third")}
    assert told == {FIRST: 5000, SECOND: 9000, "third": 9000}


def test_policies_with_other_names_for_a_target_hear_their_own() -> None:
    """A target is a ModelProvider and a model; what a policy calls the provider is its own business."""
    renamed = compiled(pod(), provider(), routing(**section("ours", to="openai")))
    sightings = heard((FIRST, ejection()))
    assert [hint.target for hint in sightings.hints(SECOND, policy_of(renamed), 0.0)] == ["ours/gpt-5-mini"]
    elsewhere = compiled(pod(), provider("other"), routing(**section("openai", to="other")))
    assert sightings.hints(SECOND, policy_of(elsewhere), 0.0) == ()


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (ejection(target="openai/another"), None),
        (ejection(target="nobody/gpt-5-mini"), None),
        (ejection(target="odd"), None),
        (ejection(0.0), None),
        (ejection(-1.0), None),
        (ejection(10.0**9), POLICY.retry.breaker.max_ejection_ms),
    ],
    ids=["model", "provider", "no target", "over", "negative", "huge"],
)
def test_an_ejection_is_believed_within_the_pod_s_own_policy(said: Observations, left: int | None) -> None:
    hints = heard((FIRST, said)).hints(SECOND, POLICY, 0.0)
    assert [hint.reopens_in_ms for hint in hints] == ([] if left is None else [left])


def test_an_ejection_takes_back_no_trouble_and_is_none() -> None:
    sightings = heard((FIRST, ejection()))
    assert sightings.troubles(1.0) == NO_TROUBLES


# --- what people read -------------------------------------------------------------------------------------


def status(
    kind: str, name: str, troubles: Troubles, *, old: Any = None, heard_all: bool = True, of: Compiled = RESULT
) -> dict[str, Any]:
    verdict = of.verdicts[ObjectKey(kind, "team-a", name)]
    done = Programmed(1, "True", "Programmed", "m")
    made = status_of(verdict, done, limits=None, old=old or {}, now=NOW, troubles=troubles, heard_all=heard_all)
    assert Status.model_validate(made).conditions is not None
    return made


def condition(made: dict[str, Any], type_: str) -> dict[str, Any]:
    return next(each for each in made["conditions"] if each["type"] == type_)


def drafts(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str]]:
    return [(draft.type, draft.reason) for draft in events(old, new)]


def test_an_account_out_of_money_is_a_condition_of_its_modelprovider_and_an_event_on_each_change() -> None:
    spent = heard((FIRST, unpaid())).troubles(1.0)
    good = status("ModelProvider", "openai", NO_TROUBLES)
    bad = status("ModelProvider", "openai", spent, old=good)
    again = status("ModelProvider", "openai", spent, old=bad)
    cured = status("ModelProvider", "openai", NO_TROUBLES, old=again)
    assert (condition(good, "Funded")["status"], condition(good, "Funded")["reason"]) == ("True", "Funded")
    assert (condition(bad, "Funded")["status"], condition(bad, "Funded")["reason"]) == ("False", "SpendLimitReached")
    for word in ("insufficient_quota", "Deployment/web", "top the account up"):
        assert word in condition(bad, "Funded")["message"]
    assert drafts({}, good) == []
    assert drafts(good, bad) == [("Warning", "SpendLimitReached")]
    assert drafts(bad, again) == []
    assert drafts(again, cured) == [("Normal", "Funded")]


@pytest.mark.parametrize(
    ("how", "fix"), [(("marked",), "max_retries=0"), (("unmarked",), "num_retries=0")], ids=["marked", "unmarked"]
)
def test_clients_that_retry_too_are_a_condition_of_the_retrybudget_with_what_to_do(
    how: tuple[str, ...], fix: str
) -> None:
    stacking = heard((SECOND, Observations(client_retries=how))).troubles(1.0)
    good = status("RetryBudget", "retry", NO_TROUBLES)
    bad = status("RetryBudget", "retry", stacking, old=good)
    found = condition(bad, "SoleRetrier")
    assert (found["status"], found["reason"]) == ("False", "ClientsRetry")
    assert "Deployment/web" in found["message"] and fix in found["message"]
    assert drafts(good, bad) == [("Warning", "ClientsRetry")]
    assert drafts(bad, status("RetryBudget", "retry", NO_TROUBLES, old=bad)) == [("Normal", "SoleRetrier")]


def test_pods_that_the_object_is_not_in_force_on_do_not_concern_it() -> None:
    troubles = Troubles({"team-b/openai": {"x": "c"}}, {"x": ("marked",)})
    assert condition(status("ModelProvider", "openai", troubles), "Funded")["status"] == "True"
    assert condition(status("RetryBudget", "retry", troubles), "SoleRetrier")["status"] == "True"


def test_a_new_leader_takes_nothing_back_before_it_has_heard_all() -> None:
    """It begins without a word; what it hears counts at once."""
    spent = heard((FIRST, unpaid())).troubles(1.0)
    bad = status("ModelProvider", "openai", spent)
    early = status("ModelProvider", "openai", NO_TROUBLES, old=bad, heard_all=False)
    assert condition(early, "Funded") == condition(bad, "Funded")
    assert drafts(bad, early) == []
    good = status("ModelProvider", "openai", NO_TROUBLES)
    assert condition(status("ModelProvider", "openai", spent, old=good, heard_all=False), "Funded")["status"] == "False"


def test_other_kinds_have_no_such_condition() -> None:
    types = {each["type"] for each in status("RoutingPolicy", "route", NO_TROUBLES)["conditions"]}
    assert not types & {"Funded", "SoleRetrier"}
