"""From an object as YAML or the API server gives it to a typed manifest, or to errors that a person can act on. Rules
live with the kinds; here they are only run and explained, in the API server's own words where it has some."""

import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from spendmesh_operator.manifests.attachment import OrganisationAttachment
from spendmesh_operator.manifests.budgetledger import BudgetLedger
from spendmesh_operator.manifests.common import API_VERSION, Manifest
from spendmesh_operator.manifests.modelbudget import Limit, ModelBudget
from spendmesh_operator.manifests.modelprovider import ModelProvider
from spendmesh_operator.manifests.override import Override
from spendmesh_operator.manifests.retrybudget import RetryBudget
from spendmesh_operator.manifests.routingpolicy import RoutingPolicy

KINDS: Final[Mapping[str, type[Manifest]]] = {
    kind.__name__: kind for kind in (ModelProvider, RoutingPolicy, ModelBudget, RetryBudget, BudgetLedger)
}
"""Every kind of ours by its name."""

_SHOWN_LENGTH_MAX = 80
_WORDS: Final[Mapping[str, str]] = {
    "string_type": "must be of type string: put it in quotes",
    "int_type": "must be of type integer: write a whole number without quotes",
    "tuple_type": "must be of type array: write a list",
    "dict_type": "must be of type object",
    "model_type": "must be of type object",
    "string_too_long": "Too long: may not be more than {max_length} characters",
    "string_too_short": "should be at least {min_length} chars long",
    "too_long": "Too many: must have at most {max_length} items",
    "too_short": "should have at least {min_length} items",
    "greater_than_equal": "should be greater than or equal to {ge}",
    "less_than_equal": "should be less than or equal to {le}",
}
"""The API server's words for the same errors, with a fix where the words alone do not say it."""
_SECRET_PATHS = ("spec.auth",)  # a key pasted into the wrong place must not reach a log


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong: `field` as in YAML (`spec.limits[0].amount`), the value there, what to do about it."""

    field: str
    value: object
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.field, self.shown_value, self.message) if part)

    @property
    def shown_value(self) -> str:
        """The value, if it is a plain one that may be shown."""
        if self.field.startswith(_SECRET_PATHS) or not isinstance(self.value, str | int | float):
            return ""
        text = repr(self.value)
        return text if len(text) <= _SHOWN_LENGTH_MAX else text[:_SHOWN_LENGTH_MAX] + "…"


class ManifestError(ValueError):
    """A manifest says nothing valid. `errors` has every reason; `subject` is `ModelBudget team-a/team`."""

    def __init__(self, subject: str, errors: tuple[FieldError, ...]) -> None:
        super().__init__(subject, errors)
        self.subject = subject
        self.errors = errors

    def __str__(self) -> str:
        return f"{self.subject} is invalid: " + "; ".join(str(error) for error in self.errors)


def parse(obj: object) -> Manifest:
    """The typed manifest of `obj`, a decoded YAML or JSON object, with defaults filled in. Raises ManifestError.

    Nulls count as absent fields, as for the API server.
    """
    if not isinstance(obj, Mapping):
        raise ManifestError("manifest", (FieldError("", obj, "must be an object with apiVersion, kind and spec"),))
    subject = _subject(obj)
    kind = obj.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise ManifestError(subject, (FieldError("kind", kind, f"unknown kind{_suggest(str(kind), list(KINDS))}"),))
    if obj.get("apiVersion") != API_VERSION:
        message = f"must be {API_VERSION}: this version of Spendmesh reads no other"
        raise ManifestError(subject, (FieldError("apiVersion", obj.get("apiVersion"), message),))
    try:
        return model.model_validate({key: value for key, value in obj.items() if key != "status" and value is not None})
    except ValidationError as error:
        raise ManifestError(subject, _explain(model, error)) from None


def transition_errors(old: Manifest, new: Manifest) -> tuple[FieldError, ...]:
    """What may not change from `old` to `new`, an edit of the same object; the API server refuses the same."""
    if not (isinstance(old, ModelBudget) and isinstance(new, ModelBudget)):
        return ()
    return (
        *_changed("spec.limits", old.spec.limits, new.spec.limits),
        *_changed("spec.overrides", old.spec.overrides, new.spec.overrides),
    )


def _changed(path: str, old: Sequence[Limit | Override], new: Sequence[Limit | Override]) -> Iterator[FieldError]:
    before = {item.name: item for item in old}
    for position, item in enumerate(new):
        for rule in item.TRANSITIONS if item.name in before else ():
            if not rule.holds(before[item.name], item):
                yield FieldError(f"{path}[{position}]{rule.field_path}", item.name, rule.message)


def placement_errors(manifest: Manifest, operator_namespace: str) -> tuple[FieldError, ...]:
    """What is wrong with where `manifest` stands: the API server cannot know which namespace is the operator's."""
    spec = getattr(manifest, "spec", None)
    if not isinstance(spec, OrganisationAttachment) or manifest.metadata.namespace == operator_namespace:
        return ()
    if spec.namespace_selector is None:
        return ()
    return (
        FieldError(
            "spec.namespaceSelector",
            None,
            f"only an object of the operator's namespace {operator_namespace} reaches other namespaces: move it there, "
            f"or take namespaceSelector out, and it applies to namespace {manifest.metadata.namespace}",
        ),
    )


def _subject(obj: Mapping[str, Any]) -> str:
    metadata = obj.get("metadata")
    names = metadata if isinstance(metadata, Mapping) else {}
    return f"{obj.get('kind', 'manifest')} {names.get('namespace', 'default')}/{names.get('name', '?')}"


def _explain(model: type[Manifest], error: ValidationError) -> tuple[FieldError, ...]:
    explained: list[FieldError] = []
    details = error.errors(include_url=False)
    locations = [detail["loc"] for detail in details]
    for detail in details:
        location = detail["loc"]
        if detail["type"] == "too_short" and any(other[: len(location)] == location != other for other in locations):
            continue  # the list is not short: pydantic counts only the items that were valid
        path = _path(model, location)
        if detail["type"] == "rules":
            failures: list[tuple[str, str]] = detail["ctx"]["failures"]
            explained += [FieldError(path + below, _below(detail["input"], below), text) for below, text in failures]
        else:
            value = None if detail["type"] == "missing" else detail["input"]
            explained.append(FieldError(path, value, _words(model, detail)))
    return tuple(explained)


def _path(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """`location` as people write it: `spec.limits[0].amount`; keys of a map in brackets, as the API server does."""
    path = ""
    for depth, part in enumerate(location):
        of_object = isinstance(part, str) and _model_at(model, location[:depth]) is not None
        path += (f".{part}" if path else str(part)) if of_object else f"[{part}]"
    return path


def _below(value: object, field_path: str) -> object:
    return value.get(field_path.removeprefix(".")) if isinstance(value, Mapping) and field_path else value


def _words(model: type[BaseModel], detail: ErrorDetails) -> str:
    """What a person should read for an error that pydantic found."""
    kind, location, context = detail["type"], detail["loc"], detail.get("ctx", {})
    if kind == "missing":
        return f"Required value: {_purpose(model, location)}"
    if kind == "extra_forbidden":
        parent = _model_at(model, location[:-1])
        known = [field.alias or name for name, field in parent.model_fields.items()] if parent else []
        return f'unknown field "{_path(model, location)}"{_suggest(str(location[-1]), known)}'
    if kind == "literal_error":
        supported = str(context["expected"]).replace(" or ", ", ").replace("'", '"')
        return f"Unsupported value: supported values: {supported}"
    return _WORDS[kind].format(**context) if kind in _WORDS else detail["msg"]


def _purpose(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """The description of a field that is missing: it has a worked example."""
    parent = _model_at(model, location[:-1])
    for name, field in parent.model_fields.items() if parent else ():
        if location[-1] in (name, field.alias) and field.description:
            return " ".join(field.description.split())
    return "add it"


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int):
            continue
        fields = current.model_fields if current else {}
        annotation = next((field.annotation for name, field in fields.items() if part in (name, field.alias)), None)
        current = _model_in(annotation)
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _model_in(part))), None)


def _suggest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f": did you mean {near[0]}?" if near else f": known here: {', '.join(known)}"
