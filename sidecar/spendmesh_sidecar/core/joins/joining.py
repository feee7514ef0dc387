"""
Which call gets another call's answer in place of an attempt of its own, and which answers are kept for that.

A *join* costs nothing: it takes the answer of its *original*, from the first byte on, while that one runs or for a
window after it. Only in memory, so a restart forgets all of it; within a bound in bytes, where the oldest go first.
Not here: when two calls are the same (`fingerprint`), and sending anything (the shell's `audience`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from spendmesh_sidecar.core.failures.retry_specs import DeduplicationSpec, RetrySpec
from spendmesh_sidecar.core.joins.fingerprint import Call
from spendmesh_sidecar.core.joins.originals import Original, Reader
from spendmesh_sidecar.core.joins.table import JoinTable

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
        self.outcomes: Counter[JoinOutcome] = Counter()
        """Calls that asked for an answer of another one, by what became of them."""
        self._table = JoinTable(DeduplicationSpec().max_bytes)

    @property
    def kept_bytes(self) -> int:
        """Of all answers that are here, never more than the policy's `max_bytes`."""
        return self._table.bytes

    # --- a call comes -----------------------------------------------------------------------------------------

    def ask(self, call: Call, spec: RetrySpec, now: float) -> Verdict:
        """What becomes of a call: an original whose answer it gets, or why it gets none."""
        rules, marked = spec.deduplication, call.client_retry > 0
        self._table.forget_old(now - rules.window_ms / 1000)
        found: Original | None = None
        if call.key and rules.mode in ("IdempotencyKey", "All"):
            found = self._table.of_key(call.key)
            if found is not None and found.call.fingerprint != call.fingerprint:
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
        return max(self._table.same(call), key=_likely, default=None)

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
            self._table.remove(found)  # the call that comes goes on counting
        return Apart(tries)

    def begin(self, call: Call, spec: RetrySpec, earlier: int = 0) -> Original:
        """The call is made: from now on others may join it."""
        table, rules = self._table, spec.deduplication
        if table.most != rules.max_bytes:
            table.most = rules.max_bytes
            table.fit()
        original = Original(call, tries=earlier)
        table.add(original, keyed=bool(call.key) and rules.mode != "ClientRetries")
        return original

    # --- its answer passes ------------------------------------------------------------------------------------

    def start(self, original: Original, status: int, headers: Headers) -> None:
        """The head of an answer whose body comes in parts."""
        original.started = original.streamed = True
        original.status, original.headers = status, tuple(headers)
        original.body = bytearray()
        original.wake()

    def write(self, original: Original, chunk: bytes) -> None:
        """A part of it. An answer that outgrows its share goes on for those who read it, and nobody else joins it."""
        if not original.joinable and not original.readers:
            return
        table, size = self._table, len(chunk)
        original.body += chunk
        table.count(original, size)
        if table.bytes > table.most or original.size > table.most // SHARE:
            self._bound(original)
        if original.readers:
            original.wake()

    def finish(self, original: Original, complete: bool) -> None:
        """It is over; not `complete`: it broke off."""
        original.answered, original.whole = True, complete
        original.wake()

    def send(self, original: Original, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""
        original.started = original.answered = original.whole = True
        original.status, original.headers = status, tuple(headers)
        original.body = body
        table, size = self._table, len(body)
        if size > table.most // SHARE:
            self._outgrown(original)  # who reads has it all the same
        else:
            table.count(original, size)
            if table.bytes > table.most:
                self._bound(original)
        if original.readers:
            original.wake()

    # --- and ends ---------------------------------------------------------------------------------------------

    def end(self, original: Original, spec: RetrySpec, now: float, *, tries: int, final: bool) -> None:
        """
        The call is over. Kept is what a retry could ask for: an answer that its client has not got, or how many tries
        a failure took. What succeeded and was got is let go at once, which costs a tenth less CPU than to keep all.

        `final`: another try would bring no other answer. A call that was given up before anything was sent leaves
        nothing behind.
        """
        original.running, original.ended = False, now
        original.tries += tries
        original.final = final
        original.joined = original.deserted = None  # else what is kept would keep its connection
        if not original.joinable or not original.whole:
            self._table.count(original, -original.size)
            original.joinable = False
            if not original.readers:
                self._let_go(original)
        done = original.got and final and original.status < 400
        if original.tries and not (done and _marked_only(original, spec)):
            if isinstance(original.body, bytearray) and original.joinable:
                original.body = bytes(original.body)
            head = sum([len(name) + len(value) + FIELD_BYTES for name, value in original.headers])
            self._table.count(original, head)
            self._table.keep(original)
        else:
            self._table.remove(original)
        original.wake()

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
            self._table.count(original, -original.trim())
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
        if not original.running:
            self._table.got(original)

    def clear(self) -> None:
        """Another policy is in force: nothing that has ended can be asked for any more."""
        self._table.clear()

    # --- within the bound -------------------------------------------------------------------------------------

    def _bound(self, original: Original) -> None:
        """Make room for an answer that has grown; what cannot have it is not kept any longer."""
        if original.size > self._table.most // SHARE:
            self._outgrown(original)
        if self._table.bytes > self._table.most:
            self._table.fit()
            if self._table.bytes > self._table.most:
                self._outgrown(original)

    def _outgrown(self, original: Original) -> None:
        """Nobody can join any more; whoever reads gets the rest, unless it falls too far behind."""
        original.joinable = False
        if not original.streamed:
            self._table.count(original, -original.size)
            return
        original.trim()
        self._table.count(original, len(original.body) - original.size)
        while original.body and (original.size > self._table.most // SHARE or self._table.bytes > self._table.most):
            slowest = min(reader.position for reader in original.readers if not reader.cut)
            for reader in original.readers:
                if reader.position == slowest:
                    reader.cut = True
                    reader.position = original.base + len(original.body)
            original.trim()
            self._table.count(original, len(original.body) - original.size)

    def _let_go(self, original: Original) -> None:
        """Of an answer that nobody can join nor reads."""
        if original.running:
            self._table.count(original, -original.size)
        original.drop(len(original.body))
        original.headers = ()


def _marked_only(original: Original, spec: RetrySpec) -> bool:
    """Whether only calls that say they are retries may join it."""
    mode = spec.deduplication.mode
    return mode == "ClientRetries" or (mode == "IdempotencyKey" and not original.call.key)


def _likely(original: Original) -> tuple[bool, bool]:
    """How likely a call is the one that a retry repeats: nobody shall get the answer of another one's call."""
    return original.waiting, original.joinable
