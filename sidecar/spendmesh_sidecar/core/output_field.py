"""
Which field of a chat completion bounds its output at a provider.

OpenAI renamed `max_tokens` to `max_completion_tokens` and refuses the old name for reasoning models; Azure serves the
same models. Elsewhere the old name is the one that all know: Ollama and llama-cpp-python pass over the new one in
silence, so that nothing is bounded (ollama#7125, llama-cpp-python#1907), and Mistral answers it with 422.
"""

from __future__ import annotations

import re

from spendmesh_sidecar.core.once import once
from spendmesh_sidecar.core.prices.costs import Pricing
from spendmesh_sidecar.core.shape import Shape
from spendmesh_sidecar.core.specs import ProviderSpec

_OPENAI = re.compile(r"https://(?:[a-z]{2,}\.)?api\.openai\.com(?:[:/]|$)")
_OPEN_WEIGHTS = "gpt-oss"
"""In OpenAI's price list, and run by anybody."""


def output_field(shape: Shape, provider: ProviderSpec, model: str, pricing: Pricing) -> str:
    """The field to set at this target; empty for an operation without output."""
    if shape.operation.name != "chat":
        return shape.output_field
    return "max_completion_tokens" if _renamed(provider, model, pricing) else "max_tokens"


def _renamed(provider: ProviderSpec, model: str, pricing: Pricing) -> bool:
    if _by_openai(provider):
        return True
    # Any other host without a list of its own: a gateway to OpenAI serves models that only OpenAI has.
    listed = provider.price_list == "openai" and pricing.listed(provider, model) is not None
    return listed and not model.lower().startswith(_OPEN_WEIGHTS)


@once
def _by_openai(provider: ProviderSpec) -> bool:
    """OpenAI itself, or Azure."""
    return provider.price_list == "azure" or _OPENAI.match(provider.base_url.lower()) is not None
