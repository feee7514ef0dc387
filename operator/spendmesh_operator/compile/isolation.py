"""One object that breaks compile harms no other: find it, give it back its last good meaning, and go on."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec

import msgspec

from spendmesh_operator.compile.attachment import Placed, contest
from spendmesh_operator.compile.budgets import budget_spec
from spendmesh_operator.compile.classes import ClassResult, World, compile_class
from spendmesh_operator.compile.model import ClassKey
from spendmesh_operator.compile.providers import provider_spec
from spendmesh_operator.compile.retries import retry_specs
from spendmesh_operator.compile.routing import route
from spendmesh_operator.index import ObjectKey
from spendmesh_operator.manifests import ModelProvider

_Arguments = ParamSpec("_Arguments")


@dataclass(frozen=True)
class Isolated:
    """A class that compiled, and the objects that had to be replaced for it, each with what it broke on."""

    result: ClassResult
    broken: Mapping[ObjectKey, str]


def vet(world: World, last_good: Mapping[ObjectKey, Placed]) -> tuple[World, dict[ObjectKey, str]]:
    """Try every object on its own; those that break are replaced for all classes alike."""
    broken: dict[ObjectKey, str] = {}
    changes: dict[ObjectKey, Placed | None] = {}
    for key, placed in world.objects.items():
        cause = _attempt(_probe, placed, world)
        if cause:
            broken[key] = cause
            good = last_good.get(key)
            changes[key] = good if good is not None and not _attempt(_probe, good, world) else _stub(placed)
    return (world.without_or_with(changes) if changes else world), broken


def compile_isolated(key: ClassKey, world: World, last_good: Mapping[ObjectKey, Placed]) -> Isolated:
    """Compile a class; where that breaks, with as few objects replaced as possible."""
    try:
        return Isolated(compile_class(key, world), {})
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends in a verdict
        cause = describe(error)
    suspects = sorted(_suspects(key, world))
    for suspect in suspects:
        for change in _replacements(world, suspect, last_good):
            changed = world.without_or_with({suspect: change})
            if not _attempt(compile_class, key, changed):
                return Isolated(compile_class(key, changed), {suspect: cause})
    return _from_nothing(key, world, suspects)


def _from_nothing(key: ClassKey, world: World, suspects: list[ObjectKey]) -> Isolated:
    """More than one object breaks it: leave all out, and take each back that does no harm."""
    changes: dict[ObjectKey, Placed | None] = {suspect: _stub(world.objects[suspect]) for suspect in suspects}
    broken: dict[ObjectKey, str] = {}
    for suspect in suspects:
        fewer = {other: change for other, change in changes.items() if other != suspect}
        cause = _attempt(compile_class, key, world.without_or_with(fewer))
        if cause:
            broken[suspect] = cause
        else:
            changes = fewer
    return Isolated(compile_class(key, world.without_or_with(changes)), broken)


def _suspects(key: ClassKey, world: World) -> Iterator[ObjectKey]:
    for known in world.objects:
        if known in key.objects or (known.kind == "ModelProvider" and known.namespace == key.namespace):
            yield known


def _replacements(world: World, key: ObjectKey, last_good: Mapping[ObjectKey, Placed]) -> Iterator[Placed | None]:
    placed = world.objects[key]
    good = last_good.get(key)
    if good is not None and good.manifest is not placed.manifest:
        yield good
    yield _stub(placed)


def _stub(placed: Placed) -> Placed | None:
    """What stands in for an object without any good meaning: a budget that refuses, and nothing for other kinds."""
    return replace(placed, manifest=None) if placed.key.kind == "ModelBudget" else None


def _probe(placed: Placed, world: World) -> None:
    """Compile one object alone, as far as it can be."""
    match placed.key.kind:
        case "ModelProvider":
            if isinstance(placed.manifest, ModelProvider):
                msgspec.json.encode(provider_spec(placed.manifest, "alias", world.prices, world.operator_namespace))
        case "RoutingPolicy":
            route([placed], "Enforce", lambda namespace, name: None)
        case "ModelBudget":
            msgspec.json.encode(budget_spec(placed))
        case "RetryBudget":
            if placed.manifest is not None:
                retry_specs(contest([placed]))


def _attempt(action: Callable[_Arguments, object], *arguments: _Arguments.args, **named: _Arguments.kwargs) -> str:
    """Why `action` broke; empty when it did not. Any exception counts: it is kept in the object's verdict."""
    try:
        action(*arguments, **named)
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends in a verdict
        return describe(error)
    return ""


def describe(error: Exception) -> str:
    """An exception and where it was raised, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
