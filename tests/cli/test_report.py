"""`spendmesh report` and `correct`: what people read and book, against a control server on loopback."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from control_samples import client
from ledger_samples import ManualClock, acquire, report as lease_report, want
from spendmesh_cli.__main__ import main
from spendmesh_cli.report import rounded
from spendmesh_operator.local import ACCESS_FILE, LocalControl, LocalPod
from spendmesh_operator.status.bill import BillLine, exact_amount, exact_text
from spendmesh_sidecar.protocol import PATH_ACQUIRE, PATH_REPORT, AccountRef, AcquireReply, ReportRequest

WINDOW = {"type": "Calendar", "period": "Hour", "timeZone": "Etc/UTC"}
PODS = [LocalPod("team-a", "support-1", token="support"), LocalPod("team-a", "job-1", token="job")]
REF = AccountRef(budget="team-a/team", limit="hourly")
USD = 10**9


def budget(namespace: str, name: str = "team", **spec: Any) -> dict[str, Any]:
    limit = {"name": "hourly", "currency": "USD", "amount": "2.50", "window": WINDOW}
    return {
        "apiVersion": "spendmesh.io/v1alpha1",
        "kind": "ModelBudget",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"limits": [limit], **spec},
    }


@asynccontextmanager
async def spent(state: Path) -> AsyncIterator[LocalControl]:
    """Two budgets; team-a has settled 1.000000001 of 2.50, and a deleted job holds 0.50 of which 0.10 was reported."""
    control = LocalControl([budget("team-a"), budget("team-b")], PODS, state, ManualClock(), random.Random(1))
    await control.start()
    try:
        async with client(control.url, "support") as support, client(control.url, "job") as job:
            for caller, nonce, rights, used in (
                (support, "n", USD + 1, USD + 1),
                (job, "j", USD // 2, USD // 10),
            ):
                _, body = await caller.post(PATH_ACQUIRE, acquire("r", nonce, want(rights, ref=REF)))
                (lease,) = msgspec.json.decode(body, type=AcquireReply).leases
                report = lease_report(lease.id, used)
                assert (await caller.post(PATH_REPORT, ReportRequest(nonce=nonce, reports=(report,))))[0] == 200
        await control.coordinator.pods_are([PODS[0].identity.uid])
        yield control
    finally:
        await control.stop()


def run(state: Path, *commands: tuple[str, ...]) -> list[int]:
    """The commands, one after the other, while the control server runs."""

    async def scenario() -> list[int]:
        async with spent(state):
            return [await asyncio.to_thread(main, [*command, "--state", str(state)]) for command in commands]

    return asyncio.run(scenario())


def test_the_table_reads_like_a_bill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each limit, money rounded up, unused budgets too."""
    assert run(tmp_path, ("report",)) == [0]
    header, first, second, at = capsys.readouterr().out.splitlines()
    names = "BUDGET LIMIT PERIOD SPENT HELD OF UNIT USED FORECAST STAGE MODE RESETS"
    assert " ".join(header.split()) == names
    cells = "team-a/team hourly Hour 1.51 0.00 2.50 USD 60% - Within Enforce 2026-01-05T11:00:00Z"
    assert first.split() == cells.split()
    assert second.split()[:5] == ["team-b/team", "hourly", "Hour", "0.00", "0.00"]
    assert at == "as of 2026-01-05T10:00:00Z"


def test_json_and_csv_are_exact_and_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To the nano-unit, with the holders and why something is in quarantine."""
    assert run(tmp_path, ("report", "team", "-n", "team-a", "-o", "json")) == [0]
    (line,) = json.loads(capsys.readouterr().out)["lines"]
    assert (line["used"], line["remaining"], line["quarantined"]) == ("1.500000001", "0.999999999", "0.50")
    assert line["quarantine"] == [{"reason": "PodDeleted", "amount": "0.50"}]
    assert {each["pod"]: each["state"] for each in line["holders"]} == {
        "team-a/support-1": "Reporting",
        "team-a/job-1": "PodDeleted",
    }

    assert run(tmp_path, ("report", "team-a/team", "--output", "csv")) == [0]
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["budget"], row["used"], row["percent"]) == ("team-a/team", "1.500000001", "60")


def test_a_vanished_pods_rights_are_settled_by_proof_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0.50 was charged, the invoice says 0.20: 0.30 is free again, and sending it twice frees nothing more."""
    proof = ("--amount", "0.20", "--pod", "team-a/job-1", "--reference", "inv-1", "--evidence", "line 17")
    order = ("correct", "team-a/team", "hourly", *proof)
    assert run(tmp_path, order, order, ("report", "team-a/team", "-o", "json")) == [0, 0, 0]
    out = capsys.readouterr().out
    (line,) = json.loads(out[out.index("{") :])["lines"]
    assert (line["used"], line["quarantined"], line["remaining"]) == ("1.200000001", "0.00", "1.299999999")
    (correction,) = line["corrections"]
    assert (correction["reference"], correction["amount"]) == ("inv-1", "-0.30")
    assert correction["evidence"] == "line 17 (booked by local)"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("report", "team"), "in which namespace is team? Write NAMESPACE/team"),
        (("report", "team-a/team", "-n", "team-b"), "not in namespace team-b"),
        (("report", "team-a/nobody"), "there is no valid ModelBudget team-a/nobody"),
        (("report", "--url", "https://127.0.0.1:1"), "--url needs --token-file"),
        (("correct", "team-b/team", "hourly", "--amount=-1"), "nothing was spent on limit 'hourly' of team-b/team"),
        (("correct", "team-a/team", "hourly", "--amount=-1e-10"), "with at most nine decimals"),
        (("correct", "team-a/team", "hourly", "--amount=nan"), "cannot be counted"),
        (("correct", "team-a/team", "hourly", "--amount=-5"), "takes back more than"),
        (("correct", "team-a/team", "hourly", "--amount=0.05", "--pod", "team-a/job-1"), "what it used lies between"),
        (("correct", "team-a/team", "hourly", "--amount=0.51", "--pod", "team-a/job-1"), "what it used lies between"),
        (("correct", "team-a/team", "hourly", "--amount=0", "--pod", "team-a/support-1"), "nothing in quarantine"),
    ],
)
def test_bad_input_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    if arguments[0] == "correct":
        arguments = (*arguments, "--reference", "r", "--evidence", "e")
    assert run(tmp_path, arguments) == [2]
    assert sentence in capsys.readouterr().err


def test_without_a_control_server_the_command_says_where_to_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--state", str(tmp_path)]) == 2
    assert f"{tmp_path / ACCESS_FILE} is not there: start `spendmesh run`" in capsys.readouterr().err
    (tmp_path / ACCESS_FILE).write_text('{"url": "http://127.0.0.1:1", "token": "t"}')
    assert main(["report", "--state", str(tmp_path)]) == 2
    assert "does not answer" in capsys.readouterr().err


def test_only_the_person_who_started_it_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The access file is that person's alone, and a pod's token opens no bill."""

    async def scenario() -> list[int]:
        async with spent(tmp_path):
            path = tmp_path / ACCESS_FILE
            assert path.stat().st_mode & 0o777 == 0o600
            found = json.loads(path.read_text())
            path.write_text(json.dumps(found | {"token": "support"}))
            return [
                await asyncio.to_thread(main, ["report", "--state", str(tmp_path)]),
            ]

    assert asyncio.run(scenario()) == [2]
    assert "this token is not known here" in capsys.readouterr().err


@pytest.mark.parametrize("amount", [0, 1, -1, 10**9, -1_200_000_000, 123_456_789_012, 10**18])
def test_amounts_go_through_text_unchanged(amount: int) -> None:
    assert exact_amount(exact_text(amount, "Cost"), "Cost") == amount
    assert exact_amount(exact_text(amount, "Requests"), "Requests") == amount


def test_the_table_rounds_spend_up() -> None:
    """A bill never shows less than was spent."""
    line = msgspec.structs.replace(_LINE, amount="2500.00")
    assert rounded("0.000000001", line) == "0.01"
    assert rounded("0.000000001", msgspec.structs.replace(_LINE, amount="0.001")) == "0.000001"
    assert rounded("17", msgspec.structs.replace(_LINE, unit="Requests")) == "17"


_LINE = BillLine(
    **dict.fromkeys(("budget", "limit", "mode", "currency", "period", "period_start", "resets_at"), ""),
    **dict.fromkeys(("amount", "used", "held", "quarantined", "remaining", "forecast", "stage"), ""),
    **dict.fromkeys(("per", "quarantine", "holders", "corrections"), ()),
    unit="Cost",
    percent=0,
    holder_count=0,
)
