"""YAML files to raw objects with their places, for `check` and `run`. What the objects mean is the operator's."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

SUFFIXES = (".yaml", ".yml", ".json")
FILE_BYTES_MAX = 3 * 2**20
"""Twice what etcd takes for one object; a larger file is not a manifest."""

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True)
class Place:
    """Where something stands; `document` counts from 1 within the file."""

    file: str
    document: int
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line} (document {self.document})"


@dataclass(frozen=True)
class Loaded:
    """One object of a file."""

    place: Place
    raw: Mapping[str, Any]
    node: yaml.Node = field(repr=False, compare=False)

    def place_of(self, path: str) -> Place:
        """Where a field such as `spec.limits[0].amount` stands, or the nearest thing around it that there is."""
        node, line = self.node, self.place.line
        for name, position in _STEP.findall(path):
            child = _child(node, name, position)
            if child is None:
                break
            key, node = child
            line = key.start_mark.line + 1
        return Place(self.place.file, self.place.document, line)


@dataclass(frozen=True)
class Unreadable:
    """A file or a document that is no YAML, or no object."""

    place: Place
    message: str


@dataclass(frozen=True)
class Files:
    """What was found: objects in the order of the files, and what could not be read."""

    objects: tuple[Loaded, ...]
    unreadable: tuple[Unreadable, ...]


class _Loader(yaml.SafeLoader):
    """Plain YAML where a key that stands twice is an error, as for kubectl: the last one would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} stands twice: take one out", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def load(paths: Iterable[Path], default_namespace: str = "default") -> Files:
    """
    Read files, and the manifests directly in directories, in the order of their names.

    Objects without a namespace get `default_namespace`; items of a List count each on its own.
    """
    objects: list[Loaded] = []
    unreadable: list[Unreadable] = []
    for path in paths:
        files = sorted(child for child in path.iterdir() if child.suffix in SUFFIXES) if path.is_dir() else [path]
        if not files:
            unreadable.append(
                _unreadable(path, f"no manifest directly in it: expected files that end in {', '.join(SUFFIXES)}")
            )
        for file in files:
            for found in _read(file, default_namespace):
                objects.append(found) if isinstance(found, Loaded) else unreadable.append(found)
    return Files(tuple(objects), tuple(unreadable))


def secret_values(objects: Iterable[Loaded]) -> dict[tuple[str, str], dict[str, str]]:
    """
    Items of all Secrets by (namespace, name). Nothing of it may be shown.

    Raises ValueError, without the value, for `data` that is no base64.
    """
    secrets: dict[tuple[str, str], dict[str, str]] = {}
    for loaded in objects:
        if loaded.raw.get("kind") != "Secret":
            continue
        metadata = loaded.raw["metadata"]
        items = {key: _decoded(loaded, key, value) for key, value in (loaded.raw.get("data") or {}).items()}
        items |= {key: str(value) for key, value in (loaded.raw.get("stringData") or {}).items()}
        secrets[metadata["namespace"], metadata["name"]] = items
    return secrets


def _decoded(loaded: Loaded, key: str, value: object) -> str:
    try:
        return base64.b64decode(str(value), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError(f"{loaded.place}: data.{key} is no base64 of text: write it, or use stringData") from None


def _read(file: Path, default_namespace: str) -> Iterator[Loaded | Unreadable]:
    try:
        raw = file.read_bytes()
    except OSError as error:
        yield _unreadable(file, f"cannot be read: {error.strerror}")
        return
    if len(raw) > FILE_BYTES_MAX:
        yield _unreadable(file, f"is larger than {FILE_BYTES_MAX:,} bytes: split it")
        return
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        yield _unreadable(file, "is not UTF-8: save it as UTF-8")
        return
    loader = _Loader(text)
    document = 0
    try:
        while loader.check_node():
            document += 1
            node: yaml.Node = loader.get_node()  # type: ignore[assignment]  # check_node said that there is one
            yield from _objects(file, document, node, loader.construct_document(node), default_namespace)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = mark.line + 1 if mark is not None else 1
        yield Unreadable(Place(str(file), max(document, 1), line), f"no valid YAML: {problem}")
    finally:
        loader.dispose()


def _objects(
    file: Path, document: int, node: yaml.Node, raw: object, default_namespace: str
) -> Iterator[Loaded | Unreadable]:
    place = Place(str(file), document, node.start_mark.line + 1)
    if raw is None:
        return  # only comments between two separators
    if not isinstance(raw, dict) or not isinstance(raw.get("kind"), str):
        yield Unreadable(place, "no Kubernetes object: it needs apiVersion, kind and metadata")
        return
    if raw["kind"] == "List":
        items = _child(node, "items", "")
        for position, item in enumerate(raw.get("items") or ()):
            below = _child(items[1], "", str(position)) if items else None
            yield from _objects(file, document, below[1] if below else node, item, default_namespace)
        return
    metadata = raw.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        yield Unreadable(place, f"{raw['kind']}: metadata.name is missing: give the object a name")
        return
    if raw["kind"] != "Namespace":
        metadata = {"namespace": default_namespace, **metadata}
    yield Loaded(place, {**raw, "metadata": metadata}, node)


def _child(node: yaml.Node, name: str, position: str) -> tuple[yaml.Node, yaml.Node] | None:
    if position and isinstance(node, yaml.SequenceNode) and int(position) < len(node.value):
        return node.value[int(position)], node.value[int(position)]
    if name and isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == name), None)
    if name and isinstance(node, yaml.SequenceNode):  # a verdict names an item of a list by its name
        return next(((item, item) for item in node.value if _named(item, name)), None)
    return None


def _named(item: yaml.Node, name: str) -> bool:
    found = _child(item, "name", "")
    return found is not None and found[1].value == name


def _unreadable(file: Path, message: str) -> Unreadable:
    return Unreadable(Place(str(file), 1, 1), message)
