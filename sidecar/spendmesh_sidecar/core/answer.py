"""
What the client and the records are told: the decision in the contract's words, our headers, and a refusal where the
provider gave no answer.

Words only; nothing is decided or booked here.
"""

from __future__ import annotations

from spendmesh_sidecar.core.admission import Plan
from spendmesh_sidecar.core.attempts import Attempts
from spendmesh_sidecar.core.failures.retry_rules import UNPAID_FOR
from spendmesh_sidecar.core.policy_view import PolicyView
from spendmesh_sidecar.core.prices.money import format_nanos
from spendmesh_sidecar.core.refusals import refuse, retries_unpaid, unwritable
from spendmesh_sidecar.core.specs import ProviderSpec
from spendmesh_sidecar.core.types import Decision, Kind, Outcome, Refusal, Settlement

KEY_RETRY_SECONDS = 60.0
"""The kubelet brings a changed Secret within a minute or two."""


def decide(
    policy: PolicyView, plan: Plan | None, tries: Attempts | None, settlements: tuple[Settlement, ...]
) -> Decision:
    """The decision as far as it has been made."""
    routing = policy.routing or policy.observed_routing
    if plan is None or tries is None:
        return Decision(policy=routing.name if routing else "", settlements=settlements)
    route, last = plan.route, tries.last
    reason = f"clamp:{last.clamped_by}" if last is not None and last.clamped_by else route.reason
    failover = last is not None and last is not plan.targets[0]
    return Decision(
        policy=route.policy,
        tier=route.tier,
        reason="failover" if failover else reason,
        model=last.candidate.key if last else "",
        attempts=tries.number,
        settlements=settlements,
    )


def no_answer(outcome: Outcome, tries: Attempts) -> Refusal | None:
    """Our answer for an attempt that brought none to pass on; None: there is one."""
    if outcome.committed or outcome.kind in (Kind.SUCCESS, Kind.CLIENT_GONE) or tries.last is None:
        return None
    if tries.denied in UNPAID_FOR and tries.spec.on_exhausted == "ServiceUnavailable":
        return retries_unpaid(outcome, tries.last.candidate.key, tries.spec)
    target = tries.last.candidate.key
    attempts = f"{tries.number} attempt{'s' if tries.number != 1 else ''}"
    unanswered = not outcome.complete and (outcome.status is None or outcome.status < 400)
    if outcome.kind is Kind.TIMEOUT and (outcome.broken or unanswered):
        return refuse("attempt_timeout", f"Target {target} did not answer in time ({attempts}).")
    if outcome.kind is Kind.UNWRITTEN:
        return unwritable("it did not reach the disk")
    if outcome.kind is Kind.KEY_MISSING:
        return _no_key(tries.last.candidate.provider)
    if outcome.kind in (Kind.CONNECT, Kind.CUT):
        what = (
            "cannot be reached" if outcome.kind is Kind.CONNECT else "broke the connection before its answer was whole"
        )
        return refuse("target_unavailable", f"Target {target} {what} ({attempts}).", retry_after_seconds=1.0)
    return None


def _no_key(provider: ProviderSpec) -> Refusal:
    secret, _, item = provider.secret.partition("/")
    place = f"item {item!r} of Secret {secret!r} in the pod's namespace" if item else "the Secret that its auth names"
    return refuse(
        "target_unavailable",
        f"This pod has no usable key for ModelProvider {provider.ref}: put one into {place}; a Secret that came after "
        "the pod needs a restart of the pod.",
        retry_after_seconds=KEY_RETRY_SECONDS,
    )


def response_headers(
    request_id: str, decision: Decision, refusal: Refusal | None, left: str, retry_denied: str = "", *, final: bool
) -> list[tuple[str, str]]:
    """`x-spendmesh-*` of contract §2; what is not known is left out."""
    headers = (
        ("x-spendmesh-request-id", request_id),
        ("x-spendmesh-policy", decision.policy),
        ("x-spendmesh-tier", decision.tier),
        ("x-spendmesh-model", decision.model),
        ("x-spendmesh-reason", decision.reason),
        ("x-spendmesh-attempts", str(decision.attempts)),
        ("x-spendmesh-cost", _cost(decision.settlements) if final else ""),
        ("x-spendmesh-budget-remaining", left),
        ("x-spendmesh-error", refusal.code if refusal else ""),
        ("x-spendmesh-retry-denied", retry_denied),
    )
    return [header for header in headers if header[1]]


def _cost(settlements: tuple[Settlement, ...]) -> str:
    """The sum over all attempts; one figure for each currency, none for calls without a price."""
    if len(settlements) == 1:
        one = settlements[0]
        return format_nanos(one.cost_nanos, one.currency) if one.currency else ""
    sums: dict[str, int] = {}
    for one in settlements:
        if one.currency:
            sums[one.currency] = sums.get(one.currency, 0) + one.cost_nanos
    return ", ".join(format_nanos(nanos, currency) for currency, nanos in sorted(sums.items()))
