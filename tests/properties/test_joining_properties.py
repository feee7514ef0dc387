"""
The laws of joining, under any order of calls, retries, answers, failures, departures and policies.

Each original ends once; who joins makes no try; the bytes that are held stay within the bound; a call that was given up
is not joined; unrelated calls never share an answer; and a client's retries give a call no more tries than it has.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from msgspec import Struct

from spendmesh_sidecar.core.failures.retry_specs import DeduplicationSpec, RetrySpec
from spendmesh_sidecar.core.joins.fingerprint import Call
from spendmesh_sidecar.core.joins.joining import Joins, Reused, Spent
from spendmesh_sidecar.core.joins.originals import Original, Reader

MOST = 4_096
ATTEMPTS = 2
CONTENTS = st.sampled_from([b"x", b"y"])
KEYS = st.sampled_from([b"", b"", b"k", b"l"])
MODES = st.sampled_from(["ClientRetries", "IdempotencyKey", "All"])


class Made(Struct, eq=False):
    """A call that makes tries of its own, and what a client would have seen of it."""

    original: Original
    content: bytes
    """With the policy that it was made under."""
    answer: bytes = b""
    ended: bool = False


class Joined(Struct, eq=False):
    """A call that has joined another one."""

    made: Made
    reader: Reader
    seen: bytes = b""


class JoiningMachine(RuleBasedStateMachine):
    """One pod; the model is all that calls ever said and got."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.joins, self.now, self.number = Joins(), 0.0, 0
        self.mode: Any = "ClientRetries"
        self.made: dict[str, Made] = {}
        self.policy = b"1"
        self.open_readers: list[Joined] = []

    @property
    def spec(self) -> RetrySpec:
        rules = DeduplicationSpec(mode=self.mode, window_ms=10_000, max_bytes=MOST)
        return RetrySpec(attempts=ATTEMPTS, deduplication=rules)

    # --- calls --------------------------------------------------------------------------------------------

    @initialize(target=running, content=CONTENTS, key=KEYS)
    def begins(self, content: bytes, key: bytes) -> Any:
        return self.comes(content, key, 0)

    @rule(target=running, content=CONTENTS, key=KEYS, retry=st.integers(0, 2))
    def another(self, content: bytes, key: bytes, retry: int) -> Any:
        return self.comes(content, key, retry)

    def comes(self, content: bytes, key: bytes, retry: int) -> Any:
        self.number += 1
        name = f"request-{self.number}"
        whose = self.policy + key if key else b""
        body = content * 100
        call = Call(name, b"", whose, retry, len(body), words=self.policy + b"/" + key, body=body)
        found = self.joins.ask(call, self.spec, self.now)
        if isinstance(found, Original):
            self._joins(found, self.policy + content, retry, key)
            return multiple()
        if isinstance(found, Reused):
            assert key and self.mode != "ClientRetries"
            return multiple()
        if isinstance(found, Spent):
            assert retry and found.tries > ATTEMPTS
            return multiple()
        assert found.earlier <= ATTEMPTS and (not found.earlier or retry)
        made = Made(self.joins.begin(call, self.spec, found.earlier), self.policy + content)
        self.made[name] = made
        return made

    def _joins(self, found: Original, content: bytes, retry: int, key: bytes) -> None:
        made = self.made[found.request_id]
        assert made.content == content, "a call has got the answer of another one"
        assert retry or self.mode == "All" or (key and self.mode == "IdempotencyKey"), "nobody asked for it"
        assert found.running or found.whole, "a call that was given up has no answer"
        assert found.running or self.now - found.ended <= 10.0
        reader = Reader(lambda: None)
        self.joins.join(found, reader)
        self.open_readers.append(Joined(made, reader))

    # --- answers ------------------------------------------------------------------------------------------

    @rule(made=running, size=st.integers(0, 700))
    def passes(self, made: Made, size: int) -> None:
        if made.ended or made.original.answered:
            return
        if not made.original.started:
            self.joins.start(made.original, 200, [("a", "b")])
        chunk = bytes([len(made.answer) % 251]) * size
        made.answer += chunk
        self.joins.write(made.original, chunk)

    @rule(made=consumes(running), whole=st.booleans(), final=st.booleans(), tries=st.integers(1, 3))
    def ends(self, made: Made, whole: bool, final: bool, tries: int) -> None:
        original = made.original
        if original.started:
            self.joins.finish(original, whole)
        elif whole:
            made.answer = bytes([7]) * (37 * tries)
            self.joins.send(original, 200, [("a", "b")], made.answer)
        if whole and not original.left:
            self.joins.has(original)
        sent = min(tries, ATTEMPTS + 1 - original.tries)
        self.joins.end(original, self.spec, self.now, tries=sent, final=final and whole)
        made.ended = True
        assert original.tries <= ATTEMPTS + 1

    @rule(made=consumes(running))
    def is_given_up(self, made: Made) -> None:
        """Before anything was sent for it: nobody is there any more."""
        made.original.left = True
        if made.original.readers or made.original.started:
            return
        self.joins.end(made.original, self.spec, self.now, tries=0, final=False)
        made.ended = True

    @rule(made=running)
    def its_client_leaves(self, made: Made) -> None:
        made.original.left = True

    # --- readers ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.open_readers)
    @rule(which=st.integers(0, 9))
    def reads(self, which: int) -> None:
        joined = self.open_readers[which % len(self.open_readers)]
        joined.seen += self.joins.take(joined.made.original, joined.reader)
        if not joined.reader.cut:
            assert joined.seen == joined.made.answer, "who joins reads from the first byte, and all of it"

    @precondition(lambda self: self.open_readers)
    @rule(which=st.integers(0, 9))
    def leaves(self, which: int) -> None:
        joined = self.open_readers.pop(which % len(self.open_readers))
        original = joined.made.original
        got = original.whole and not joined.reader.cut and len(joined.seen) == len(joined.made.answer)
        self.joins.leave(original, joined.reader, got=got)

    # --- the world ----------------------------------------------------------------------------------------

    @rule(seconds=st.floats(0.0, 6.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(mode=MODES)
    def policy_changes(self, mode: Any) -> None:
        self.mode = mode
        self.policy += b"1"
        self.joins.clear()

    @invariant()
    def the_bound_holds(self) -> None:
        assert 0 <= self.joins.kept_bytes <= MOST

    @invariant()
    def what_is_held_is_counted(self) -> None:
        """Never less than the bytes that a running answer really holds."""
        held = sum(len(made.original.body) for made in self.made.values() if not made.ended)
        assert held <= self.joins.kept_bytes

    def teardown(self) -> None:
        for made in self.made.values():
            if not made.ended:
                self.joins.end(made.original, self.spec, self.now, tries=0, final=False)
        for joined in self.open_readers:
            self.joins.leave(joined.made.original, joined.reader, got=False)
        self.joins.clear()
        assert self.joins.kept_bytes == 0, "all that was counted has been given back"


TestJoining = JoiningMachine.TestCase
