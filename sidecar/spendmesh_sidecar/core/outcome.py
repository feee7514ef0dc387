"""
How an attempt ended and what it is billed, by the tables of classes (`error_classes`) and of charges (`billing`).

Classification reads a provider's answer; charging decides between nothing, the reported usage and the worst case.
Retries are the exchange's business. What providers document is thin: what no row says is charged at worst.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from spendmesh_sidecar.core.billing import CHARGES, Charge, ChargeRule
from spendmesh_sidecar.core.failures.error_body import read_error
from spendmesh_sidecar.core.failures.error_classes import INSIDE, error_class
from spendmesh_sidecar.core.failures.hints import Headers, waiting_hint
from spendmesh_sidecar.core.prices.costs import worst_tokens
from spendmesh_sidecar.core.specs import Dialect, ModelPrice
from spendmesh_sidecar.core.types import Bounds, Kind, Outcome, Usage
from spendmesh_sidecar.core.usage.observation import Observation

MAX_TOKEN_BYTES = 128
"""The longest token of any published vocabulary (o200k_base has one of 128 spaces): fewer tokens than
text bytes / 128 is a proven lie."""
ESTIMATED_TOKEN_BYTES = 4
LATE = 504
"""An answer that did not come in time is to a policy what a gateway calls it."""

# --- how it ended -----------------------------------------------------------------------------------------


def answered(
    dialect: Dialect,
    status: int,
    headers: Headers,
    body_prefix: bytes,
    now_unix: float,
    observation: Observation | None = None,
    committed: bool = False,
) -> Outcome:
    """
    The outcome of an HTTP answer that came to its end.

    An error's body is needed only as far as its first 64 KiB; a 2xx is judged by its `observation`.
    """
    seen = observation or Observation()
    if 200 <= status < 300:
        if not seen.error_code:
            return _observed(Kind.SUCCESS, seen, status, committed)
        row = error_class(dialect, INSIDE, (seen.error_code,))
        return _observed(row.kind, seen, status, committed, like_status=row.like or None)
    error = read_error(body_prefix)
    wait = waiting_hint(status, headers, error.retry_delay, now_unix)
    return Outcome(
        kind=error_class(dialect, status, error.codes, wait is not None).kind,
        status=status,
        committed=committed,
        retry_after_seconds=wait,
        error_code=error.codes[0] if error.codes else "",
    )


def broken(
    kind: Literal[
        Kind.CONNECT, Kind.KEY_MISSING, Kind.UNWRITTEN, Kind.CUT, Kind.TIMEOUT, Kind.STOPPED, Kind.CLIENT_GONE
    ],
    observation: Observation | None = None,
    status: int | None = None,
    committed: bool = False,
) -> Outcome:
    """The outcome of an attempt without a whole answer. Usage that was final before the break stays final."""
    late = LATE if kind is Kind.TIMEOUT else None
    return _observed(kind, observation or Observation(), status, committed, broken=True, like_status=late)


def _observed(
    kind: Kind,
    seen: Observation,
    status: int | None,
    committed: bool,
    *,
    broken: bool = False,
    like_status: int | None = None,
) -> Outcome:
    return Outcome(
        kind=kind,
        status=status,
        committed=committed,
        complete=seen.complete,
        usage=seen.usage,
        output_bytes=seen.output_bytes,
        error_code=seen.error_code,
        finish_reasons=seen.finish_reasons,
        response_id=seen.response_id,
        response_model=seen.response_model,
        like_status=like_status,
        broken=broken,
    )


# --- what it is billed ------------------------------------------------------------------------------------


class Actual(Struct, frozen=True, gc=False):
    """What an attempt is settled at."""

    usage: Usage
    source: Literal["exact", "estimated", "worst", "void"]
    excess: bool = False
    """The provider reports more than the request can physically use: recorded and alerted, the target is not
    trusted, and no ancestor's budget is charged more than was reserved."""
    deficit: bool = False
    """The provider reports less than was seen, so nothing of its report is believed: `usage` is the worst case."""


def charge(dialect: Dialect, outcome: Outcome, table: tuple[ChargeRule, ...] = CHARGES) -> Charge:
    """
    What the provider bills for an attempt that ended so: its report, nothing, the input, or the worst case.

    The first rule that fits speaks, so an override goes before the built-in ones; without a rule it is the worst.
    """
    if outcome.complete and outcome.usage is not None:
        return "exact"
    return next((rule.charge for rule in table if rule.fits(dialect, outcome)), "worst")


def actual(
    dialect: Dialect,
    outcome: Outcome,
    bounds: Bounds,
    max_output_tokens: int,
    price: ModelPrice | None = None,
    table: tuple[ChargeRule, ...] = CHARGES,
) -> Actual:
    """
    What to settle: `void` is zero, `worst` what was reserved, and for the others `usage` says it.

    `max_output_tokens` is what the reservation assumed. Text that was seen proves a least number of tokens, the
    request a greatest; a report outside of the two is marked.
    """
    worst = worst_tokens(price, bounds, max_output_tokens)
    match charge(dialect, outcome, table):
        case "void":
            return Actual(Usage(), "void")
        case "input":
            return Actual(_dearest_class(worst.input_tokens, bounds), "estimated")
        case "exact" if outcome.usage is not None:
            return _reported(outcome, outcome.usage, bounds, worst)
        case _:
            return Actual(worst, "worst")


def estimate(outcome: Outcome, bounds: Bounds) -> Usage:
    """
    What an attempt probably used, where nothing was reserved and no usage was seen (Observe): four bytes a token.

    Never for a reservation: it may be too low.
    """
    reported = outcome.usage or Usage()
    seen = -(-outcome.output_bytes // ESTIMATED_TOKEN_BYTES)
    return replace(
        reported,
        input_tokens=reported.input_tokens
        if reported.total_input_tokens
        else -(-bounds.input_tokens // ESTIMATED_TOKEN_BYTES),
        output_tokens=max(reported.output_tokens, seen),
    )


def _reported(outcome: Outcome, usage: Usage, bounds: Bounds, worst: Usage) -> Actual:
    input_tokens = usage.total_input_tokens
    no_input = input_tokens == 0 and bounds.input_tokens > 0
    proven = -(-outcome.output_bytes // MAX_TOKEN_BYTES)
    if no_input or usage.output_tokens < proven:
        # Output that nobody sees (reasoning, rejected predictions) is billed too, and only this report would tell it.
        dearest = _dearest_class(worst.input_tokens, bounds)
        return Actual(replace(dearest, output_tokens=worst.output_tokens), "estimated", deficit=True)
    excess = input_tokens > bounds.input_tokens or usage.output_tokens > worst.output_tokens
    return Actual(usage, "exact", excess)


def _dearest_class(input_tokens: int, bounds: Bounds) -> Usage:
    """Input whose class is not known, as the dearest that the request allows."""
    if "long" in bounds.cache_writes:
        return Usage(cache_write_long_tokens=input_tokens)
    if "default" in bounds.cache_writes:
        return Usage(cache_write_tokens=input_tokens)
    return Usage(input_tokens=input_tokens)
