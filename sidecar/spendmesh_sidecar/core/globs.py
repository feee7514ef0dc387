"""Names with `*` for any text, the only wildcard: they come from users, so matching takes linear time."""

from __future__ import annotations


def matches(pattern: str, name: str) -> bool:
    """Whether `name` as a whole is what `pattern` says."""
    if "*" not in pattern:
        return name == pattern
    head, *rest = pattern.split("*")
    *middle, tail = rest
    if not name.startswith(head) or len(name) < len(head) + len(tail) or not name.endswith(tail):
        return False
    at, end = len(head), len(name) - len(tail)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
