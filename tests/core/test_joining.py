"""Which call joins which: by what the policy wants, what the call says of itself, and what became of the other."""

from __future__ import annotations

from typing import Any

import pytest

from spendmesh_sidecar.core.failures.retry_specs import DeduplicationSpec, RetrySpec
from spendmesh_sidecar.core.joins.fingerprint import Call
from spendmesh_sidecar.core.joins.joining import FIELD_BYTES, Apart, Joins, Reused, Spent, Verdict, joins_calls
from spendmesh_sidecar.core.joins.originals import ENTRY_BYTES, Original, Reader

SAME, OTHER, KEY = b"same", b"other", b"key"
HEADERS = [("content-type", "application/json")]


def spec(joins: Any = "ClientRetries", attempts: int = 2, **more: Any) -> RetrySpec:
    rules = {name: more.pop(name) for name in ("window_ms", "max_bytes") if name in more}
    return RetrySpec(attempts=attempts, deduplication=DeduplicationSpec(mode=joins, **rules), **more)


def call(name: str = "b", retry: int = 0, content: bytes = SAME, key: bytes = b"") -> Call:
    return Call(name, content, key, retry)


def reader() -> Reader:
    return Reader(lambda: None)


class Life:
    """One pod's calls, with a clock of its own."""

    def __init__(self, rules: RetrySpec | None = None) -> None:
        self.joins, self.spec, self.now = Joins(), rules or spec(), 100.0

    def begin(self, name: str = "a", content: bytes = SAME, key: bytes = b"", earlier: int = 0) -> Original:
        return self.joins.begin(call(name, content=content, key=key), self.spec, earlier)

    def ask(self, asked: Call) -> Verdict:
        return self.joins.ask(asked, self.spec, self.now)

    def served(self, original: Original, body: bytes = b"{}", *, got: bool = False, final: bool = True) -> None:
        """It is answered in whole and ends; `got`: its own client was there."""
        original.left = not got
        self.joins.send(original, 200 if final else 503, HEADERS, body)
        if got:
            self.joins.has(original)
        self.end(original, final=final)

    def end(self, original: Original, *, tries: int = 1, final: bool = True) -> None:
        self.joins.end(original, self.spec, self.now, tries=tries, final=final)


# --- which calls may join at all --------------------------------------------------------------------------


@pytest.mark.parametrize("ended", [False, True], ids=["in flight", "kept"])
@pytest.mark.parametrize(
    ("mode", "asked", "joined"),
    [
        ("ClientRetries", call(retry=1), True),
        ("ClientRetries", call(), False),
        ("ClientRetries", call(key=KEY), False),
        ("IdempotencyKey", call(retry=1), True),
        ("IdempotencyKey", call(key=KEY), True),
        ("IdempotencyKey", call(), False),
        ("All", call(retry=1), True),
        ("All", call(key=KEY), True),
        ("All", call(), True),
    ],
)
def test_a_mode_says_which_calls_join(mode: Any, asked: Call, joined: bool, ended: bool) -> None:
    """Two calls that only happen to be equal are never merged, save where the policy wants just that."""
    life = Life(spec(mode))
    original = life.begin(key=KEY)
    if ended:
        life.served(original)
    assert life.ask(asked) == (original if joined else Apart())
    assert life.joins.outcomes.total() == joined


@pytest.mark.parametrize("mode", ["ClientRetries", "IdempotencyKey", "All"])
def test_another_content_is_never_joined(mode: Any) -> None:
    life = Life(spec(mode))
    life.begin()
    assert life.ask(call(retry=1, content=OTHER)) == Apart()


def test_a_key_with_another_content_is_told_so_until_its_window_is_over() -> None:
    life = Life(spec("IdempotencyKey", window_ms=1_000))
    original = life.begin(key=KEY)
    assert life.ask(call(content=OTHER, key=KEY)) == Reused()
    life.served(original)
    life.now += 1.0
    assert life.ask(call(content=OTHER, key=KEY)) == Reused()
    life.now += 0.1
    assert life.ask(call(content=OTHER, key=KEY)) == Apart()
    assert life.joins.outcomes == {"reused": 2}


@pytest.mark.parametrize(
    ("rules", "joins"),
    [(RetrySpec(), True), (spec("Off"), False), (spec("All", mode="Observe"), False)],
)
def test_off_and_a_lone_observe_join_nothing(rules: RetrySpec, joins: bool) -> None:
    assert joins_calls(rules) is joins


# --- what can be joined -----------------------------------------------------------------------------------


def cancelled(life: Life, original: Original) -> None:
    """Its client left before anything was sent for it."""
    original.left = True
    life.end(original, tries=0, final=False)


def cut_short(life: Life, original: Original) -> None:
    """It was read for nobody for so long, and then given up."""
    original.left = True
    life.end(original, tries=1)


def broken(life: Life, original: Original) -> None:
    """Its stream broke off."""
    life.joins.start(original, 200, HEADERS)
    life.joins.write(original, b"data: a\n\n")
    life.joins.finish(original, complete=False)
    life.end(original, final=False)


def too_long(life: Life, original: Original) -> None:
    life.served(original, bytes(DeduplicationSpec().max_bytes // 4 + 1))


def failed(life: Life, original: Original) -> None:
    life.served(original, b"busy", final=False)


def our_own_answer(life: Life, original: Original) -> None:
    """Refused before a try: circumstances may be others now."""
    life.joins.send(original, 402, HEADERS, b"no budget")
    life.end(original, tries=0, final=False)


@pytest.mark.parametrize(
    ("end", "verdict"),
    [
        (cancelled, Apart()),
        (cut_short, Apart(1)),
        (broken, Apart(1)),
        (too_long, Apart(1)),
        (failed, Apart(1)),
        (our_own_answer, Apart()),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_has_no_answer_to_give_is_not_joined(end: Any, verdict: Verdict) -> None:
    """A retry of it is made, and its tries count on."""
    life = Life()
    original = life.begin()
    end(life, original)
    assert life.ask(call(retry=1)) == verdict
    assert life.joins.outcomes == {"missed": 1}


@pytest.mark.parametrize("mode", ["IdempotencyKey", "All"])
@pytest.mark.parametrize("end", [cut_short, broken, too_long, failed, our_own_answer])
def test_a_failure_is_no_answer_for_calls_that_are_no_retries(mode: Any, end: Any) -> None:
    life = Life(spec(mode))
    end(life, life.begin(key=KEY))
    assert life.ask(call(key=KEY)) == Apart()


def test_whoever_has_joined_before_a_failure_has_its_answer_too() -> None:
    life = Life()
    original, beside = life.begin(), reader()
    assert life.ask(call(retry=1)) is original
    life.joins.join(original, beside)
    failed(life, original)
    assert life.joins.take(original, beside) == b"busy" and original.whole


@pytest.mark.parametrize(
    ("mode", "key", "kept"),
    [
        ("ClientRetries", b"", False),
        ("ClientRetries", KEY, False),
        ("IdempotencyKey", b"", False),
        ("IdempotencyKey", KEY, True),
        ("All", b"", True),
    ],
)
def test_an_answer_that_was_got_is_kept_where_calls_that_are_no_retries_ask(mode: Any, key: bytes, kept: bool) -> None:
    life = Life(spec(mode))
    life.served(original := life.begin(key=key), got=True)
    assert (life.joins.kept_bytes > 0) is kept
    assert life.ask(call(retry=1, key=key)) == (original if kept else Apart())


@pytest.mark.parametrize("final", [True, False])
def test_a_failure_is_kept_though_its_client_has_got_it(final: bool) -> None:
    """Else a client that retries all the same would have it made anew each time."""
    life = Life(spec(attempts=0))
    original = life.begin()
    life.joins.send(original, 400, HEADERS, b"wrong")
    life.joins.has(original)
    life.end(original, final=final)
    assert life.ask(call(retry=1)) is original


def test_all_that_is_kept_is_counted() -> None:
    life = Life()
    life.served(life.begin(), b"12345")
    text = sum(len(name) + len(value) for name, value in HEADERS)
    assert life.joins.kept_bytes == ENTRY_BYTES + 5 + text + FIELD_BYTES * len(HEADERS)


def test_what_is_kept_holds_nothing_of_the_connection_that_it_was_for() -> None:
    life = Life()
    original, told = life.begin(), []
    original.joined = original.deserted = lambda: told.append("a connection that is closed")
    life.served(original)
    life.joins.join(original, beside := reader())
    life.joins.leave(original, beside, got=True)
    assert (original.joined, original.deserted, told) == (None, None, [])


# --- tries of one logical call ----------------------------------------------------------------------------


def test_a_call_gets_no_more_tries_by_being_retried_by_its_client() -> None:
    """Of three tries one is left after two; after three the last answer is all there is."""
    life = Life(spec(attempts=2))
    life.served(life.begin("a"), final=False)
    assert life.ask(call("b", retry=1)) == Apart(1)
    life.joins.send(second := life.begin("b", earlier=1), 503, HEADERS, b"second")
    life.end(second, tries=2, final=False)
    third = life.ask(call("c", retry=2))
    assert third is second and second.body == b"second"
    assert life.ask(call("d", retry=3)) is second


def test_a_second_retry_joins_the_first_one_and_not_what_that_goes_on_from() -> None:
    life = Life(spec(attempts=2))
    life.served(life.begin("a"), got=False, final=False)
    assert life.ask(call("b", retry=1)) == Apart(1)
    second = life.begin("b", earlier=1)
    assert life.ask(call("c", retry=2)) is second


def test_where_every_try_was_made_and_no_answer_is_left_the_retry_is_refused() -> None:
    life = Life(spec(attempts=0))
    broken(life, life.begin())
    assert life.ask(call(retry=1)) == Spent(1)


def test_a_first_try_begins_a_new_call() -> None:
    """The same question asked anew has all its tries, and its own retries go on with those."""
    life = Life(spec(attempts=0))
    broken(life, life.begin("a"))
    assert life.ask(call("b")) == Apart()
    original = life.begin("b")
    assert life.ask(call("c", retry=1)) is original


def test_clients_whose_retries_are_only_counted_may_make_them() -> None:
    life = Life(spec(attempts=0, client_retries="Count"))
    failed(life, life.begin())
    assert life.ask(call(retry=1)) == Apart()


# --- which of several equal calls -------------------------------------------------------------------------


def test_each_of_two_lost_calls_is_joined_by_one_retry() -> None:
    """Independent calls stay two though both are retried: nobody gets the answer of another one's call."""
    life = Life()
    first, second, present = life.begin("a"), life.begin("b"), life.begin("c")
    first.left = second.left = True
    joined = []
    for name in ("d", "e"):
        original = life.ask(call(name, retry=1))
        assert isinstance(original, Original)
        life.joins.join(original, reader())
        joined.append(original)
    assert {id(first), id(second)} == {id(each) for each in joined}
    assert present not in joined


@pytest.mark.parametrize("gives_up", [True, False])
def test_a_retry_takes_the_call_whose_client_has_left_before_one_that_is_being_read(gives_up: bool) -> None:
    life = Life()
    lost = life.begin("a")
    life.begin("b")
    if gives_up:
        cut_short(life, lost)
        assert life.ask(call("c", retry=1)) == Apart(1)
    else:
        life.served(lost, got=False)
        assert life.ask(call("c", retry=1)) is lost


def test_a_second_retry_joins_the_call_that_the_first_one_left() -> None:
    life = Life()
    original, beside = life.begin("a"), reader()
    original.left = True
    life.begin("b")
    life.joins.join(original, beside)
    life.joins.leave(original, beside, got=False)
    assert life.ask(call("c", retry=2)) is original


# --- kept within bounds -----------------------------------------------------------------------------------


def test_an_answer_is_kept_for_its_window() -> None:
    life = Life(spec(window_ms=60_000))
    life.served(original := life.begin())
    life.now += 60.0
    assert life.ask(call(retry=1)) is original
    life.now += 0.001
    assert life.ask(call(retry=1)) == Apart()
    assert life.joins.kept_bytes == 0


def test_the_oldest_answers_go_first_and_those_that_their_clients_have_before_all() -> None:
    size = 10_000
    kept = size + ENTRY_BYTES + 500
    life = Life(spec("All", max_bytes=4 * kept))
    for name, got in (("lost", False), ("had 1", True), ("had 2", True), ("lost 2", False), ("had 3", True)):
        life.served(life.begin(name, content=name.encode()), bytes(size), got=got)
    left = [name for name in ("lost", "had 1", "had 2", "lost 2", "had 3") if _kept(life, name)]
    assert left == ["lost", "had 2", "lost 2", "had 3"]
    for name in ("lost 3", "lost 4", "lost 5"):
        life.served(life.begin(name, content=name.encode()), bytes(size), got=False)
    assert [name for name in ("lost", "lost 2", "lost 3", "lost 4", "lost 5") if _kept(life, name)] == [
        "lost 2",
        "lost 3",
        "lost 4",
        "lost 5",
    ]


def _kept(life: Life, name: str) -> bool:
    return isinstance(life.ask(call(retry=1, content=name.encode())), Original)


def test_answers_in_flight_push_kept_ones_out() -> None:
    life = Life(spec(max_bytes=65_536))
    for name in "123":
        life.served(life.begin(name, content=name.encode()), bytes(10_000))
    running = [life.begin(name, content=name.encode()) for name in "abcde"]
    for each in running:
        life.joins.start(each, 200, [])
        life.joins.write(each, bytes(12_000))
    assert life.joins.kept_bytes <= 65_536
    assert not _kept(life, "1")
    assert [life.ask(call(retry=1, content=name.encode())) for name in "abcde"] == running


def test_answers_in_flight_stay_within_the_bound_together() -> None:
    """Where nothing that has ended can make room, the one that grows is not kept any longer."""
    life = Life(spec(max_bytes=65_536))
    running = [life.begin(name, content=name.encode()) for name in "abcde"]
    for each in running:
        life.joins.start(each, 200, [])
        life.joins.write(each, bytes(15_000))
    assert [each.joinable for each in running] == [True, True, True, True, False]
    assert life.joins.kept_bytes == 60_000


def test_of_an_answer_that_broke_off_nothing_is_held() -> None:
    life = Life()
    broken(life, life.begin())
    assert life.joins.kept_bytes == ENTRY_BYTES


def test_a_body_is_held_within_the_bound_until_it_is_compared() -> None:
    """Calls of other lengths need no comparison; one of its own length is compared, and its body let go."""
    life = Life()
    original = life.joins.begin(Call("a", length=5_000, words=b"words", body=bytes(5_000)), life.spec)
    life.served(original)
    before = life.joins.kept_bytes
    assert before >= ENTRY_BYTES + 5_005
    for length, held in ((4_999, 5_005), (5_000, 0)):
        assert life.ask(Call("b", client_retry=1, length=length, words=b"w", body=bytes(length))) == Apart()
        assert (original.call.held, life.joins.kept_bytes) == (held, before - 5_005 + held)
    assert life.ask(Call("c", client_retry=1, length=5_000, words=b"words", body=bytes(5_000))) is original


def test_a_stream_that_outgrows_its_share_goes_on_for_those_who_read_it() -> None:
    """Nobody else joins it, and of its bytes only those are held that somebody lacks."""
    life = Life(spec(max_bytes=65_536))
    original, beside = life.begin(), reader()
    life.joins.start(original, 200, HEADERS)
    life.joins.join(original, beside)
    got = b""
    for number in range(40):
        life.joins.write(original, bytes([number]) * 1_000)
        got += life.joins.take(original, beside)
    assert got == b"".join(bytes([number]) * 1_000 for number in range(40)) and not beside.cut
    assert life.joins.kept_bytes == 0
    assert life.ask(call(retry=1)) == Apart(1)


def test_who_falls_too_far_behind_is_cut_and_the_others_are_not() -> None:
    life = Life(spec(max_bytes=65_536))
    original, slow, quick = life.begin(), reader(), reader()
    life.joins.start(original, 200, HEADERS)
    for each in (slow, quick):
        life.joins.join(original, each)
    for _ in range(40):
        life.joins.write(original, bytes(1_000))
        life.joins.take(original, quick)
    assert slow.cut and not quick.cut
    assert life.joins.take(original, slow) == b""


def test_another_policy_lets_all_go_that_has_ended() -> None:
    life = Life()
    life.served(life.begin("a"))
    life.served(life.begin("b", content=OTHER), got=False)
    life.joins.clear()
    assert life.joins.kept_bytes == 0
    assert life.ask(call(retry=1)) == life.ask(call(retry=1, content=OTHER)) == Apart()


def test_what_can_no_longer_be_joined_says_so() -> None:
    life = Life(spec(max_bytes=65_536))
    original = life.begin()
    life.joins.send(original, 200, HEADERS, bytes(20_000))
    with pytest.raises(ValueError, match="cannot be joined"):
        life.joins.join(original, reader())
