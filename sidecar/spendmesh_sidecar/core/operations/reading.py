"""What both dialects' readers bring back from a body, and how many tokens its input can be."""

from __future__ import annotations

from msgspec import Struct

from spendmesh_sidecar.core.operations.fields import Findings
from spendmesh_sidecar.core.types import Bounds

REQUEST_TOKENS = 64
"""Framing of a conversation beyond its bytes; measured framing is 3 tokens a request and 4 a message."""
MESSAGE_TOKENS = 8


class Read(Struct, frozen=True, gc=False):
    """What a body says that matters before routing."""

    bounds: Bounds
    unpriced: tuple[str, ...]
    stream: bool = False
    usage_asked: bool = True


def input_bound(size: int, findings: Findings, image_tokens: int) -> int:
    """
    No tokenizer makes more tokens than this out of the body: a token is at least one byte of text (byte-level BPE,
    and SentencePiece with byte fallback), and escapes only add bytes.
    """
    framing = REQUEST_TOKENS + findings.messages * MESSAGE_TOKENS + findings.overhead_tokens
    return size - findings.image_bytes + findings.images * image_tokens + framing
