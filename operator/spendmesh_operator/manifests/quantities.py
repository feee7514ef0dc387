"""Numbers as people write them in a manifest: whole numbers, decimals for money, durations. Exact, never a float.
What a number stands for (a price, a limit) stays in the kinds."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from spendmesh_operator.manifests.rules import VALIDATIONS, broken

NANOS_PER_UNIT = 10**9
DECIMALS_MAX = 9
TOKENS_MAX = 10**8
"""Of one call: ten times the longest context that any provider offers."""
DECIMAL_LENGTH_MAX = 26  # 16 digits, a point and 9 digits: what a Kubernetes quantity holds exactly
_DECIMAL = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?")
_DURATION = re.compile(r"(?:[0-9]{1,5}(?:h|ms|m|s)){1,4}")  # GEP-2257, the duration of Gateway API
_DURATION_PART = re.compile(r"([0-9]+)(h|ms|m|s)")
_UNIT_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def nanos(amount: Decimal) -> int:
    """`amount` in nano-units, exactly. ValueError if it has more than nine decimals."""
    scaled = amount.scaleb(DECIMALS_MAX)
    if scaled != int(scaled):
        raise ValueError(f"{amount} has more than {DECIMALS_MAX} decimals")
    return int(scaled)


def duration_milliseconds(text: str) -> int:
    """The length of a GEP-2257 duration such as `1m30s`. ValueError if it is none."""
    if _DURATION.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no duration: write hours, minutes, seconds, milliseconds, as in 1m30s or 500ms")
    return sum(int(count) * _UNIT_MILLISECONDS[unit] for count, unit in _DURATION_PART.findall(text))


def duration_default(text: str) -> Any:
    """The default of a `DurationText` field, shown in the schema as it is written here."""
    return Field(default=timedelta(milliseconds=duration_milliseconds(text)), json_schema_extra={"default": text})


def _whole(value: object) -> object:
    """JSON knows one kind of number: 5.0 is the integer 5, as for the API server; text and booleans are not."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise PydanticCustomError("int_type", "must be a whole number, without quotes")
    return value


WHOLE = BeforeValidator(_whole)
"""Annotation of an `int`: `Annotated[int, Field(ge=0), WHOLE]`."""


class DecimalText:
    """Annotation of a `Decimal` that is written as an integer or as quoted text with at most nine decimals.

    `largest` bounds it (inclusive), `smallest_exclusive` bounds it from below where zero means nothing.
    """

    def __init__(self, largest: int, *, positive: bool = False) -> None:
        self._largest = largest
        self._positive = positive
        low = "more than 0" if positive else "0 or more"
        self._message = (
            f'must be an integer or a quoted decimal such as "12.50", {low}, at most {largest}, '
            f"with at most {DECIMALS_MAX} decimals"
        )

    def parse(self, value: object) -> Decimal:
        """The exact number. Floats are refused: 0.1 in YAML is not a tenth any more."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise PydanticCustomError(
                "amount_type", "{text}", {"text": f"must be of type integer,string: {self._message}"}
            )
        if isinstance(value, str) and _DECIMAL.fullmatch(value) is None:
            raise broken(self._message)
        number = Decimal(value)
        if number < 0 or number > self._largest or (self._positive and number == 0):
            raise broken(self._message)
        return number

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.parse, serialization=core_schema.to_string_ser_schema()
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        above = "isGreaterThan(quantity('0'))" if self._positive else "compareTo(quantity('0')) >= 0"
        # A negative integer is caught by the same pattern: string(-1) starts with a minus sign.
        rule = (
            f"string(self).matches('^{_DECIMAL.pattern.replace(chr(92), chr(92) * 2)}$')"
            f" && quantity(string(self)).{above}"
            f" && quantity(string(self)).compareTo(quantity('{self._largest}')) <= 0"
        )
        return {
            "x-kubernetes-int-or-string": True,
            "maxLength": DECIMAL_LENGTH_MAX,
            VALIDATIONS: [{"rule": rule, "message": self._message}],
        }


_MOMENT = (
    "2[0-9]{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    "T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_MOMENT_MESSAGE = "must be a moment with its zone in RFC 3339, such as 2026-12-01T00:00:00Z or ...T00:00:00+01:00"


class MomentText:
    """Annotation of a `datetime` that is written in RFC 3339 with a zone, to the second."""

    def parse(self, value: object) -> datetime:
        """The moment, in UTC. YAML readers may have made one of an unquoted text already."""
        if isinstance(value, datetime) and value.tzinfo is not None:
            return value.astimezone(UTC)
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "{text}", {"text": f"must be of type string: {_MOMENT_MESSAGE}"})
        if re.fullmatch(_MOMENT, value) is None:
            raise broken(_MOMENT_MESSAGE)
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except ValueError as error:
            raise broken(_MOMENT_MESSAGE) from error

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        rule = f"self.matches('^{_MOMENT}$') && timestamp(self).getFullYear() >= 2000"
        return {"type": "string", "maxLength": 25, VALIDATIONS: [{"rule": rule, "message": _MOMENT_MESSAGE}]}


class DurationText:
    """Annotation of a `timedelta` that is written as a GEP-2257 duration between `shortest` and `longest`."""

    def __init__(self, shortest: str, longest: str) -> None:
        self._shortest = shortest
        self._longest = longest
        self._message = f"must be a duration from {shortest} to {longest}, such as 500ms, 30s or 1m30s"

    def parse(self, value: object) -> timedelta:
        """The exact length."""
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "{text}", {"text": f"must be of type string: {self._message}"})
        if _DURATION.fullmatch(value) is None:
            raise broken(self._message)
        milliseconds = duration_milliseconds(value)
        if not duration_milliseconds(self._shortest) <= milliseconds <= duration_milliseconds(self._longest):
            raise broken(self._message)
        return timedelta(milliseconds=milliseconds)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        rule = (
            f"self.matches('^{_DURATION.pattern}$') && duration(self) >= duration('{self._shortest}')"
            f" && duration(self) <= duration('{self._longest}')"
        )
        return {"type": "string", "maxLength": 24, VALIDATIONS: [{"rule": rule, "message": self._message}]}
