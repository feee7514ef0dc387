"""
Headers, both ways: hints in, credentials out, and nothing that could be forged or confuse the next hop.

Requests pass an allow-list; answers pass all but what belongs to one hop or to us. Bodies are not read here.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, TypeVar

from msgspec import Struct

from spendmesh_sidecar.core.failures.hints import Headers as Headers, number
from spendmesh_sidecar.core.operations.errors import invalid
from spendmesh_sidecar.core.specs import Dialect
from spendmesh_sidecar.core.types import Hints

MAX_HINT_CHARACTERS = 128
"""As OpenAI's `safety_identifier`."""
MAX_SCOPE_BYTES = 128
"""UTF-8, after NFC: the value of a header that a limit is divided by becomes part of an account's name."""

MAX_CLIENT_WAIT_SECONDS = 86_400.0
"""A day: who waits longer waits for ever."""

_OURS = "x-spendmesh-"
_HINTS = {f"{_OURS}{name.replace('_', '-')}": name for name in Hints.__struct_fields__ if name != "scopes"}
_PASSED = frozenset({"accept", "anthropic-version", "idempotency-key", "traceparent", "tracestate", "user-agent"})
_PASSED_PREFIX = "x-stainless-"
_BETAS = "anthropic-beta"
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
        # Not of one hop by name, but true only of the upstream connection.
        "alt-svc",
        "content-length",
        # A redirect is not followed here, and must not lead the client past the budget.
        "location",
    }
)
_RETRY_COUNT = re.compile(r"[0-9]{1,3}")

MAX_REMEMBERED_NAMES = 512
MAX_REMEMBERED_CHARACTERS = 64
"""Names of headers as they were written: what to do with each is looked up once. Strangers choose them, so few and
short ones."""

_Use = Literal["dropped", "passed", "hint", "betas"]
_Fate = Literal["dropped", "passed", "names more"]
_Meaning = TypeVar("_Meaning")
_uses: dict[str, tuple[_Use, str]] = {}
_fates: dict[str, _Fate] = {}


# --- from the client --------------------------------------------------------------------------------------


class ClientHeaders(Struct, frozen=True, gc=False):
    """What is read of a request's headers, names in lower case: all others are dropped."""

    passed: dict[str, str]
    """May go upstream; of a repeated one the first."""
    hints: tuple[tuple[str, str], ...] = ()
    betas: tuple[str, ...] = ()
    """Values of `anthropic-beta`, which may be a list and may be repeated."""

    @classmethod
    def of(cls, headers: Headers) -> ClientHeaders:
        """Sort the headers of one request by their use, in one pass."""
        passed: dict[str, str] = {}
        hints: list[tuple[str, str]] = []
        betas: list[str] = []
        for raw_name, value in headers:
            use, name = _uses.get(raw_name) or _use(raw_name)
            if use == "passed":
                passed.setdefault(name, value)
            elif use == "hint":
                hints.append((name, value))
            elif use == "betas":
                betas += [beta for part in value.split(",") if (beta := part.strip())]
        return cls(passed, tuple(hints), tuple(betas))


def _use(raw_name: str) -> tuple[_Use, str]:
    name = raw_name.lower()
    use: _Use = "dropped"
    if name in _HINTS:
        use = "hint"
    elif name == _BETAS:
        use = "betas"
    elif name in _PASSED or name.startswith(_PASSED_PREFIX):
        use = "passed"
    return _remember(_uses, raw_name, (use, name))


def read_hints(headers: ClientHeaders) -> Hints:
    """
    What `x-spendmesh-*` request headers say, in NFC.

    Only the exact names count: variants with underscores are other headers, and are dropped. Raises RequestError for
    a hint that is there twice, too long, or not text: which one to believe would be a guess about whose money it is.
    """
    values: dict[str, str] = {}
    for name, raw_value in headers.hints:
        hint = _HINTS[name]
        if hint in values:
            raise invalid(f"Header {name} is there twice; send it once", name)
        value = _text(name, raw_value)
        if len(value) > MAX_HINT_CHARACTERS:
            raise invalid(f"Header {name} has more than {MAX_HINT_CHARACTERS} characters", name)
        values[hint] = value
    return Hints(**values, scopes=())


def read_scopes(headers: Headers, scopes: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """
    Name and value, in NFC, of the headers that limits are divided by (`scopes`, lower case).

    Raises RequestError for one that is there twice, also with underscores, which some proxies take as equal.
    """
    values: dict[str, str] = {}
    for raw_name, raw_value in headers:
        if (name := raw_name.lower().replace("_", "-")) not in scopes:
            continue
        if name in values or name != raw_name.lower():
            raise invalid(f"Header {name} says whose budget a call takes: send it once, without underscores", name)
        value = _text(name, raw_value)
        if len(value.encode()) > MAX_SCOPE_BYTES:
            raise invalid(f"Header {name} has more than {MAX_SCOPE_BYTES} bytes", name)
        values[name] = value
    return tuple(sorted(values.items()))


def _text(name: str, raw_value: str) -> str:
    """A header's value in NFC. Raises RequestError for what is not text."""
    value = raw_value.strip()
    if not value.isascii():
        value = unicodedata.normalize("NFC", value)
    if not value.isprintable() and any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise invalid(f"Header {name} holds control characters or is not UTF-8", name)
    return value


def read_client_retry(headers: ClientHeaders) -> int:
    """Which retry of its own the SDK says this is; 0 when it says nothing that can be believed."""
    text = headers.passed.get("x-stainless-retry-count", "").strip()
    return int(text) if _RETRY_COUNT.fullmatch(text) else 0


def read_client_wait(headers: ClientHeaders) -> float:
    """How many seconds the SDK waits for the next byte; 0 when it says nothing that can be believed."""
    text = headers.passed.get("x-stainless-read-timeout", "").strip()
    seconds = number(text) or 0.0
    return seconds if seconds <= MAX_CLIENT_WAIT_SECONDS else 0.0


def upstream_headers(dialect: Dialect, headers: ClientHeaders) -> dict[str, str]:
    """
    The client's headers that go upstream.

    Never among them: credentials (see `credentials`), organization and project, host, lengths, cookies, our own.
    Betas pass together: those without a known price have been refused before. Answers are asked for unpacked, so
    that their usage can be read.
    """
    kept = {"content-type": "application/json", "accept-encoding": "identity", **headers.passed}
    if dialect == "Anthropic":
        if headers.betas:
            kept[_BETAS] = ",".join(headers.betas)
    else:
        kept.pop("anthropic-version", None)
    return kept


def credentials(dialect: Dialect, key: str) -> tuple[str, str]:
    """The header by which a dialect says who pays."""
    return ("x-api-key", key) if dialect == "Anthropic" else ("authorization", f"Bearer {key}")


# --- from the provider ------------------------------------------------------------------------------------


def response_headers(
    headers: Headers, should_retry: Literal["false", "upstream"] = "upstream"
) -> list[tuple[str, str]]:
    """
    The provider's headers that the client gets, as they were written.

    Without those of the connection, without a length (the writer of the body knows it), and without anything that
    looks like ours. With `should_retry` "false", the SDKs are told that retries have been decided here.
    """
    kept: list[tuple[str, str]] = []
    named = ""
    for pair in headers:
        fate = _fates.get(pair[0]) or _fate(pair[0])
        if fate == "passed":
            kept.append(pair)
        elif fate == "names more":
            named += f",{pair[1]}"
    if named:
        of_one_hop = {part.strip().lower() for part in named.split(",")}
        kept = [pair for pair in kept if pair[0].lower() not in of_one_hop]
    if should_retry == "false":
        kept = [pair for pair in kept if pair[0].lower() != "x-should-retry"]
        kept.append(("x-should-retry", "false"))
    return kept


def _fate(raw_name: str) -> _Fate:
    name = raw_name.lower()
    fate: _Fate = "passed"
    if name == "connection":
        fate = "names more"
    elif name in _HOP_BY_HOP or name.replace("_", "-").startswith(_OURS):
        fate = "dropped"
    return _remember(_fates, raw_name, fate)


def _remember(known: dict[str, _Meaning], raw_name: str, meaning: _Meaning) -> _Meaning:
    if len(raw_name) <= MAX_REMEMBERED_CHARACTERS:
        if len(known) >= MAX_REMEMBERED_NAMES:
            known.clear()
        known[raw_name] = meaning
    return meaning
