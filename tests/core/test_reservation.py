"""What one attempt may cost at worst, and what lacks for it on each of its limits."""

from __future__ import annotations

import pytest

from exchange_world import MONTH, OPENAI, UNIX, USD, World, budget, chat, limit, policy, price
from lease_samples import lease
from spendmesh_sidecar.core.admission import Priced
from spendmesh_sidecar.core.ledger.charges import Quantities
from spendmesh_sidecar.core.ledger.reservation import OUTPUT_FLOOR_TOKENS, Booking, worst_case
from spendmesh_sidecar.core.ledger.rights import AccountRef
from spendmesh_sidecar.core.router import Candidate
from spendmesh_sidecar.core.specs import ModelPrice, TargetSpec
from spendmesh_sidecar.core.types import Acquire

MEDIUM = TargetSpec(name="medium", provider="openai", model="medium-1")
CANDIDATE = Candidate(MEDIUM, OPENAI, "", "openai/medium-1")
OWN, LISTED = price("medium-1", 2, 8), price("medium-1", 4, 16)


@pytest.mark.parametrize(
    ("own", "listed", "maximum", "most"),
    [
        pytest.param(OWN, None, 100, Quantities(2_800_000, "USD", 1_000, 100), id="input and the whole output"),
        pytest.param(OWN, None, None, Quantities(2_000_000, "USD", 1_000, 0), id="an operation without output"),
        pytest.param(None, None, 100, Quantities(0, "", 1_000, 100), id="without a price it takes tokens"),
        pytest.param(
            OWN, LISTED, 100, Quantities(2_800_000, "USD", 1_000, 100, listed_nanos=5_600_000), id="a listed price"
        ),
    ],
)
def test_the_worst_of_a_call_in_every_unit(
    own: ModelPrice | None, listed: ModelPrice | None, maximum: int | None, most: Quantities
) -> None:
    priced = Priced(CANDIDATE, own, maximum, listed=listed)
    assert worst_case(priced, chat().bounds, maximum, UNIX) == most


@pytest.mark.parametrize(
    ("left", "output"), [(10**9, 100), (2_800_000, 100), (2_799_999, 99), (2_000_000, 0), (1_999_999, 0)]
)
def test_the_largest_output_that_is_named_is_at_most_what_was_asked_for(left: int, output: int) -> None:
    """Of a limit that has room for all of it, too: another one refuses."""
    world = World()
    booking = Booking(world.ledger, world.policy.budgets, Priced(CANDIDATE, OWN, 100), chat(), "r", UNIX)
    assert booking.largest_output(MONTH.name, left) == output


def test_on_a_limit_where_its_smallest_form_fits_a_call_needs_nothing() -> None:
    """A longer answer would take more there; it waits only for what it cannot do without."""
    world = World(policy(budgets=(budget(limit("monthly", USD), limit("tokens", 10**6, "OutputTokens")),)))
    tokens = AccountRef(budget=MONTH.budget, limit="tokens")
    rights = lease(OUTPUT_FLOOR_TOKENS, nonce=world.ledger.nonce, account=tokens, unit="OutputTokens", currency="")
    assert world.ledger.merge(rights, world.now)
    step = world.exchange(chat(maximum=None)).begin(world.now, UNIX)
    assert isinstance(step, Acquire)
    assert {lack.limit: (lack.need, lack.want) for lack in step.shortfalls} == {
        "monthly": (1_000 * 2_000 + OUTPUT_FLOOR_TOKENS * 8_000, 1_000 * 2_000 + 1_000 * 8_000),
        "tokens": (0, 1_000 - OUTPUT_FLOOR_TOKENS),
    }
