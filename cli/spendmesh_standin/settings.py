"""How a stand-in provider is set up: keys, the logical providers it plays, speed. Reads nothing from outside."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, get_args

from spendmesh_standin.faults import Bill
from spendmesh_standin.prices import Dialect

KeyDialect = Literal["openai", "anthropic", "any"]


@dataclass(frozen=True, slots=True)
class Key:
    """A key that is accepted, for which dialect, and whose account pays."""

    secret: str = field(repr=False)
    account: str
    dialect: KeyDialect = "any"

    @property
    def digest(self) -> str:
        """What the invoice shows in place of the key."""
        return sha256(self.secret.encode()).hexdigest()[:16]

    @classmethod
    def parse(cls, text: str) -> Key:
        """`openai=sk-…`, or `openai:team-a=sk-…` to name the account; `any=` is good for both dialects.

        Raises ValueError; the message does not hold the key.
        """
        left, _, secret = text.partition("=")
        dialect, _, account = left.partition(":")
        if dialect not in get_args(KeyDialect) or not secret:
            raise ValueError("key: write openai=KEY, anthropic=KEY or any=KEY, with an account as openai:team-a=KEY")
        kind: KeyDialect = "openai" if dialect == "openai" else "anthropic" if dialect == "anthropic" else "any"
        return cls(secret, account or dialect, kind)


DEFAULT_KEYS = (Key("sk-standin-openai", "openai", "openai"), Key("sk-ant-standin", "anthropic", "anthropic"))


@dataclass(frozen=True, slots=True)
class Settings:
    """Times are in seconds; 0 tokens per second means at once.

    `providers` maps the name of a logical provider to the path prefix that it answers under; "" is the root.
    `disconnect_billing` is what a call costs whose client left before its end.
    """

    keys: tuple[Key, ...] = DEFAULT_KEYS
    providers: Mapping[str, str] = field(default_factory=lambda: {"default": ""})
    default_output_tokens: int = 16
    chunk_tokens: int = 1
    ttft_seconds: float = 0.0
    tokens_per_second: float = 0.0
    disconnect_billing: Bill = "full"
    record_bodies: bool = False

    def __post_init__(self) -> None:
        for name, prefix in self.providers.items():
            if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
                raise ValueError(
                    f"providers.{name}: {prefix!r} must begin with a slash and not end with one, as /backup"
                )
        if self.chunk_tokens < 1:
            raise ValueError(f"chunk_tokens: {self.chunk_tokens} is below 1")
        if self.disconnect_billing not in get_args(Bill):
            raise ValueError(f"disconnect_billing: {self.disconnect_billing!r} is none of {', '.join(get_args(Bill))}")

    def generation_seconds(self, tokens: int) -> float:
        """How long the model takes to say that much."""
        return tokens / self.tokens_per_second if self.tokens_per_second > 0 else 0.0

    def provider_of(self, path: str) -> tuple[str, str] | None:
        """The logical provider that a path belongs to and the path without its prefix; the longest prefix wins."""
        for name, prefix in sorted(self.providers.items(), key=lambda item: -len(item[1])):
            if path.startswith(f"{prefix}/"):
                return name, path[len(prefix) :]
        return None

    def find_key(self, dialect: Dialect, secret: str) -> Key | None:
        """The accepted key with this secret, if any."""
        given = secret.encode("utf-8", "surrogateescape")
        for key in self.keys:
            if key.dialect in (dialect, "any") and hmac.compare_digest(key.secret.encode(), given):
                return key
        return None
