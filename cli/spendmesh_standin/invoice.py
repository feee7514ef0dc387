"""The stand-in's own invoice: one line for each attempt that reached it, in memory and in an append-only file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from spendmesh_standin.faults import Bill
from spendmesh_standin.prices import Tokens

Reason = Literal["ok", "disconnect", "error", "timeout"]


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One attempt. `reason` says how it ended, `billed` how much of it is charged; `tokens` are the charged ones.

    `id` is the request id that the response headers carried, `time` its arrival in RFC 3339.
    """

    id: str
    time: str
    provider: str
    account: str
    key_hash: str
    dialect: str
    operation: str
    model: str
    service_tier: str
    status: int
    reason: Reason
    billed: Bill
    tokens: Tokens
    fees_nanos: int
    cost_nanos: int

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> InvoiceLine:
        return cls(**{**data, "tokens": Tokens(**data["tokens"])})


@dataclass(frozen=True, slots=True)
class Statement:
    """The invoice at one moment."""

    lines: tuple[InvoiceLine, ...]

    @property
    def cost_nanos(self) -> int:
        return sum(line.cost_nanos for line in self.lines)

    def cost_by(self, key: Callable[[InvoiceLine], str]) -> dict[str, int]:
        """Nano-USD by model, account, reason or anything else that `key` reads from a line."""
        costs: dict[str, int] = {}
        for line in self.lines:
            costs[key(line)] = costs.get(key(line), 0) + line.cost_nanos
        return costs

    def totals(self) -> dict[str, Any]:
        """Sums over everything, and by model, account, provider and reason."""

        def split(key: Callable[[InvoiceLine], str]) -> dict[str, Any]:
            groups: dict[str, list[InvoiceLine]] = {}
            for line in self.lines:
                groups.setdefault(key(line), []).append(line)
            return {name: _sums(lines) for name, lines in sorted(groups.items())}

        return {
            **_sums(self.lines),
            "by_model": split(lambda line: line.model),
            "by_account": split(lambda line: line.account),
            "by_provider": split(lambda line: line.provider),
            "by_reason": split(lambda line: line.reason),
        }


def _sums(lines: Iterable[InvoiceLine]) -> dict[str, int]:
    attempts = billed = cost = prompt = completion = 0
    for line in lines:
        attempts += 1
        billed += line.billed != "none"
        cost += line.cost_nanos
        prompt += line.tokens.prompt
        completion += line.tokens.completion + line.tokens.hidden
    return {
        "attempts": attempts,
        "billed_attempts": billed,
        "cost_nanos": cost,
        "input_tokens": prompt,
        "output_tokens": completion,
    }


class Invoice:
    """Books lines. With a file, `book` writes and flushes each, and an existing file is continued."""

    def __init__(self, path: Path | None = None) -> None:
        self._lines: list[InvoiceLine] = []
        self._file: IO[bytes] | None = None
        if path is not None:
            self._file = self._continue(path)

    def book(self, line: InvoiceLine) -> None:
        """Add a line."""
        self._lines.append(line)
        self._write(asdict(line))

    def statement(self) -> Statement:
        """Everything booked so far."""
        return Statement(tuple(self._lines))

    def clear(self) -> None:
        """Begin an empty invoice; the file keeps its old lines and gets a mark after them."""
        self._lines.clear()
        self._write({"reset": True})

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, record: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()

    def _continue(self, path: Path) -> IO[bytes]:
        """Read what a predecessor wrote; a last line without its end was never booked and is cut off."""
        file = path.open("a+b")
        try:
            self._read(file, path.name)
        except ValueError:
            file.close()
            raise
        return file

    def _read(self, file: IO[bytes], name: str) -> None:
        file.seek(0)
        end = 0
        for number, raw in enumerate(file, start=1):
            if not raw.endswith(b"\n"):
                break
            try:
                record = json.loads(raw)
                if "reset" in record:
                    self._lines.clear()
                else:
                    self._lines.append(InvoiceLine.from_json(record))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{name}, line {number}: not an invoice line; use another file") from error
            end += len(raw)
        file.truncate(end)
        file.seek(0, 2)
