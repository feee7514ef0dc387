"""ModelProvider to ProviderSpec: where it is, what it costs, which key it needs, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator

from spendmesh_operator.compile.model import Finding, SecretNeed
from spendmesh_operator.index import Index
from spendmesh_operator.manifests import ModelPrice as ManifestPrice, ModelProvider, nanos
from spendmesh_operator.prices import BuiltInPrices
from spendmesh_sidecar.core.specs import ModelPrice, PriceRow, ProviderSpec, TokenPrices

LONG_WRITE_FACTOR = 2
"""Anthropic bills one-hour cache writes at twice the input price (docs: pricing, prompt caching)."""


def provider_spec(provider: ModelProvider, alias: str, prices: BuiltInPrices, operator_namespace: str) -> ProviderSpec:
    """The provider as a policy's targets see it under `alias`."""
    spec = provider.spec
    price_list = prices.list_for(spec.base_url, spec.dialect)
    need = secret_need(provider)
    return ProviderSpec(
        alias=alias,
        ref=f"{provider.metadata.namespace}/{provider.metadata.name}",
        dialect=spec.dialect,
        base_url=spec.base_url.rstrip("/"),
        auth=spec.auth.type,
        key_name=need.provider if need is not None else "",
        secret=f"{need.secret}/{need.key}" if need is not None else "",
        allowed_fields=tuple(sorted(spec.allowed_fields)),
        price_list=price_list,
        platform=provider.metadata.namespace == operator_namespace,
        prices=tuple(
            _model_price(price, spec.dialect, prices, price_list)
            for price in sorted(spec.prices, key=lambda price: price.model)
        ),
    )


def _model_price(price: ManifestPrice, dialect: str, prices: BuiltInPrices, price_list: str) -> ModelPrice:
    plain = nanos(price.input_per_million)
    write = plain if price.cache_write_per_million is None else nanos(price.cache_write_per_million)
    # Not priced is not free: the published ratio stands in for a price that is left out.
    long_write = max(write, plain * LONG_WRITE_FACTOR) if dialect == "Anthropic" else write
    if price.cache_write_one_hour_per_million is not None:
        long_write = nanos(price.cache_write_one_hour_per_million)
    known = prices.find(price_list, price.model)
    return ModelPrice(
        model=price.model,
        currency=price.currency,
        rows=(
            PriceRow(
                prices=TokenPrices(
                    input=plain,
                    output=nanos(price.output_per_million),
                    cache_read=plain if price.cache_read_per_million is None else nanos(price.cache_read_per_million),
                    cache_write=write,
                    cache_write_long=long_write,
                )
            ),
        ),
        # A negotiated price does not change what the model can hold: the built-in limits stay where none are given.
        context_tokens=price.context_tokens or (known.price.context_tokens if known else None),
        max_output_tokens=price.max_output_tokens or (known.price.max_output_tokens if known else None),
    )


def secret_need(provider: ModelProvider) -> SecretNeed | None:
    """The Secret's item that holds the provider's key."""
    api_key = provider.spec.auth.api_key
    if api_key is None:
        return None
    return SecretNeed(provider.metadata.name, api_key.secret_key_ref.name, api_key.secret_key_ref.key)


def price_of(provider: ProviderSpec, model: str, prices: BuiltInPrices) -> ModelPrice | None:
    """What a model costs at a provider; None where nobody prices it."""
    own = next((price for price in provider.prices if price.model == model), None)
    if own is not None:
        return own
    listed = prices.find(provider.price_list, model)
    return listed.price if listed is not None and listed.price.rows else None


def provider_findings(provider: ModelProvider, index: Index) -> Iterator[Finding]:
    """What can be said about a provider on its own: whether its key can be found."""
    need = secret_need(provider)
    if need is None:
        return
    namespace = provider.metadata.namespace
    field = "spec.auth.apiKey.secretKeyRef"
    items = index.secret_keys(namespace, need.secret)
    if items is None and index.secrets_complete:
        yield Finding(
            "ResolvedRefs",
            "False",
            "SecretNotFound",
            f"{field}.name: {need.secret!r}: no Secret of that name in namespace {namespace}: create it with an item "
            f"{need.key!r} that holds the provider's key",
        )
    elif items is None:
        yield Finding(
            "ResolvedRefs",
            "True",
            "ResolvedRefs",
            f"{field} is not looked up: the operator has no right to read Secrets; a sidecar that finds no item "
            f"{need.key!r} of Secret {namespace}/{need.secret} says so in condition Programmed",
        )
    elif need.key not in items:
        known = ", ".join(sorted(items)) or "none"
        yield Finding(
            "ResolvedRefs",
            "False",
            "SecretKeyNotFound",
            f"{field}.key: {need.key!r}: Secret {namespace}/{need.secret} has no such item (it has: {known}): add it, "
            "or name one that is there",
        )
