"""
Which call gets another call's answer in place of an attempt of its own, and which answers are kept for that.

A *join* costs nothing: it takes the answer of its *original*, from the first byte on, while that one runs or for a
window after it. Only in memory, so a restart forgets all of it; within a bound in bytes, where the oldest go first.
Not here: when two calls are the same (`fingerprint`), and sending anything (the shell's `audience`).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from spendmesh_sidecar.core.fingerprint import Call
from spendmesh_sidecar.core.originals import ENTRY_BYTES, Original, Reader
from spendmesh_sidecar.core.retry_specs import DeduplicationSpec, RetrySpec

SHARE = 4
"""One answer may take a quarter of what all may, so that a single long one does not end all joins."""
FIELD_BYTES = 128
"""What a header takes beside its text."""

JoinOutcome = Literal["in_flight", "kept", "missed", "reused"]
Headers = Sequence[tuple[str, str]]


class Apart(Struct, frozen=True, gc=False):
    """The call has to be made."""

    earlier: int = 0
    """Tries that were made for it already, by calls of the client that it repeats."""


class Spent(Struct, frozen=True, gc=False):
    """A retry of a call whose every try was made, and whose answer is not here."""

    tries: int


class Reused(Struct, frozen=True, gc=False):
    """Its `Idempotency-Key` belongs to a call with other content."""


Verdict = Original | Apart | Spent | Reused


def joins_calls(spec: RetrySpec) -> bool:
    """Whether calls are joined at all; a lone Observe RetryBudget changes nothing."""
    return spec.deduplication.mode != "Off" and spec.mode != "Observe"


class Joins:
    """All calls of one pod that others may join."""

    def __init__(self) -> None:
        self.bytes = 0
        """Of all answers that are here, never more than the policy's `max_bytes`."""
        self.outcomes: Counter[JoinOutcome] = Counter()
        self._most = DeduplicationSpec().max_bytes
        self._calls: dict[bytes, dict[str, Original]] = {}
        """By fingerprint: those that run, and the wanted ones."""
        self._keys: dict[bytes, Original] = {}
        self._wanted: OrderedDict[str, Original] = OrderedDict()
        """Ended, oldest first, and somebody will probably ask: their client has left, or they have a key."""
        self._spare: OrderedDict[bytes, Original] = OrderedDict()
        """Ended, oldest first, and their client has the answer: the first to go."""

    # --- a call comes -----------------------------------------------------------------------------------------

    def ask(self, call: Call, spec: RetrySpec, now: float) -> Verdict:
        """What becomes of a call: an original whose answer it gets, or why it gets none."""
        rules, marked = spec.deduplication, call.client_retry > 0
        self._forget_old(now - rules.window_ms / 1000)
        found: Original | None = None
        if call.key and rules.mode in ("IdempotencyKey", "All"):
            found = self._keys.get(call.key)
            if found is not None and found.fingerprint != call.fingerprint:
                self.outcomes["reused"] += 1
                return Reused()
        if marked or rules.mode == "All":
            found = found or self._repeated(call)
        verdict: Verdict = Apart() if found is None else self._judge(found, marked, spec)
        if isinstance(verdict, Original):
            self.outcomes["in_flight" if verdict.running else "kept"] += 1
        elif marked:
            self.outcomes["missed"] += 1
        return verdict

    def _repeated(self, call: Call) -> Original | None:
        """Of calls with this content the one that it most likely repeats: nobody gets two calls' answers for one."""
        candidates = [*reversed(self._calls.get(call.fingerprint, {}).values())]
        if (spare := self._spare.get(call.fingerprint)) is not None:
            candidates.append(spare)
        return max(candidates, key=lambda each: (each.waiting, each.joinable), default=None)

    def _judge(self, found: Original, marked: bool, spec: RetrySpec) -> Verdict:
        has_answer = found.joinable and (found.running or found.whole)
        if has_answer and (found.running or found.final):
            return found
        if not marked or spec.client_retries == "Count":
            return Apart()
        tries = found.tries + found.running  # an answer that can no longer be joined has begun
        if tries > spec.attempts:
            return found if has_answer else Spent(tries)
        if not found.running:
            self._remove(found)  # the call that comes goes on counting
        return Apart(tries)

    def begin(self, call: Call, spec: RetrySpec, earlier: int = 0) -> Original:
        """The call is made: from now on others may join it."""
        if self._most != spec.deduplication.max_bytes:
            self._most = spec.deduplication.max_bytes
            self._fit()
        original = Original(call.fingerprint, call.request_id, call.key, tries=earlier)
        self._calls.setdefault(call.fingerprint, {})[call.request_id] = original
        if call.key and spec.deduplication.mode != "ClientRetries":
            self._keys[call.key] = original
        return original

    # --- its answer passes ------------------------------------------------------------------------------------

    def start(self, original: Original, status: int, headers: Headers) -> None:
        """The head of an answer whose body comes in parts."""
        original.started = original.streamed = True
        self._head(original, status, headers)
        original.body = bytearray()
        original.wake()

    def write(self, original: Original, chunk: bytes) -> None:
        """A part of it. An answer that outgrows its share goes on for those who read it, and nobody else joins it."""
        if not original.joinable and not original.readers:
            return
        original.body += chunk
        self._count(original, len(chunk))
        self._bound(original)
        original.wake()

    def finish(self, original: Original, complete: bool) -> None:
        """It is over; not `complete`: it broke off."""
        original.answered, original.whole = True, complete
        original.wake()

    def send(self, original: Original, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""
        original.started = original.answered = original.whole = True
        self._head(original, status, headers)
        original.body = body
        if len(body) > self._most // SHARE:
            self._outgrown(original)  # who reads has it all the same
        else:
            self._count(original, len(body))
            self._bound(original)
        original.wake()

    def _head(self, original: Original, status: int, headers: Headers) -> None:
        original.status, original.headers = status, tuple(headers)
        if original.joinable:
            self._count(original, sum([len(name) + len(value) + FIELD_BYTES for name, value in headers]))

    # --- and ends ---------------------------------------------------------------------------------------------

    def end(self, original: Original, spec: RetrySpec, now: float, *, tries: int, final: bool) -> None:
        """
        The call is over. Kept is what a retry could ask for: the answer, or how many tries a failure took.

        `final`: another try would bring no other answer. A call that was given up before anything was sent leaves
        nothing behind.
        """
        original.running, original.ended = False, now
        original.tries += tries
        original.final = final
        self._uncall(original)
        if not original.joinable or not original.whole:
            self._count(original, -original.size)
            original.joinable = False
            if not original.readers:
                self._let_go(original)
        if original.tries and joins_calls(spec):
            self._keep(original)
        else:
            self._remove(original)
        original.wake()

    def _keep(self, original: Original) -> None:
        self._count(original, ENTRY_BYTES)
        if isinstance(original.body, bytearray) and original.joinable:
            original.body = bytes(original.body)
        self._sort_in(original)
        self._fit()

    def _sort_in(self, original: Original) -> None:
        keyed = self._keys.get(original.key) is original
        if original.got and not keyed:
            if (older := self._spare.pop(original.fingerprint, None)) is not None:
                self._count(older, -older.size)
            self._spare[original.fingerprint] = original
        else:
            self._wanted[original.request_id] = original
            self._calls.setdefault(original.fingerprint, {})[original.request_id] = original

    # --- those who join ---------------------------------------------------------------------------------------

    def join(self, original: Original, reader: Reader) -> None:
        """Read its answer, from the first byte on. Only what `ask` gave may be joined, and at once."""
        if not original.joinable:
            raise ValueError(f"call {original.request_id} cannot be joined any more")
        original.readers.append(reader)
        if original.joined is not None:
            original.joined()

    def take(self, original: Original, reader: Reader) -> bytes:
        """What the reader lacks of the body so far."""
        data = original.take(reader)
        if original.running and original.streamed and not original.joinable:
            self._count(original, -original.trim())
        return data

    def leave(self, original: Original, reader: Reader, *, got: bool) -> None:
        """The reader has the whole answer, or has left before that."""
        original.readers.remove(reader)
        if got and not original.got:
            self.has(original)
        if original.readers:
            return
        if not original.joinable:
            self._let_go(original)
        if original.running and original.deserted is not None:
            original.deserted()

    def has(self, original: Original) -> None:
        """Somebody has its whole answer."""
        original.got = True
        if original.request_id in self._wanted:
            del self._wanted[original.request_id]
            self._uncall(original)
            self._sort_in(original)

    def clear(self) -> None:
        """Another policy is in force: nothing that has ended can be asked for any more."""
        for original in (*self._wanted.values(), *self._spare.values()):
            self._remove(original)

    # --- within the bound -------------------------------------------------------------------------------------

    def _count(self, original: Original, more: int) -> None:
        original.size += more
        self.bytes += more

    def _bound(self, original: Original) -> None:
        """Make room for an answer that has grown; what cannot have it is not kept any longer."""
        if original.size > self._most // SHARE:
            self._outgrown(original)
        if self.bytes > self._most:
            self._fit()
            if self.bytes > self._most:
                self._outgrown(original)

    def _outgrown(self, original: Original) -> None:
        """Nobody can join any more; whoever reads gets the rest, unless it falls too far behind."""
        original.joinable = False
        if not original.streamed:
            self._count(original, -original.size)
            return
        original.trim()
        self._count(original, len(original.body) - original.size)
        while original.body and (original.size > self._most // SHARE or self.bytes > self._most):
            slowest = min(reader.position for reader in original.readers if not reader.cut)
            for reader in original.readers:
                if reader.position == slowest:
                    reader.cut = True
                    reader.position = original.base + len(original.body)
            original.trim()
            self._count(original, len(original.body) - original.size)

    def _let_go(self, original: Original) -> None:
        """Of an answer that nobody can join nor reads."""
        if original.running:
            self._count(original, -original.size)
        original.drop(len(original.body))
        original.headers = ()

    def _fit(self) -> None:
        while self.bytes > self._most and (self._spare or self._wanted):
            oldest = self._spare or self._wanted
            self._remove(next(iter(oldest.values())))

    def _forget_old(self, ended_before: float) -> None:
        for kept in (self._spare, self._wanted):
            while kept and (oldest := next(iter(kept.values()))).ended < ended_before:
                self._remove(oldest)

    def _remove(self, original: Original) -> None:
        self._count(original, -original.size)
        self._wanted.pop(original.request_id, None)
        if self._spare.get(original.fingerprint) is original:
            del self._spare[original.fingerprint]
        if original.key and self._keys.get(original.key) is original:
            del self._keys[original.key]
        self._uncall(original)

    def _uncall(self, original: Original) -> None:
        same = self._calls.get(original.fingerprint)
        if same is not None and same.pop(original.request_id, None) is not None and not same:
            del self._calls[original.fingerprint]
