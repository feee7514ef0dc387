"""ModelProvider: where a provider is, with which key, and what it costs. Who may be routed there is RoutingPolicy's."""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from spendmesh_operator.manifests.common import (
    ACCEPTED,
    AGE,
    Column,
    CrdNames,
    Currency,
    Manifest,
    ModelName,
    ObjectName,
)
from spendmesh_operator.manifests.conditions import Status
from spendmesh_operator.manifests.quantities import TOKENS_MAX, WHOLE, DecimalText
from spendmesh_operator.manifests.rules import SET, Node, Rule, list_map, text_rule

Dialect = Literal["OpenAI", "Anthropic"]

PRICE_MAX = 10**6
"""Per million tokens, in any currency: a thousand times the dearest published price, so a slip of the point is seen."""

Price = Annotated[Decimal, DecimalText(PRICE_MAX)]
Tokens = Annotated[int, Field(ge=1, le=TOKENS_MAX), WHOLE]

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_PORT = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_SEGMENT = r"[A-Za-z0-9_~:@+-][A-Za-z0-9._~:@+-]*"

BaseURL = Annotated[
    str,
    Field(max_length=512),
    text_rule(
        rf"https?://{_HOST}(?::{_PORT})?(?:/{_SEGMENT})*/?",
        "must be an http or https URL of host, optional port and plain path, such as https://api.openai.com/v1; "
        "no user, query, fragment or percent sign",
    ),
]

BodyField = Annotated[
    str,
    Field(max_length=128),
    text_rule(
        r"[A-Za-z_][A-Za-z0-9_-]*(?:\[\])?(?:\.[A-Za-z_][A-Za-z0-9_-]*(?:\[\])?)*(?:=[A-Za-z0-9._-]+)?",
        "must be a body field as the refusal names it, without numbers in brackets, such as web_search_options "
        "or tools[].type=web_search",
    ),
]


class SecretKeyRef(Node):
    """One item of a Secret in the namespace of the pods that use the provider."""

    name: ObjectName
    """Name of the Secret. Example: model-keys"""
    key: Annotated[
        str,
        Field(max_length=253),
        text_rule("[-._a-zA-Z0-9]+", "must be a key of a Secret: letters, digits, '-', '_' and '.'"),
    ]
    """The item of the Secret that holds the provider's key and nothing else. Example: openai"""


class APIKey(Node):
    """Where the provider's key is. The key itself never stands in a manifest."""

    secret_key_ref: SecretKeyRef
    """The Secret's item that holds the key. Only the sidecar reads it. Example: {name: model-keys, key: openai}"""


class Auth(Node):
    """How the sidecar proves to the provider who pays."""

    RULES = (
        Rule(
            "self.type == 'APIKey' ? has(self.apiKey) : !has(self.apiKey)",
            lambda auth: (auth.type == "APIKey") == (auth.api_key is not None),
            "apiKey goes with type APIKey and with nothing else: add it, or write type: None without it",
        ),
    )

    type: Literal["APIKey", "None"]
    """APIKey sends the key in the header that the dialect uses; None sends none. Example: APIKey"""
    api_key: APIKey | None = None
    """Where the key is; with type APIKey. Example: {secretKeyRef: {name: model-keys, key: openai}}"""


class ModelPrice(Node):
    """What one model costs at this provider. It replaces the built-in price of that model as a whole."""

    model: ModelName
    """The model as the provider names it. Example: gpt-5-mini"""
    currency: Currency
    """Currency of all prices of this entry, ISO 4217. Nothing is converted: for a limit in another currency the model
    has no price. Example: USD"""
    input_per_million: Price
    """Price of a million input tokens, in the currency; 0 is free. Quote decimals. Example: "0.25\""""
    output_per_million: Price
    """Price of a million output tokens, reasoning included, in the currency; 0 is free. Example: "2.00\""""
    cache_read_per_million: Price | None = None
    """Price of a million input tokens that the provider read from its cache. Absent: as inputPerMillion.
    Example: "0.025\""""
    cache_write_per_million: Price | None = None
    """Price of a million input tokens written to the provider's cache for its usual time. Absent: as inputPerMillion.
    Example: "3.75\""""
    cache_write_one_hour_per_million: Price | None = None
    """Price of a million input tokens written to the provider's cache for one hour. Absent: for Anthropic twice
    inputPerMillion, as it publishes, and never less than cacheWritePerMillion; otherwise as cacheWritePerMillion.
    Example: "6.00\""""
    context_tokens: Tokens | None = None
    """Most tokens that a request and its answer may have together; it bounds the worst case that is reserved.
    Absent: as in the built-in table. Example: 128000"""
    max_output_tokens: Tokens | None = None
    """Most tokens that the model answers; it is reserved where a request names no maximum. Absent: as in the built-in
    table.
    Example: 16384"""


class ModelProviderSpec(Node):
    """Where the provider is, with which key, and what it costs."""

    RULES = (
        Rule(
            "self.baseURL.startsWith('https://') || self.plaintext == 'Allow'",
            lambda spec: spec.base_url.startswith("https://") or spec.plaintext == "Allow",
            "an http:// URL sends prompts and the key readable: use https://, or write plaintext: Allow",
            ".baseURL",
        ),
    )

    dialect: Dialect
    """The wire format that the provider speaks. Only requests of the same dialect are sent to it. Example: OpenAI"""
    base_url: BaseURL = Field(alias="baseURL")
    """The base URL, exactly as the dialect's SDK takes it: with /v1 for OpenAI, without for Anthropic.
    Example: https://api.openai.com/v1"""
    plaintext: Literal["Forbid", "Allow"] = "Forbid"
    """Allow lets baseURL be http://, for a provider inside the cluster. Example: Allow"""
    auth: Auth
    """How the sidecar proves who pays.
    Example: {type: APIKey, apiKey: {secretKeyRef: {name: model-keys, key: openai}}}"""
    allowed_fields: Annotated[tuple[BodyField, ...], Field(max_length=64), SET] = ()
    """Request body fields that pass under an enforced Cost limit although nobody can price them: what they cost is not
    covered by any limit. Named as in the refusal, without numbers in brackets; an entry stands for
    the field and everything below it. Example: [web_search_options, "tools[].type=web_search"]"""
    prices: Annotated[tuple[ModelPrice, ...], Field(max_length=128), list_map("model")] = ()
    """Prices by model. A model that is not in the list uses the built-in dated table.
    Example: [{model: small-1, currency: USD, inputPerMillion: "0.05", outputPerMillion: "0.40"}]"""


class ModelProvider(Manifest):
    """A provider of models: where it is, with which key, and what it costs. RoutingPolicies route to it by name; rights
    to write it are rights to name prices and keys, so they belong to the platform."""

    CRD: ClassVar[CrdNames] = CrdNames(
        plural="modelproviders",
        short="mprov",
        policy=None,
        columns=(
            Column(name="Dialect", path=".spec.dialect", description="Wire format."),
            Column(name="URL", path=".spec.baseURL", description="Base URL."),
            ACCEPTED,
            AGE,
        ),
    )
    STATUS: ClassVar[type[Node] | None] = Status

    kind: Literal["ModelProvider"]
    spec: ModelProviderSpec
