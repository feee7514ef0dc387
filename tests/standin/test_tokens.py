"""The stand-in's own counting never breaks physics, and its replies depend on the request alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from spendmesh_standin import tokens
from spendmesh_standin.errors import ApiError
from spendmesh_standin.generation import Wanted, generate
from spendmesh_standin.tokens import Directives

MESSAGES = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": st.text()}), min_size=1, max_size=5)


@given(MESSAGES)
def test_a_prompt_has_at_least_one_token_and_no_more_than_bytes(messages: Any) -> None:
    count = tokens.count_prompt(messages, Directives())
    assert 1 <= count <= len(tokens.serialized(messages))


@given(MESSAGES, st.integers(0, 500))
def test_a_claimed_count_holds_exactly_where_it_is_possible(messages: Any, claimed: int) -> None:
    size = len(tokens.serialized(messages))
    if claimed <= size:
        assert tokens.count_prompt(messages, Directives(input=claimed)) == max(1, claimed)
    else:
        with pytest.raises(ApiError, match="at least one byte"):
            tokens.count_prompt(messages, Directives(input=claimed))
        assert tokens.count_prompt(messages, Directives(input=claimed), lying=True) <= size


@given(st.binary(max_size=32), st.integers(0, 300), st.integers(0, 50), st.integers(0, 200), st.integers(1, 4))
def test_no_choice_exceeds_its_maximum(seed: bytes, output: int, thinking: int, limit: int, n: int) -> None:
    wanted = Wanted(seed, output, thinking, limit)
    for choice in generate(wanted, n):
        used = len(choice.pieces) + len(choice.reasoning)
        assert used == min(limit, output + min(thinking, limit))
        assert choice.finish == ("stop" if output + len(choice.reasoning) <= limit else "length")
    assert generate(wanted, n) == generate(wanted, n)


def test_the_last_directive_of_the_user_counts_and_nobody_elses() -> None:
    messages = [
        {"role": "system", "content": "[[out=1]]"},
        {"role": "user", "content": "[[out=2]] [[unknown=3]] [[Wiki link]]"},
        {"role": "user", "content": [{"type": "text", "text": "[[out=4]] [[tool=weather]]"}, {"type": "image"}]},
        {"role": "assistant", "content": "[[out=5]]"},
    ]
    assert tokens.read_directives(tokens.user_texts(messages)) == Directives(output=4, tool="weather")


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "²"])
def test_a_count_that_is_no_natural_number_is_refused(value: str) -> None:
    with pytest.raises(ApiError, match="natural number"):
        tokens.read_directives([f"[[out={value}]]"])


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "array", "items": {"type": "boolean"}}, [True]),
        ({"type": ["number", "null"]}, 1.5),
        ({"anyOf": [{"const": "only"}, {"type": "null"}]}, "only"),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"enum": [3]}}}, 3),
        ({"properties": {"a": {"type": "integer"}, "b": {"type": "null"}}, "required": ["b"]}, {"b": None}),
        ({"$ref": "#"}, None),
        ("nonsense", None),
    ],
)
def test_a_sample_fits_its_schema(schema: Any, value: Any) -> None:
    assert tokens.sample(schema, b"seed") == value
