"""What messages about rights mean to a reader of another version: what they leave out, and how they are told apart."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from exchange_world import MONTH
from spendmesh_sidecar.core.ledger.rights import AccountState, Lease, LeaseReport, LeaseState, Message, report_digest

STATE = b'{"amount":10,"settled":1,"charged":2,"resetsInMs":3}'
ACCOUNT = b'{"budget":"team-a/team","limit":"monthly"}'
LEASE = b'{"id":"one","nonce":"me","account":%b,"unit":"Cost","granted":9,"endsInMs":5,"state":%b}' % (ACCOUNT, STATE)
REPORT = b'{"lease":"one","sequence":1,"used":5,"held":2}'


@pytest.mark.parametrize(
    ("message", "type_", "means_none"),
    [
        pytest.param(STATE, AccountState, ("max_output_tokens", "crossed_percent", "survival"), id="an account"),
        pytest.param(LEASE, Lease, ("released", "starts_in_ms", "survival"), id="a lease"),
        pytest.param(b'{"lease":"one","sequence":1}', LeaseState, ("recalled", "survival"), id="an answer"),
        pytest.param(
            REPORT,
            LeaseReport,
            ("released", "overrun", "would_block", "unheld", "granted", "ended_seconds"),
            id="a report",
        ),
    ],
)
def test_a_number_that_a_message_leaves_out_is_0(
    message: bytes, type_: type[Message], means_none: tuple[str, ...]
) -> None:
    """Both sides are upgraded in any order: what one does not say has to mean the same to all versions of the other."""
    read = msgspec.json.decode(message, type=type_)
    assert {name: getattr(read, name) for name in means_none} == dict.fromkeys(means_none, 0)
    assert msgspec.json.encode(read) == message, "and a 0 is left out"


def test_a_digest_is_the_same_in_all_versions() -> None:
    """A report that names its predecessor by another one looks like that of a copied sidecar, whose rights are lost."""
    report = LeaseReport(lease="one", sequence=1, used=5, held=2, overrun=1)
    assert report_digest(report) == "24d4b3b7cba6b15d"
    why = replace(report, unheld=1, account=MONTH, granted=10, period="previous", ended_seconds=60)
    assert report_digest(why) == report_digest(report), "it covers what was spent, not why or where"
    assert report_digest(replace(report, used=6)) != report_digest(report)
