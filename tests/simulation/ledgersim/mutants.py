"""
Every comparison and every piece of arithmetic of the ledger, changed one at a time: somebody must notice.

How one is judged is `judging`, how all of them are `hunt`.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
OPERATOR, SIDECAR = "operator/spendmesh_operator/ledger", "sidecar/spendmesh_sidecar/core/ledger"
FILES = (
    *(
        f"{OPERATOR}/books/{name}.py"
        for name in (
            "books",
            "granting",
            "grants",
            "holdings",
            "reporting",
            "merging",
            "accounts",
            "held",
            "pods",
            "periods",
            "rolling",
            "partitions",
            "lives",
            "restoring",
            "fencing",
            "correcting",
            "overrides",
            "pressure",
            "extra",
            "ladder",
            "milestones",
            "answers",
            "diverging",
            "forecast",
            "views",
        )
    ),
    *(
        f"{SIDECAR}/{name}.py"
        for name in (
            "ledger",
            "lease_reports",
            "lease",
            "account",
            "debt",
            "open_attempts",
            "recovery",
            "placing",
            "charges",
            "silence",
            "slices",
            "waiting",
            "partitions",
            "exposure",
            "expectation",
            "metering",
            "rights",
            "demand",
            "reservation",
        )
    ),
    *(f"{OPERATOR}/coordinator/{name}.py" for name in ("asking", "messages", "committer")),
    *(f"{OPERATOR}/document/{name}.py" for name in ("account_pages", "sections", "moves")),
)

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    """One changed expression. Its name stays the same while its line does."""

    file: str
    line: int
    source: str
    before: str
    after: str
    place: int
    """Of the node, in the order of `ast.walk`."""
    change: Callable[[Any], None]
    text: str = field(repr=False)
    """The whole file as it was when its mutants were made."""
    again: int = 1
    """Which of the equal lines of its file it is in."""

    @property
    def name(self) -> str:
        which = f" ({self.again})" if self.again > 1 else ""
        return f"{Path(self.file).name}: {self.source} | {self.before} -> {self.after}{which}"

    @property
    def module(self) -> str:
        """As it is imported."""
        return ".".join(Path(self.file).with_suffix("").parts[1:])

    def code(self) -> CodeType:
        """The whole module with this one change."""
        tree = ast.parse(self.text)
        self.change(list(ast.walk(tree))[self.place])
        return compile(ast.fix_missing_locations(tree), self.file, "exec")


def mutants_of(file: str) -> Iterator[Mutant]:
    """All mutants of a file."""
    text = (ROOT / file).read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    sizes = [top for top in tree.body if isinstance(top, ast.Assign | ast.AnnAssign)]
    annotations = [node.annotation for node in ast.walk(tree) if isinstance(node, ast.arg | ast.AnnAssign)]
    # A named limit's exact value is a choice, no law; an annotation decides nothing.
    left_out = {id(node) for top in (*sizes, *filter(None, annotations)) for node in ast.walk(top)}
    for place, node in enumerate(ast.walk(tree)):
        if id(node) in left_out:
            continue
        for change in _changes(node):
            twin = copy.deepcopy(node)
            change(twin)
            line = node.lineno  # type: ignore[attr-defined]  # only expressions and statements are changed
            yield Mutant(file, line, lines[line - 1].strip(), ast.unparse(node), ast.unparse(twin), place, change, text)


def _changes(node: ast.AST) -> Iterator[Callable[[Any], None]]:
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in _COMPARISONS.get(type(operator), ()):
                yield lambda twin, place=place, other=other: twin.ops.__setitem__(place, other())
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _ARITHMETIC and not _is_type(node):
        other_operator = _ARITHMETIC[type(node.op)]
        yield lambda twin: setattr(twin, "op", other_operator())
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        for step in (1, -1):
            yield lambda twin, step=step: setattr(twin, "value", twin.value + step)


def _is_type(node: ast.BinOp | ast.AugAssign) -> bool:
    return isinstance(node, ast.BinOp) and isinstance(node.left, ast.JoinedStr | ast.Tuple)


@cache
def all_mutants() -> tuple[Mutant, ...]:
    """Every one of every file, named apart from each other."""
    found: dict[str, Mutant] = {}
    for file in FILES:
        for mutant in mutants_of(file):
            again = next(number for number in count(1) if replace(mutant, again=number).name not in found)
            named = replace(mutant, again=again)
            found[named.name] = named
    return tuple(found.values())
