"""Objects of the four kinds as users write them, for one team with both providers at the stand-in."""

from __future__ import annotations

from typing import Any

NAMESPACE = "team-a"
PRICES = [
    {
        "model": "small-1",
        "currency": "USD",
        "inputPerMillion": "0.05",
        "outputPerMillion": "0.40",
        "cacheReadPerMillion": "0.005",
        "contextTokens": 128000,
        "maxOutputTokens": 16384,
    },
    {
        "model": "medium-1",
        "currency": "USD",
        "inputPerMillion": "0.25",
        "outputPerMillion": "2.00",
        "contextTokens": 128000,
        "maxOutputTokens": 16384,
    },
    {
        "model": "medium-2",
        "currency": "USD",
        "inputPerMillion": "0.30",
        "outputPerMillion": "2.40",
        "contextTokens": 128000,
        "maxOutputTokens": 16384,
    },
    {
        "model": "large-1",
        "currency": "USD",
        "inputPerMillion": "5",
        "outputPerMillion": "25",
        "contextTokens": 200000,
        "maxOutputTokens": 32768,
    },
]


def secret(**keys: str) -> dict[str, Any]:
    metadata = {"name": "model-keys", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys}


def manifest(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "spendmesh.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"{kind}/{name}", "generation": 1},
        "spec": spec,
    }


def provider(name: str, base_url: str, dialect: str = "OpenAI", **spec: Any) -> dict[str, Any]:
    return manifest(
        "ModelProvider",
        name,
        {
            "dialect": dialect,
            "baseURL": base_url,
            **({"plaintext": "Allow"} if base_url.startswith("http://") else {}),
            "auth": {"type": "APIKey", "apiKey": {"secretKeyRef": {"name": "model-keys", "key": name}}},
            "prices": PRICES,
            **spec,
        },
    )


def targets(model: str, *providers: str) -> list[dict[str, Any]]:
    return [{"name": f"{name}-{model}", "provider": name, "model": model} for name in providers]


def routing(*providers: str, **spec: Any) -> dict[str, Any]:
    names = providers or ("openai", "anthropic")
    return manifest(
        "RoutingPolicy",
        "support",
        {
            "providers": [{"name": name, "ref": {"name": name}} for name in names],
            "match": {"models": [{"pattern": "auto"}], "unmatched": "PassThrough"},
            "tiers": [
                {"name": "economy", "targets": targets("small-1", *names)},
                {"name": "standard", "targets": targets("medium-1", *names)},
                {"name": "premium", "targets": targets("large-1", *names)},
            ],
            "defaultTier": "standard",
            "rules": [{"name": "extract", "when": {"tasks": ["extract", "classify"]}, "tier": "economy"}],
            "bounds": [{"name": "vip", "when": {"userPlans": ["enterprise"]}, "minTier": "premium"}],
            **spec,
        },
    )


def budget(amount: str = "100.00", name: str = "team", **limit: Any) -> dict[str, Any]:
    window = {"type": "Calendar", "period": "Month", "timeZone": "Europe/Berlin"}
    one = {"name": "monthly", "currency": "USD", "amount": amount, "window": window, **limit}
    return manifest("ModelBudget", name, {"limits": [one]})


def retries(
    percent: int = 100,
    attempts: int = 2,
    minimum: int = 10,
    failures: int = 5,
    on_all_ejected: str = "Serve",
    **spec: Any,
) -> dict[str, Any]:
    """Retries without noticeable waiting, and as many as a test needs unless it says less."""
    breaker = {"consecutive5xxErrors": failures, "baseEjectionTime": "1s", "maxEjectionTime": "2s"}
    return manifest(
        "RetryBudget",
        "default",
        {
            "retryConstraint": {
                "budget": {"percent": percent, "interval": "30s"},
                "minRetryRate": {"count": minimum, "interval": "10s"},
            },
            "retry": {
                "codes": [408, 429, 500, 502, 503, 504, 529],
                "attempts": attempts,
                "backoff": "1ms",
                "throttledBackoff": "1ms",
                "maxBackoff": "5s",
            },
            "circuitBreaker": {**breaker, "onAllEjected": on_all_ejected},
            **spec,
        },
    )
