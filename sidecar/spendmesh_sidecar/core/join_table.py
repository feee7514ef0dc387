"""
The calls that others may join, by what they are and by how soon they have to go: within a bound in bytes and in time.

Says nothing of who may join what (`joining`).
"""

from __future__ import annotations

from collections import OrderedDict

from spendmesh_sidecar.core.originals import ENTRY_BYTES, Original


class JoinTable:
    """All originals of one pod, those that run and those that have ended."""

    def __init__(self, most: int) -> None:
        self.bytes = 0
        """Counted for all of them; no more than `most` after `fit`, as far as what has ended can give room."""
        self.most = most
        self._calls: dict[bytes, dict[str, Original]] = {}
        """By fingerprint: those that run, and the wanted ones."""
        self._keys: dict[bytes, Original] = {}
        """By `Idempotency-Key`, where it counts: the latest."""
        self._wanted: OrderedDict[str, Original] = OrderedDict()
        """Ended, oldest first, and somebody will probably ask: their client has left, or they have a key."""
        self._spare: OrderedDict[bytes, Original] = OrderedDict()
        """Ended, oldest first, and their client has the answer: the first to go, and one of each content is enough."""

    def same(self, fingerprint: bytes) -> list[Original]:
        """All with this content, the latest first."""
        same = [*reversed(self._calls.get(fingerprint, {}).values())]
        if (spare := self._spare.get(fingerprint)) is not None:
            same.append(spare)
        return same

    def of_key(self, key: bytes) -> Original | None:
        """The latest call with this `Idempotency-Key`."""
        return self._keys.get(key)

    def add(self, original: Original, *, keyed: bool) -> None:
        """A call begins; `keyed`: its key counts."""
        self._calls.setdefault(original.fingerprint, {})[original.request_id] = original
        if keyed:
            self._keys[original.key] = original

    def count(self, original: Original, more: int) -> None:
        """It takes so many bytes more."""
        original.size += more
        self.bytes += more

    def keep(self, original: Original) -> None:
        """It has ended, and may be asked for."""
        self._uncall(original)
        self.count(original, ENTRY_BYTES)
        self._sort_in(original)
        self.fit()

    def got(self, original: Original) -> None:
        """Somebody has its whole answer: it may go sooner."""
        if self._wanted.pop(original.request_id, None) is not None:
            self._uncall(original)
            self._sort_in(original)

    def remove(self, original: Original) -> None:
        """It cannot be found any more."""
        self.count(original, -original.size)
        self._wanted.pop(original.request_id, None)
        if self._spare.get(original.fingerprint) is original:
            del self._spare[original.fingerprint]
        if original.key and self._keys.get(original.key) is original:
            del self._keys[original.key]
        self._uncall(original)

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

    def _sort_in(self, original: Original) -> None:
        if original.got and self._keys.get(original.key) is not original:
            if (older := self._spare.pop(original.fingerprint, None)) is not None:
                self.count(older, -older.size)
            self._spare[original.fingerprint] = original
        else:
            self._wanted[original.request_id] = original
            self._calls.setdefault(original.fingerprint, {})[original.request_id] = original

    def _uncall(self, original: Original) -> None:
        same = self._calls.get(original.fingerprint)
        if same is not None and same.pop(original.request_id, None) is not None and not same:
            del self._calls[original.fingerprint]
