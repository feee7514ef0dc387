"""The log's bytes: what was written is read back, what was cut off is dropped, what was changed is never continued."""

from __future__ import annotations

import struct
import zlib

import msgspec
import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from exchange_world import MONTH, WINDOW
from memory_log import HERE
from spendmesh_sidecar.core.ledger.journal import (
    AttemptRecord,
    ClosedRecord,
    Header,
    LeaseRecord,
    Part,
    Record,
    SettledRecord,
    UnleasedRecord,
    VoidedRecord,
)
from spendmesh_sidecar.core.ledger.journal_frames import MAGIC, LogDamaged, encode_frame, read_log
from spendmesh_sidecar.core.ledger.rights import AccountRef, AccountState, LeaseReport, Meaning

HEADER = HERE.header("n" * 32)
STATE = AccountState(amount=1_000, settled=5, charged=500, max_tier="economy", resets_in_ms=60_000)
REPORT = LeaseReport(lease="c1-1", sequence=3, previous="ab", used=7, held=2, released=1, overrun=1, would_block=4)
RECORDS: tuple[Record, ...] = (
    LeaseRecord(id="c1-1", account=MONTH, granted=500, starts_at=0.0, ends_at=9.5),
    LeaseRecord(
        id="c1-2",
        account=AccountRef(budget="team-a/team", limit="monthly", per=("user-1",)),
        meaning=Meaning(unit="Cost", currency="USD", window=WINDOW, models=("m-*",)),
        granted=10**18,
        released=1,
        used=2,
        overrun=3,
        would_block=4,
        starts_at=-1.5,
        ends_at=1e9,
        fenced=True,
        state=STATE,
        sent=REPORT,
    ),
    AttemptRecord("r/attempt-1", (Part("c1-1", 100, 100), Part("", 7, 0, MONTH))),
    SettledRecord("r/attempt-1", (90, 7)),
    AttemptRecord("r/attempt-2", (Part("c1-1", 100, 100),)),
    VoidedRecord("r/attempt-2"),
    REPORT,
    UnleasedRecord(account=MONTH, amount=0),
    ClosedRecord("c1-2"),
)


def file(*records: Record, header: Header = HEADER) -> bytes:
    return MAGIC + b"".join(map(encode_frame, (header, *records)))


def frame(kind: int, content: object) -> bytes:
    """A frame of whatever kind, as a newer version may write it."""
    payload = msgspec.msgpack.encode(content)
    head = struct.pack("<IBI", len(payload), kind, zlib.crc32(payload))
    return head + struct.pack("<I", zlib.crc32(head)) + payload


def test_every_record_comes_back_as_it_was_written() -> None:
    log = read_log(file(*RECORDS), "boot-1")
    assert (log.header, log.records, log.torn_bytes) == (HEADER, RECORDS, 0)


def test_a_log_that_was_cut_at_any_byte_keeps_every_whole_record_and_invents_none() -> None:
    """Row 7: a torn end."""
    whole = file(*RECORDS)
    ends = [len(file(*RECORDS[:count])) for count in range(len(RECORDS) + 1)]
    for length in range(ends[0], len(whole) + 1):
        count = sum(end <= length for end in ends) - 1
        log = read_log(whole[:length], "boot-1")
        assert log.records == RECORDS[:count]
        assert log.torn_bytes == length - ends[count]


def test_a_log_that_was_cut_within_its_header_says_nothing() -> None:
    for length in range(len(file())):
        with pytest.raises(LogDamaged):
            read_log(file()[:length], "boot-1")


@given(place=st.integers(0, len(file(*RECORDS)) - 1), mask=st.integers(1, 255))
def test_a_changed_byte_anywhere_stops_the_log(place: int, mask: int) -> None:
    """Also in the last record, and in a length: what the kernel took is not torn while it runs."""
    changed = bytearray(file(*RECORDS))
    changed[place] ^= mask
    with pytest.raises(LogDamaged):
        read_log(bytes(changed), "boot-1")


@pytest.mark.parametrize("rest", [b"\0" * 4096, b"\xff" * 50, file(*RECORDS)[-20:-1]], ids=["zeros", "ones", "part"])
def test_after_another_boot_the_end_may_be_anything(rest: bytes) -> None:
    """A machine that lost power may have given the file its length and not its content."""
    log = read_log(file(*RECORDS) + rest, "boot-2")
    assert (log.records, log.torn_bytes) == (RECORDS, len(rest))
    with pytest.raises(LogDamaged):
        read_log(file(*RECORDS) + b"\0" * 4096, "boot-1")


@pytest.mark.parametrize("boot", ["boot-1", "boot-2", ""])
def test_a_damaged_record_with_others_behind_it_stops_the_log(boot: str) -> None:
    """Dropping one from the middle would forget spend and keep what came after."""
    changed = bytearray(file(*RECORDS))
    changed[len(file(*RECORDS[:3])) - 1] ^= 1
    with pytest.raises(LogDamaged, match="record at byte"):
        read_log(bytes(changed), boot)


UNKNOWN = {
    "a kind of a newer version": (file() + frame(99, {}), "kind 99"),
    "a known kind that means something else": (file() + frame(4, {"reservation": 1}), "cannot be read"),
    "another format": (MAGIC + frame(1, {"format": 2, "nonce": "n", "monotonic": 0, "unix": 0}), "format 2"),
    "a header without a format": (MAGIC + frame(1, {"nonce": "n"}), "no format"),
    "no header": (MAGIC + encode_frame(RECORDS[0]), "header"),
    "two headers": (file() + encode_frame(HEADER), "second header"),
    "another file": (b"SQLite format 3\0" * 10, "does not begin"),
    "nothing": (b"", "does not begin"),
}


@pytest.mark.parametrize(("data", "said"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_stops_the_log_and_is_not_skipped(data: bytes, said: str) -> None:
    """Row 33: after a downgrade, what a newer version wrote is not half understood."""
    with pytest.raises(LogDamaged, match=said):
        read_log(data, "boot-1")


def test_fields_that_a_newer_version_added_do_not_stop_the_log() -> None:
    lease = {
        "id": "x",
        "account": {"budget": "b", "limit": "l", "newer": 1},
        "granted": 5,
        "starts_at": 0,
        "ends_at": 1,
    }
    data = file() + frame(2, {**lease, "newer": True}) + frame(3, ["r", [["x", 5, 5, None, "newer"]], "newer"])
    first, second = read_log(data, "boot-1").records
    assert first == LeaseRecord(
        id="x", account=AccountRef(budget="b", limit="l"), granted=5, starts_at=0.0, ends_at=1.0
    )
    assert second == AttemptRecord("r", (Part("x", 5, 5),))


def test_a_boot_that_is_not_known_is_not_the_same_one() -> None:
    nowhere = file(*RECORDS, header=replace(HEADER, boot="")) + b"\0" * 100
    assert read_log(nowhere, "").torn_bytes == 100
