"""
A changed line of the product, put in place in this process: the first history or law that fails has noticed it.

The process is thrown away afterwards. Where the line is in a function, that function gets the changed code, whoever
has imported it; else the module is imported anew with it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest

from ledgersim.mutants import FILES, ROOT, SIDECAR, Mutant, all_mutants
from ledgersim.run import play
from ledgersim.workload import draw

FIRST_SEEDS = 12
"""Most mutants are noticed by these; the laws come next, and then the other seeds."""
_BOOKS = ("books_grants", "books_limits", "books_quarantine", "books_reports")
_LEDGER = ("ledger", "lease", "exchange_budgets", "recovery")
LAWS = {
    "books/books": (
        *_BOOKS,
        "books_revision",
        "coordinator",
        "coordinator_faults",
        "books_restored",
        "ledger_document",
        "forecast",
    ),
    "books/granting": ("holdings", *_BOOKS, "books_overrides", "books_silence", "books_rolling", "small_budget"),
    "books/grants": ("grant_sizes", *_BOOKS, "books_silence", "books_rolling", "books_overrides", "small_budget"),
    "books/holdings": (
        "holdings",
        "books_revision",
        *_BOOKS,
        "books_restored",
        "ledger_document",
        "coordinator",
        "books_partitions",
    ),
    "books/reporting": (*_BOOKS, "books_silence", "books_overrides"),
    "books/merging": ("merging", *_BOOKS),
    "books/accounts": ("holdings", *_BOOKS, "ledger_document", "correcting", "milestones"),
    "books/held": ("holdings", *_BOOKS, "books_silence"),
    "books/pods": ("pods", *_BOOKS, "coordinator", "ledger_document"),
    "books/periods": ("periods",),
    "books/rolling": ("rolling_rows", "books_rolling"),
    "books/partitions": ("holdings", "books_partitions"),
    "books/lives": ("books_restored", "shared_books"),
    "books/restoring": ("books_restored", "books_overrides"),
    "books/fencing": ("books_quarantine", "pods", "coordinator", "books_revision"),
    "books/correcting": ("correcting", "ledger_document"),
    "books/overrides": ("books_overrides", "correcting", "milestones"),
    "books/pressure": ("pressure", "books_quarantine"),
    "books/extra": ("books_overrides", "grant_sizes"),
    "books/ladder": ("books_limits", "milestones", "books_overrides", "books_rolling"),
    "books/milestones": ("milestones", "milestones_divided", "books_overrides", "books_rolling", "correcting"),
    "books/answers": _BOOKS,
    "books/diverging": ("diverging", "shared_books"),
    "books/forecast": ("forecast",),
    "books/views": ("forecast", "status", "correcting", "books_overrides"),
    "coordinator/asking": ("books_limits", "books_grants", "books_partitions", "books_rolling", "books_restored"),
    "coordinator/messages": ("books_grants", "books_partitions", "books_quarantine", "coordinator"),
    "coordinator/committer": ("coordinator", "coordinator_faults", "shared_books"),
    "document/account_pages": ("ledger_document", "correcting", "books_overrides", "milestones"),
    "document/sections": ("ledger_document", "shared_books", "books_restored", "moving_books"),
    "document/moves": ("moving_books",),
    "ledger/ledger": (*_LEDGER, "waiting", "partitions", "silence", "override_leases"),
    "ledger/lease_reports": _LEDGER,
    "ledger/lease": (*_LEDGER, "override_leases", "silence"),
    "ledger/debt": ("debt", *_LEDGER, "silence"),
    "ledger/open_attempts": ("recovery", *_LEDGER, "override_leases"),
    "ledger/recovery": ("recovery", *_LEDGER, "recovery_properties"),
    "ledger/placing": (*_LEDGER, "override_leases", "silence", "metering", "expected", "waiting"),
    "ledger/charges": ("limits_that_count_some_calls", "dearer_price", "unpriced_models", *_LEDGER),
    "ledger/silence": ("silence",),
    "ledger/slices": ("metering",),
    "ledger/waiting": ("waiting", "ledger", "partitions"),
    "ledger/partitions": ("partitions", "waiting", *_LEDGER),
    "ledger/exposure": ("expected", "metering", "overshoot", "silence"),
    "ledger/expectation": ("expected", "overshoot"),
    "ledger/metering": ("metering", "overshoot"),
    "ledger/rights": ("rights", *_LEDGER, "override_leases", "refusal_reasons"),
    "ledger/demand": ("demand", "account", *_LEDGER, "partitions", "override_leases"),
    "ledger/reservation": ("reservation", "waiting", *_LEDGER, "metering", "expected", "clamp"),
    "ledger/account": ("account", *_LEDGER, "rolling_account", "silence", "override_leases", "partitions"),
}
"""The narrow tests of the modules that mutants are made of, by file: `test_<name>.py`."""
FAST = "not 500-5000 and not 200-2500 and not ten_thousand"
ONE_CPU_SECONDS, LAWS_CPU_SECONDS = 15, 90
"""What one history or law, or all laws of a module, may take; more waits for something that never comes."""


def judge(number: int, seeds: int, known: str = "") -> str:
    """
    Who noticed: `seed 7`, `law tests/…::test_…`, `import`, or "" for nobody; first is asked who is `known` to.

    To be called in a process that ends with it.
    """
    mutant = all_mutants()[number]
    return noticed(mutant, seeds, known) if replace_code(mutant) else _imported_anew(mutant, seeds, known)


def noticed(mutant: Mutant, seeds: int, known: str) -> str:
    """With the mutant in place: who notices."""
    signal.signal(signal.SIGPROF, _never_ends)
    kind, _, which = known.partition(" ")
    if kind == "seed" and (found := _histories(range(int(which), int(which) + 1))):
        return found
    if kind == "law" and (found := _laws([str(ROOT / which)], ONE_CPU_SECONDS)):
        return found
    first = min(FIRST_SEEDS, seeds)
    return _histories(range(first)) or _laws(laws_of(mutant.file)) or _histories(range(first, seeds))


def _histories(seeds: range) -> str:
    for seed in seeds:
        signal.setitimer(signal.ITIMER_PROF, ONE_CPU_SECONDS)
        try:
            play(draw(seed))
        except (Exception, _NeverEnds):  # noqa: BLE001  # whatever it breaks, it was noticed
            return f"seed {seed}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return ""


def _laws(laws: list[str], cpu_seconds: int = LAWS_CPU_SECONDS) -> str:
    failed = _Failed()
    plugins = ["-p", "no:cacheprovider", "-p", "no:unraisableexception"]
    quiet = ["-q", "-x", *plugins, "--no-header", "-k", FAST, "-m", "not real"]
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        pytest.main([*quiet, *laws], plugins=[failed])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return f"law {failed.name}" if failed.name else ""


def laws_of(file: str) -> list[str]:
    """The narrow tests of a module: beside others of its half, or else the properties."""
    folder = "core" if file.startswith(SIDECAR) else "control"
    half, stem = Path(file).with_suffix("").parts[-2:]
    places = (
        next(
            place for where in (folder, "properties") if (place := ROOT / "tests" / where / f"test_{name}.py").exists()
        )
        for name in LAWS[f"{half}/{stem}"]
    )
    return [str(place) for place in places]


class _Failed:
    """A pytest plugin that remembers who failed, and has no other chance than the seed's."""

    name = ""

    def pytest_sessionstart(self) -> None:
        from hypothesis import Phase, settings  # pytest must have begun

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", derandomize=True, database=None, phases=phases)
        settings.load_profile("mutants")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.name = report.nodeid.partition("[")[0]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.name = report.nodeid


class _NeverEnds(BaseException):
    """Nobody catches it on the way, but pytest: there it is a failure."""


def _never_ends(*_: object) -> None:
    raise _NeverEnds


# --- putting it in place ------------------------------------------------------------------------------------


def replace_code(mutant: Mutant) -> bool:
    """Give the changed functions of a module their new code. False: the change is not in a function."""
    before = compile(mutant.text, mutant.file, "exec", dont_inherit=True)
    old, new = dict(_functions(before)), dict(_functions(mutant.code()))
    changed = {name: code for name, code in new.items() if _shown(code) != _shown(old[name])}
    __import__(mutant.module)
    functions = [*_found, *(each for each in gc.get_objects() if isinstance(each, FunctionType))]
    found = [each for each in functions if each.__module__ == mutant.module]
    places = [(each, changed[each.__qualname__]) for each in found if each.__qualname__ in changed]
    if not places or len({each.__qualname__ for each, _ in places}) < len(changed):
        return False
    for function, code in places:
        function.__code__ = code
    return True


_found: list[FunctionType] = []
"""What `warm` has found, which is hidden from later searches."""


def _functions(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    """Outermost functions of a module or class by qualified name, what is nested in them left inside."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & _OPTIMIZED:
                yield constant.co_qualname, constant
            else:
                yield from _functions(constant)


_OPTIMIZED = 1
"""CO_OPTIMIZED: a function, and not the body of a class."""


def _shown(code: CodeType) -> tuple[object, ...]:
    constants = tuple(_shown(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts)
    return code.co_code, constants, code.co_names


class _Serve(MetaPathFinder, Loader):
    """Answers the import of one module with changed code."""

    def __init__(self, name: str, file: Path, code: CodeType) -> None:
        self._name, self._file, self._code = name, file, code

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return spec_from_loader(fullname, self, origin=str(self._file)) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._file)
        exec(self._code, module.__dict__)


def _imported_anew(mutant: Mutant, seeds: int, known: str) -> str:
    for name in [name for name, module in sys.modules.items() if _is_ours(module)]:
        del sys.modules[name]  # whoever forked us may have imported them, laws included, with the line unchanged
    sys.meta_path.insert(0, _Serve(mutant.module, ROOT / mutant.file, mutant.code()))
    try:
        from ledgersim import judging
    except Exception:  # noqa: BLE001  # it cannot even be imported
        return "import"
    return judging.noticed(mutant, seeds, known)


def _is_ours(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    ours = (ROOT / "operator", ROOT / "sidecar", ROOT / "cli", ROOT / "tests")
    return file is not None and any(Path(file).is_relative_to(folder) for folder in ours)


def warm() -> None:
    """Import the laws once, in the process that those that judge are forked from, and find all functions once."""
    laws = sorted({law for file in FILES for law in laws_of(file)})
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *laws])
    _found.extend(each for each in gc.get_objects() if isinstance(each, FunctionType))
    gc.freeze()  # a collection in each of those processes would copy all that they share


def quietly() -> None:
    """For the process that judges: what mutants break is no news."""
    os.nice(5)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
