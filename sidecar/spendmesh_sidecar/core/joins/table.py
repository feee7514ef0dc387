"""
The calls that others may join, by what they are and by how soon they have to go: within a bound in bytes and in time.

Says nothing of who may join what (`joining`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from spendmesh_sidecar.core.joins.fingerprint import Call
from spendmesh_sidecar.core.joins.originals import ENTRY_BYTES, Original


class JoinTable:
    """All originals of one pod, those that run and those that have ended."""

    def __init__(self, most: int) -> None:
        self.bytes = 0
        """Counted for all of them; no more than `most` after `fit`, as far as what has ended can give room."""
        self.most = most
        self._fresh: dict[int, dict[str, Original]] = {}
        """By length of the body: those that no call was compared with yet."""
        self._calls: dict[bytes, dict[str, Original]] = {}
        """By fingerprint: all others."""
        self._keys: dict[bytes, Original] = {}
        """By `Idempotency-Key`, where it counts: the latest."""
        self._wanted: OrderedDict[str, Original] = OrderedDict()
        """Ended, oldest first, and somebody will probably ask: their client has left, or they have a key."""
        self._spare: OrderedDict[str, Original] = OrderedDict()
        """Ended, oldest first, and their client has the answer: the first to go."""

    def same(self, call: Call) -> list[Original]:
        """All that are the same as a call, the latest first."""
        for original in self._fresh.pop(call.length, {}).values():
            self._compare(original)
        return [*reversed(self._calls.get(call.fingerprint, {}).values())]

    def of_key(self, key: bytes) -> Original | None:
        """The latest call with this `Idempotency-Key`, ready to be compared."""
        original = self._keys.get(key)
        if original is not None and not original.call.known:
            self._take_out(original)
            self._compare(original)
        return original

    def add(self, original: Original, *, keyed: bool) -> None:
        """A call begins; `keyed`: its key counts."""
        call = original.call
        if call.known:
            self._calls.setdefault(call.known, {})[call.request_id] = original
        else:
            self._fresh.setdefault(call.length, {})[call.request_id] = original
        if keyed:
            self._keys[call.key] = original

    def count(self, original: Original, more: int) -> None:
        """It takes so many bytes more."""
        original.size += more
        self.bytes += more

    def keep(self, original: Original) -> None:
        """It has ended, and may be asked for."""
        call = original.call
        call.end()
        self.count(original, ENTRY_BYTES + call.held)
        keyed = call.key and self._keys.get(call.key) is original
        kept = self._spare if original.got and not keyed else self._wanted
        kept[call.request_id] = original
        if self.bytes > self.most:
            self.fit()

    def got(self, original: Original) -> None:
        """Somebody has its whole answer: it may go sooner, unless it has a key."""
        if not original.call.key and self._wanted.pop(original.request_id, None) is not None:
            self._spare[original.request_id] = original

    def remove(self, original: Original) -> None:
        """It cannot be found any more."""
        self.count(original, -original.size)
        call = original.call
        self._wanted.pop(call.request_id, None)
        self._spare.pop(call.request_id, None)
        if call.key and self._keys.get(call.key) is original:
            del self._keys[call.key]
        self._take_out(original)

    def fit(self) -> None:
        """Let the oldest go until there is room."""
        while self.bytes > self.most and (kept := self._spare or self._wanted):
            self.remove(next(iter(kept.values())))

    def forget_old(self, ended_before: float) -> None:
        """Let go what ended before a moment, in monotonic seconds."""
        for kept in (self._spare, self._wanted):
            while kept and (oldest := next(iter(kept.values()))).ended < ended_before:
                self.remove(oldest)

    def clear(self) -> None:
        """Let go all that has ended."""
        for original in (*self._wanted.values(), *self._spare.values()):
            self.remove(original)

    def _compare(self, original: Original) -> None:
        """From now on it is found by its fingerprint, and its body is not held any longer."""
        if not original.running:
            self.count(original, -original.call.held)
        self._calls.setdefault(original.call.fingerprint, {})[original.request_id] = original

    def _take_out(self, original: Original) -> None:
        call = original.call
        tables: dict[Any, dict[str, Original]] = self._calls if call.known else self._fresh
        place = call.known or call.length
        same = tables.get(place)
        if same is not None and same.pop(call.request_id, None) is not None and not same:
            del tables[place]
