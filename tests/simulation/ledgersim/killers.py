"""
What noticed each mutant the last time, as a committed table: it is tried first, so that judging all takes minutes.

A name stays the same while its line does. What a change of the product makes notice no more is searched anew; `make
sim ARGS='--mutants --remember'` writes the table afresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FILE = Path(__file__).with_name("mutants_killers.txt")
SEPARATOR = "  # "
"""Between a mutant's name and what is said of it; a name may contain it, what is said does not."""


def read(file: Path = FILE) -> dict[str, str]:
    """Name -> what is said of it, of a table of mutants; lines that begin with `#` are for people."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    cut = (line.rpartition(SEPARATOR) for line in lines if line and not line.startswith("#"))
    return {name.strip(): said.strip() for name, _, said in cut}


def write(killers: Mapping[str, str]) -> None:
    """In the order in which they are given."""
    head = "# Who noticed each mutant the last time: `seed <n>`, `law <test>`, or `import`. Written by --remember.\n"
    lines = (f"{name}{SEPARATOR}{killer}\n" for name, killer in killers.items())
    FILE.write_text(head + "".join(lines), encoding="utf-8")
