"""The head of an HTTP/1.1 message as bytes, either way. Refuses what would make two messages of one."""

from __future__ import annotations

from collections.abc import Sequence

Headers = Sequence[tuple[str, str]]


def header(headers: Headers, name: str) -> str:
    """The first value of a header, its name in lower case; empty if it is not there."""
    length = len(name)
    for key, value in headers:
        if len(key) == length and key.lower() == name:
            return value
    return ""


def head(first_line: str, headers: Headers, more: str = "") -> bytes:
    """
    A head with its empty line. `more` is header lines of our own, each with its line end.

    Bytes that were no UTF-8 go out as they came in. Raises ValueError for a line end or a null inside a header.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("a header holds a line end or a null")
    return f"{first_line}\r\n{more}{lines}\r\n".encode("utf-8", "surrogateescape")
