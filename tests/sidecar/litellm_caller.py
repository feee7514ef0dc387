"""
One process with LiteLLM in it, which calls when it is told to: a JSON line in, a JSON line out.

In: `{"how": "sync" | "async", "arguments": {…of litellm.completion}}`. Out: `{"error": class, "status": of the HTTP
answer that it reports, or null}`; both null where it has an answer. Not imported by the tests: it runs where LiteLLM is
installed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import litellm

litellm.suppress_debug_info = True


def call(how: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """One call, with whatever LiteLLM does about its failures."""
    try:
        if how == "async":
            asyncio.run(litellm.acompletion(**arguments))
        else:
            litellm.completion(**arguments)
    except Exception as error:  # noqa: BLE001 - whatever an app would be told
        return {"error": type(error).__name__, "status": getattr(error, "status_code", None)}
    return {"error": None, "status": None}


answers, sys.stdout = sys.stdout, sys.stderr  # LiteLLM prints advice
print("ready", file=answers, flush=True)
for line in sys.stdin:
    print(json.dumps(call(**json.loads(line))), file=answers, flush=True)
