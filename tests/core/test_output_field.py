"""The maximum stands in a field that binds at the provider that gets it: one that is passed over costs money."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from exchange_world import OPENAI, World, chat, price, success
from spendmesh_sidecar.core.operations import parse, parse_request, rewrite
from spendmesh_sidecar.core.output_field import output_field
from spendmesh_sidecar.core.prices.costs import Pricing
from spendmesh_sidecar.core.shape import shape_of
from spendmesh_sidecar.core.specs import ListedModel, ModelMatch, PriceList

OPENAIS = ("gpt-5-mini", "o3", "gpt-oss-120b")
PRICING = Pricing(
    PriceList(id=name, models=tuple(ListedModel(match=ModelMatch(equals=(m,)), price=price(m, 1, 2)) for m in OPENAIS))
    for name in ("openai", "azure", "groq")
)
NEW, OLD = "max_completion_tokens", "max_tokens"


@pytest.mark.parametrize(
    ("base_url", "price_list", "model", "field"),
    [
        ("https://api.openai.com/v1", "openai", "gpt-5-mini", NEW),
        ("https://eu.api.openai.com/v1", "openai", "ft:something", NEW),
        ("https://ours.openai.azure.com/openai/v1", "azure", "our-deployment", NEW),
        ("https://gateway.example/v1", "openai", "o3", NEW),
        ("https://gateway.example/v1", "openai", "gpt-oss-120b", OLD),
        ("http://ollama.models:11434/v1", "openai", "gemma4:12b", OLD),
        ("https://api.openai.com.evil.example/v1", "openai", "gemma4:12b", OLD),
        ("https://api.mistral.ai/v1", "mistral", "mistral-large", OLD),
        ("https://api.groq.com/openai/v1", "groq", "gpt-oss-120b", OLD),
    ],
)
def test_only_who_serves_openais_models_gets_the_new_name(
    base_url: str, price_list: str, model: str, field: str
) -> None:
    """All others know the old one; OpenAI's reasoning models refuse it."""
    provider = replace(OPENAI, base_url=base_url, price_list=price_list)
    assert output_field(shape_of(chat()), provider, model, PRICING) == field


def test_an_injected_maximum_has_the_name_that_binds() -> None:
    run = World().run(chat(maximum=None), [success()])
    assert [(attempt.max_output_tokens, attempt.output_field) for attempt in run.attempts] == [(1_000, OLD)]


def test_a_clients_maximum_gets_the_name_that_binds_where_policy_chose_the_model() -> None:
    """The client could not know who will answer. What it asked of a model by name goes as it came."""
    chosen = World().run(chat("auto", maximum=77), [success()])
    asked = World().run(chat("named-1", maximum=77), [success()])
    assert [(attempt.max_output_tokens, attempt.output_field) for attempt in chosen.attempts] == [(77, OLD)]
    assert [attempt.max_output_tokens for attempt in asked.attempts] == [None]


def test_a_maximum_that_binds_already_is_left_alone() -> None:
    request = chat("auto", maximum=77)
    known = replace(request, bounds=replace(request.bounds, output_field=OLD))
    assert [attempt.max_output_tokens for attempt in World().run(known, [success()]).attempts] == [None]


def test_other_operations_keep_their_field() -> None:
    """Anthropic has one name only."""
    body = b'{"model":"auto","messages":[],"max_tokens":5}'
    request = parse_request(parse("POST", "/anthropic/v1/messages").operation, body, [])
    assert output_field(shape_of(request), OPENAI, "fable-1", PRICING) == "max_tokens"


@pytest.mark.parametrize(("theirs", "ours"), [(NEW, OLD), (OLD, NEW), (NEW, NEW)])
def test_the_client_s_name_goes_when_ours_comes(theirs: str, ours: str) -> None:
    """Both at once are refused by OpenAI."""
    body = b'{"model":"auto","%s":900,"messages":[]}' % theirs.encode()
    request = parse_request(parse("POST", "/openai/v1/chat/completions").operation, body, [])
    sent = msgspec.json.decode(rewrite(request, "m", 900, False, ours))
    assert sent == {"model": "m", "messages": [], ours: 900}
