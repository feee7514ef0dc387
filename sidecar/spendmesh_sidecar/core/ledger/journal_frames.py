"""
Records of the write-ahead log as bytes, and back. Pure.

One frame: length, kind and checksum of the payload, a checksum over these three, the payload (MessagePack). The
length has a checksum of its own, so that a frame that was cut off is never confused with one that was changed: only
what was not written whole may be dropped, and nothing is ever skipped.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import msgspec
from msgspec import Struct

from spendmesh_sidecar.core.ledger.journal import (
    FORMAT,
    AttemptRecord,
    ClosedRecord,
    Header,
    LeaseRecord,
    Record,
    SettledRecord,
    UnleasedRecord,
    VoidedRecord,
)
from spendmesh_sidecar.core.ledger.rights import LeaseReport

MAGIC = b"spendmesh ledger log\n"
MAX_PAYLOAD_BYTES = 1 << 20
"""An attempt on a hundred accounts has 4 KiB."""

_KINDS: dict[type[Struct], int] = {
    Header: 1,
    LeaseRecord: 2,
    AttemptRecord: 3,
    SettledRecord: 4,
    VoidedRecord: 5,
    LeaseReport: 6,
    UnleasedRecord: 7,
    ClosedRecord: 8,
}
_DECODERS: dict[int, msgspec.msgpack.Decoder[Any]] = {
    number: msgspec.msgpack.Decoder(kind) for kind, number in _KINDS.items()
}
_HEAD = struct.Struct("<IBI")
_CHECK = struct.Struct("<I")
_HEAD_BYTES = _HEAD.size + _CHECK.size

_encode = msgspec.msgpack.Encoder().encode


class LogDamaged(ValueError):
    """
    A log that must not be continued; the message says where and why, without any content.

    `before`: what was read before the damage.
    """

    before: tuple[Record | Header, ...] = ()


class Log(Struct, frozen=True):
    """What a file said."""

    header: Header
    records: tuple[Record, ...]
    torn_bytes: int
    """At the end, of a record that was not written whole: what it announced has not happened."""


def encode_frame(record: Record | Header) -> bytes:
    """One record as it is written."""
    payload = _encode(record)
    head = _HEAD.pack(len(payload), _KINDS[type(record)], zlib.crc32(payload))
    return b"".join((head, _CHECK.pack(zlib.crc32(head)), payload))


def read_log(data: bytes, boot: str) -> Log:
    """
    All records of a file. Raises LogDamaged unless everything but a torn end is whole and known.

    While the kernel that wrote it runs (`boot`), what was written is there: only a frame that was cut off is a torn
    end. After another boot the end may be anything, as long as no whole frame follows.
    """
    if not data.startswith(MAGIC):
        raise LogDamaged("it does not begin as a log does")
    found: list[Record | Header] = []
    try:
        return _read(data, boot, found)
    except LogDamaged as damaged:
        damaged.before = tuple(found)
        raise


def _read(data: bytes, boot: str, found: list[Record | Header]) -> Log:
    offset, same_boot = len(MAGIC), True
    while offset < len(data):
        frame = _frame_at(data, offset)
        if frame is None:
            if same_boot and not _cut_off(data, offset):
                raise LogDamaged(f"the record at byte {offset} was changed")
            if any(_frame_at(data, later) is not None for later in range(offset + 1, len(data) - _HEAD_BYTES)):
                raise LogDamaged(f"the record at byte {offset} is not whole, and others follow")
            break
        kind, payload = frame
        record = _decoded(kind, payload, offset)
        if not found:
            same_boot = bool(boot) and _checked(record).boot == boot
        elif isinstance(record, Header):
            raise LogDamaged(f"a second header at byte {offset}")
        found.append(record)
        offset += _HEAD_BYTES + len(payload)
    if not found:
        raise LogDamaged("it has no header")
    records = tuple(record for record in found if not isinstance(record, Header))
    return Log(_checked(found[0]), records, len(data) - offset)


def _frame_at(data: bytes, offset: int) -> tuple[int, bytes] | None:
    """Kind and payload of a whole, unchanged frame; None: there is none."""
    start = offset + _HEAD_BYTES
    if start > len(data):
        return None
    length, kind, check = _HEAD.unpack_from(data, offset)
    if length > MAX_PAYLOAD_BYTES or _CHECK.unpack_from(data, start - _CHECK.size)[0] != _head_check(data, offset):
        return None
    payload = data[start : start + length]
    return (kind, payload) if len(payload) == length and zlib.crc32(payload) == check else None


def _cut_off(data: bytes, offset: int) -> bool:
    """Whether the file ends within the frame that begins here."""
    start = offset + _HEAD_BYTES
    if start > len(data):
        return True
    length: int = _HEAD.unpack_from(data, offset)[0]
    known: bool = _CHECK.unpack_from(data, start - _CHECK.size)[0] == _head_check(data, offset)
    return known and start + length > len(data)


def _head_check(data: bytes, offset: int) -> int:
    return zlib.crc32(data[offset : offset + _HEAD.size])


def _decoded(kind: int, payload: bytes, offset: int) -> Record | Header:
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise LogDamaged(f"the record at byte {offset} is of kind {kind}, which this version does not know")
    if kind == _KINDS[Header]:
        _check_format(payload)
    try:
        record: Record | Header = decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise LogDamaged(f"the record at byte {offset} cannot be read by this version") from error
    return record


def _check_format(payload: bytes) -> None:
    """Before anything else is read of a header: another format may have another one."""
    try:
        written = msgspec.msgpack.decode(payload, type=_Format).format
    except msgspec.DecodeError as error:
        raise LogDamaged("its header names no format") from error
    if written != FORMAT:
        raise LogDamaged(f"it is written in format {written}, and this version reads {FORMAT}")


class _Format(Struct, frozen=True):
    format: int


def _checked(record: Record | Header) -> Header:
    if not isinstance(record, Header):
        raise LogDamaged("it does not begin with a header")
    return record
