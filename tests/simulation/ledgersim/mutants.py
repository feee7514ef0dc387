"""
Every comparison and every piece of arithmetic of the ledger, changed one at a time: somebody must notice.

A mutant runs in a process of its own, whose import system serves the changed module. It is killed by the first
history or law that fails. Survivors are listed; those in `mutants_accepted.txt` have a reason there.
"""

from __future__ import annotations

import ast
import copy
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from multiprocessing import get_context
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

Pool = get_context("fork").Pool
ROOT = Path(__file__).resolve().parents[3]
OPERATOR, SIDECAR = "operator/spendmesh_operator/ledger", "sidecar/spendmesh_sidecar/core"
FILES = (
    *(
        f"{OPERATOR}/{name}.py"
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
        )
    ),
    *(f"{SIDECAR}/{name}.py" for name in ("ledger", "lease_reports", "lease", "account")),
)
LAWS = (
    "tests/control/test_books_grants.py",
    "tests/control/test_books_limits.py",
    "tests/control/test_books_quarantine.py",
    "tests/control/test_books_reports.py",
    "tests/core/test_lease.py",
    "tests/core/test_ledger.py",
    "tests/core/test_exchange_budgets.py",
    "tests/properties/test_periods.py",
    "tests/properties/test_ledger_race.py",
)
SEEDS = 60
TIMEOUT_SECONDS = 300
ACCEPTED = Path(__file__).with_name("mutants_accepted.txt")

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

    @property
    def name(self) -> str:
        return f"{Path(self.file).name}: {self.source} | {self.before} -> {self.after}"

    @property
    def module(self) -> str:
        """As it is imported."""
        return ".".join(Path(self.file).with_suffix("").parts[1:])

    def code(self) -> CodeType:
        """The whole module with this one change."""
        tree = ast.parse((ROOT / self.file).read_text(encoding="utf-8"))
        self.change(list(ast.walk(tree))[self.place])
        return compile(ast.fix_missing_locations(tree), self.file, "exec")


def mutants_of(file: str) -> Iterator[Mutant]:
    """All mutants of a file."""
    text = (ROOT / file).read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    sizes = {id(node) for top in tree.body if isinstance(top, ast.Assign | ast.AnnAssign) for node in ast.walk(top)}
    for place, node in enumerate(ast.walk(tree)):
        if id(node) in sizes:
            continue  # a named limit's exact value is a choice, no law
        for change in _changes(node):
            twin = copy.deepcopy(node)
            change(twin)
            line = node.lineno  # type: ignore[attr-defined]  # only expressions and statements are changed
            yield Mutant(file, line, lines[line - 1].strip(), ast.unparse(node), ast.unparse(twin), place, change)


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


def all_mutants() -> list[Mutant]:
    """Every one of every file, named apart from each other."""
    found: dict[str, Mutant] = {}
    for file in FILES:
        for mutant in mutants_of(file):
            found.setdefault(mutant.name, mutant)
    return list(found.values())


# --- one mutant, in a process of its own --------------------------------------------------------------------


class _Serve(MetaPathFinder, Loader):
    """Answers the import of one module with changed code."""

    def __init__(self, name: str, file: Path, code: CodeType) -> None:
        self._name, self._file, self._code = name, file, code

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return spec_from_loader(fullname, self, origin=str(self._file)) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._file)
        exec(self._code, module.__dict__)


def judge(number: int, seeds: int) -> str:
    """Play histories, then the laws, with a mutant in place, in a process that is thrown away. Who noticed, or ""."""
    mutant = all_mutants()[number]
    for name in [name for name, module in sys.modules.items() if _is_ours(module)]:
        del sys.modules[name]  # whoever forked us may have imported them, laws included, with the line unchanged
    sys.meta_path.insert(0, _Serve(mutant.module, ROOT / mutant.file, mutant.code()))
    try:
        from ledgersim.run import failure
        from ledgersim.workload import draw
    except Exception as error:  # noqa: BLE001  # it cannot even be imported
        return f"import: {error!r}"
    for seed in range(seeds):
        if (error := failure(draw(seed))) is not None:
            return f"seed {seed}: {str(error)[:150]}"
    status = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "--no-header", *(str(ROOT / law) for law in LAWS)])
    return "a law" if status else ""


def _is_ours(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    ours = (ROOT / "operator", ROOT / "sidecar", ROOT / "cli", ROOT / "tests")
    return file is not None and any(Path(file).is_relative_to(folder) for folder in ours)


# --- all of them --------------------------------------------------------------------------------------------


def hunt(jobs: int, seeds: int, match: str, say: Callable[[str], None]) -> int:
    """Try every mutant; answers 1 if one survives that is not accepted."""
    accepted, mutants = read_accepted(), all_mutants()
    numbers = [number for number, mutant in enumerate(mutants) if match in f"{mutant.file} {mutant.name}"]
    survivors: list[str] = []
    with Pool(jobs, _quietly, maxtasksperchild=1) as pool:
        tried = pool.imap_unordered(_judge, [(number, seeds) for number in numbers], chunksize=1)
        for done, (number, noticed) in enumerate(tried, start=1):
            mutant = mutants[number]
            if not noticed:
                survivors.append(mutant.name)
                known = " (accepted)" if mutant.name in accepted else ""
                say(f"[{done}/{len(numbers)}] survived{known}: {mutant.file}:{mutant.line}: {mutant.name}")
            elif done % 25 == 0:
                say(f"[{done}/{len(numbers)}] {len(survivors)} survived")
    new = sorted(set(survivors) - set(accepted))
    say(f"{len(numbers)} mutants, {len(numbers) - len(survivors)} killed, {len(survivors) - len(new)} accepted")
    for name in new:
        say(f"not accepted: {name}")
    return int(bool(new))


def _quietly() -> None:
    os.nice(5)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


def _judge(task: tuple[int, int]) -> tuple[int, str]:
    signal.signal(signal.SIGALRM, _never_ends)
    signal.alarm(TIMEOUT_SECONDS)
    try:
        return task[0], judge(*task)
    except BaseException as error:  # noqa: BLE001  # whatever it breaks, it was noticed
        return task[0], repr(error)


def _never_ends(*_: object) -> None:
    raise TimeoutError


def read_accepted() -> dict[str, str]:
    """Name -> reason, of the committed list."""
    lines = ACCEPTED.read_text(encoding="utf-8").splitlines() if ACCEPTED.exists() else []
    pairs = (line.split("  # ", 1) for line in lines if line and not line.startswith("#"))
    return {name.strip(): reason.strip() for name, reason in pairs}
