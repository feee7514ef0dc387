"""What a manifest must obey beyond its types: each rule is said twice, side by side, in CEL for the API server and in
Python for us. What the rules are about stays in the modules of the kinds."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VALIDATIONS = "x-kubernetes-validations"


def broken(message: str, field_path: str = "") -> PydanticCustomError:
    """The error of a rule that does not hold; `field_path` (".amount") is relative to the object of the rule."""
    return PydanticCustomError("rules", "{text}", {"text": message, "failures": [(field_path, message)]})


@dataclass(frozen=True)
class Rule:
    """A rule about one value or one object. Usable in `Annotated[...]` and in `Node.RULES`.

    `cel` and `holds` must agree: tests/crds sends both sides of every rule through a server and through the model.
    `message` says what is wrong and what to write instead. `field_path` (".amount") points below the object.
    """

    cel: str
    holds: Callable[[Any], bool]
    message: str
    field_path: str = ""

    def as_validation(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`."""
        entry = {"rule": self.cel, "message": self.message}
        return entry | {"fieldPath": self.field_path} if self.field_path else entry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return with_validations(handler(schema), [self.as_validation()])

    def _check(self, value: Any) -> Any:
        if not self.holds(value):
            raise broken(self.message, self.field_path)
        return value


@dataclass(frozen=True)
class TransitionRule:
    """A rule about a change: `holds(old, new)`. The server correlates items of a list-map by their key."""

    cel: str
    holds: Callable[[Any, Any], bool]
    message: str
    field_path: str = ""

    def as_validation(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`."""
        entry = {"rule": self.cel, "message": self.message}
        return entry | {"fieldPath": self.field_path} if self.field_path else entry


def text_rule(pattern: str, message: str) -> Rule:
    """The text matches `pattern` as a whole (RE2 syntax). A CEL rule, since a schema's `pattern` cannot say the fix."""
    compiled = re.compile(pattern)
    literal = pattern.replace("\\", "\\\\").replace("'", "\\'")
    return Rule(f"self.matches('^(?:{literal})$')", lambda text: compiled.fullmatch(text) is not None, message)


def with_validations(schema: JsonSchemaValue, validations: list[dict[str, str]]) -> JsonSchemaValue:
    """`schema` with `validations` after those that it has."""
    return schema | {VALIDATIONS: [*schema.get(VALIDATIONS, []), *validations]} if validations else schema


class _ListType:
    """A kind of list: `x-kubernetes-list-type` for the server and uniqueness for us."""

    def __init__(self, list_type: str, keys: tuple[str, ...] = ()) -> None:
        self._list_type = list_type
        self._keys = keys

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        marks: dict[str, Any] = {"x-kubernetes-list-type": self._list_type}
        if self._keys:
            marks["x-kubernetes-list-map-keys"] = [to_camel(key) for key in self._keys]
        return handler(schema) | marks

    def _check(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        if self._list_type == "atomic":
            return items
        seen = set()
        failures = []
        for position, item in enumerate(items):
            identity = tuple(getattr(item, key) for key in self._keys) if self._keys else (item,)
            if identity in seen:
                shown = ", ".join(str(part) for part in identity)
                failures.append((f"[{position}]", f"Duplicate value: {shown}: it may stand here once; take one out"))
            seen.add(identity)
        if failures:
            raise PydanticCustomError("rules", "{text}", {"text": failures[0][1], "failures": failures})
        return items


def list_map(*keys: str) -> _ListType:
    """A list whose items are told apart by the attributes `keys`; its order means nothing."""
    return _ListType("map", keys)


SET = _ListType("set")
"""A list of different plain values; its order means nothing."""
ATOMIC = _ListType("atomic")
"""A list whose order means something: it is replaced as a whole."""


def unchanged(field: str) -> str:
    """CEL: an optional field is what it was."""
    return f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"


UNSTORED_MARK = "x-default-unstored"


class _Unstored:
    """A mark in the model's schema, which `crd` reads and takes out."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {UNSTORED_MARK: True}


UNSTORED = _Unstored()
"""
A field that is younger than its kind: the code alone applies its default. An API server would write a default of the
schema into every object that is applied, and an operator from before the field refuses such an object after a rollback.
"""


def unique(attribute: str, what: str) -> Rule:
    """In an ordered list (which cannot be a list-map) no two items have the same `attribute`."""
    alias = to_camel(attribute)
    return Rule(
        f"self.all(a, self.exists_one(b, b.{alias} == a.{alias}))",
        lambda items: len({getattr(item, attribute) for item in items}) == len(items),
        f"two {what} have the same {alias}: give each {alias} once",
    )


class Node(BaseModel):
    """An object in a manifest: immutable, camelCase in YAML, unknown fields refused, all its `RULES` checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, use_attribute_docstrings=True)

    RULES: ClassVar[tuple[Rule, ...]] = ()
    TRANSITIONS: ClassVar[tuple[TransitionRule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        """A null is an absent field: the API server drops it before it fills in defaults. Unknown ones stay unknown."""
        if not isinstance(value, Mapping) or None not in value.values():
            return value
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: item for key, item in value.items() if item is not None or key not in known}

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        failures = [(rule.field_path, rule.message) for rule in self.RULES if not rule.holds(self)]
        if failures:
            raise PydanticCustomError("rules", "{text}", {"text": failures[0][1], "failures": failures})
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler.resolve_ref_schema(handler(schema))
        validations = [rule.as_validation() for rule in cls.RULES]
        validations += [rule.as_validation() for rule in cls.TRANSITIONS]
        if validations:
            json_schema[VALIDATIONS] = validations
        return json_schema
