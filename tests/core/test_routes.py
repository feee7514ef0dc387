"""Request lines: what is an operation, what its upstream path is, and that nothing else passes."""

from __future__ import annotations

import pytest

from spendmesh_sidecar.core.operations import RequestError, parse


@pytest.mark.parametrize(
    ("method", "target", "name", "upstream", "alias"),
    [
        ("POST", "/openai/v1/chat/completions", "chat", "/chat/completions", ""),
        ("POST", "/openai/v1/embeddings", "embeddings", "/embeddings", ""),
        ("GET", "/openai/v1/models", "models", "/models", ""),
        ("GET", "/openai/v1/models/ft:gpt-4o:org::id", "models", "/models/ft:gpt-4o:org::id", ""),
        ("POST", "/anthropic/v1/messages", "messages", "/v1/messages", ""),
        ("POST", "/anthropic/v1/messages?beta=true", "messages", "/v1/messages?beta=true", ""),
        ("POST", "/anthropic/v1/messages/count_tokens", "count_tokens", "/v1/messages/count_tokens", ""),
        ("GET", "/anthropic/v1/models?limit=2&after_id=m1", "models", "/v1/models?limit=2&after_id=m1", ""),
        ("GET", "/anthropic/v1/models/claude-haiku-4-5", "models", "/v1/models/claude-haiku-4-5", ""),
        ("POST", "/providers/small-ai/chat/completions", "chat", "/chat/completions", "small-ai"),
        ("POST", "/providers/a/v1/messages", "messages", "/v1/messages", "a"),
    ],
)
def test_the_table_knows_every_operation(method: str, target: str, name: str, upstream: str, alias: str) -> None:
    """An OpenAI base URL has /v1 in it, an Anthropic one has not: the upstream path continues it as the SDK would."""
    route = parse(method, target)
    assert (route.operation.name, route.operation.upstream_path, route.alias) == (name, upstream, alias)
    assert route.operation.method == method
    assert route.operation.billed == (name in ("chat", "embeddings", "messages"))


@pytest.mark.parametrize(
    "target",
    [
        "/openai/v1//chat/completions",
        "//openai/v1/chat/completions",
        "/openai/v1/./chat/completions",
        "/openai/v1/x/../chat/completions",
        "/openai/v1/chat%2fcompletions",
        "/openai/v1/chat%2Fcompletions",
        "/openai/v1/chat\\completions",
        "/openai/v1/chat/completions/",
        "/openai/v1/chat/completions#x",
        "/openai/v1/chat/completions;v=1",
        "/OPENAI/v1/chat/completions",
        "http://127.0.0.1/openai/v1/chat/completions",
        "http://169.254.169.254/latest/meta-data",
        "@169.254.169.254/openai/v1/chat/completions",
        "*",
        "",
        "/",
        "/openai",
        "/openai/v1",
        "/openai/v1/responses",
        "/openai/v1/files",
        "/openai/v1/messages",
        "/anthropic/chat/completions",
        "/anthropic/v1/messages/batches",
        "/providers/",
        "/providers//chat/completions",
        "/providers/../chat/completions",
        "/providers/UPPER/chat/completions",
        "/providers/a/b/chat/completions",
        "/providers/a/v1/chat/completions",
        "/v1/chat/completions",
    ],
)
def test_row_29_no_other_path_is_an_operation(target: str) -> None:
    """Row 29 in part: `..`, `//`, `%2f`, an absolute form and everything unknown are refused, never normalized."""
    with pytest.raises(RequestError) as caught:
        parse("POST", target)
    assert (caught.value.code, caught.value.status) == ("operation_unsupported", 404)


@pytest.mark.parametrize("model_id", ["..", ".", "a/b", "a%2fb", "", "-x", "a b", "x" * 129, "é"])
def test_a_model_id_is_a_plain_name(model_id: str) -> None:
    with pytest.raises(RequestError, match="no operation"):
        parse("GET", f"/openai/v1/models/{model_id}")


@pytest.mark.parametrize(("method", "target"), [("GET", "/openai/v1/chat/completions"), ("POST", "/openai/v1/models")])
def test_the_method_belongs_to_the_operation(method: str, target: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(method, target)
    assert caught.value.code == "operation_unsupported"


@pytest.mark.parametrize(
    "target",
    [
        "/openai/v1/chat/completions?",
        "/openai/v1/chat/completions?model=dear",
        "/anthropic/v1/messages?beta=true&beta=false",
        "/anthropic/v1/messages?beta=a%26b",
        "/anthropic/v1/messages?key=sk-secret",
        "/anthropic/v1/models?limit=",
    ],
)
def test_query_parameters_come_from_the_table_too(target: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse("GET" if "models" in target else "POST", target)
    assert caught.value.code == "request_invalid"
    assert "sk-secret" not in caught.value.message
