"""
How large a call of well-known models can be, where genai-prices does not say it or rounds it down. Build time only; a
hand table with sources.

A model that has no maximum here has no known one: its calls need one of their own. Where two sources differ, the
larger number stands here, since it bounds what a call can cost.
"""

from __future__ import annotations

import re

OPENAI_PAGES = "developers.openai.com/api/docs/models/gpt-5-nano and /gpt-5-codex"
OPENAI_OLDER = "rageagainstthepixel.github.io/OpenAI-DotNet (transcribes OpenAI's model pages)"
OPENAI_CHAT = "github.com/labring/fastgpt-plugin/pull/297"
GPT_5_X = "vercel.com/ai-gateway/models/openai/gpt-5.2-fast; developer.box.com card of GPT-5.4; docs.oxen.ai GPT 5.5"
GPT_5_6 = "docs.rs/crate/llmr models/openai.toml; runware.ai/docs/models/openai-gpt-5-6-luna"
GPT_6 = "docs.litellm.ai/blog/gpt_6_sol_luna; vercel.com/ai-gateway/models/gpt-6-luna-fast"
CLAUDE_OLDER = "docs.aihubmix.com/en/api/Claude-Native (transcribes Anthropic's models overview)"
CLAUDE_4_5 = "platform.claude.com/docs models/sonnet-5-5/overview (Haiku 4.5); aspire.dev Foundry fields (Opus 4.5)"
CLAUDE_4_6 = "github.com/Effect-TS/effect/releases @effect/ai-anthropic 4.0.0-beta.106 (4.6 to 4.8: 128000; 4.5: 64000)"
CLAUDE_5 = "platform.claude.com/docs models/{sonnet-5,sonnet-5-5,haiku-5-5}/overview, with its comparison table"

_LIMITS: tuple[tuple[str, str, int, str], ...] = (
    # provider, regular expression of the whole model id, tokens, source (read 2026-11); the first that fits counts
    ("openai", r"gpt-4o-2024-05-13", 4_096, OPENAI_OLDER),
    ("openai", r"gpt-4o(-mini)?(-2024-\d\d-\d\d)?|chatgpt-4o-latest", 16_384, OPENAI_OLDER),
    ("openai", r"gpt-4\.1(-mini|-nano)?(-2025-04-14)?", 32_768, OPENAI_OLDER),
    ("openai", r"gpt-4-turbo(-.*)?|gpt-3\.5-turbo(-\d{4})?", 4_096, OPENAI_OLDER),
    ("openai", r"gpt-4(-0613)?", 8_192, OPENAI_OLDER),
    ("openai", r"o1|o1-pro|o3|o3-mini|o3-pro|o4-mini", 100_000, OPENAI_OLDER),
    ("openai", r"gpt-5(\.\d)?-chat(-latest)?", 16_384, OPENAI_CHAT),
    ("openai", r"gpt-5(-mini|-nano|-codex)?", 128_000, OPENAI_PAGES),
    ("openai", r"gpt-5\.[1245](-mini|-nano|-codex)?", 128_000, GPT_5_X),
    ("openai", r"gpt-5\.6(-sol|-terra|-luna)?", 128_000, GPT_5_6),
    ("openai", r"gpt-6(-sol|-luna)", 128_000, GPT_6),
    ("anthropic", r"claude-3-(haiku|opus)(-.*)?", 4_096, CLAUDE_OLDER),
    ("anthropic", r"claude-3-5-(haiku|sonnet)(-.*)?", 8_192, CLAUDE_OLDER),
    ("anthropic", r"claude-3-7-sonnet(-.*)?", 64_000, CLAUDE_OLDER),
    ("anthropic", r"claude-opus-4(-0|-1)?(-2025\d{4})?", 32_000, CLAUDE_OLDER),
    ("anthropic", r"claude-sonnet-4(-0)?(-2025\d{4})?", 64_000, CLAUDE_OLDER),
    ("anthropic", r"claude-(sonnet|haiku|opus)-4-5(-2025\d{4})?", 64_000, CLAUDE_4_5),
    ("anthropic", r"claude-(sonnet-4-6|opus-4-[678])", 128_000, CLAUDE_4_6),
    ("anthropic", r"claude-(sonnet-5|sonnet-5-5|opus-5-5|haiku-5-5|fable-5-1)", 128_000, CLAUDE_5),
)

_CONTEXTS: tuple[tuple[str, str, int, str], ...] = (
    ("openai", r"gpt-4\.1(-mini|-nano)?", 1_047_576, "chatai.guide/models/context-window-comparison"),
    ("openai", r"gpt-5\.5(-pro)?", 1_050_000, "docs.oxen.ai GPT 5.5"),
    ("openai", r"gpt-4-32k", 32_768, "32 Ki tokens, as its name says"),
)


def context_tokens(provider: str, model: str, known: int | None) -> int | None:
    """The longest context: what genai-prices says (`known`), or more where it rounds down."""
    for of_provider, pattern, tokens, _ in _CONTEXTS:
        if of_provider == provider and re.fullmatch(pattern, model):
            return max(tokens, known or 0)
    return known


def max_output_tokens(provider: str, model: str) -> int | None:
    """The maximum that was read for `model`, or None where no source was."""
    for of_provider, pattern, tokens, _ in _LIMITS:
        if of_provider == provider and re.fullmatch(pattern, model):
            return tokens
    return None
