"""A stand-in for paid model providers that keeps its own invoice; it imports nothing of Spendmesh.

It speaks OpenAI's and Anthropic's wire on one port, in a test's own loop or as a process:

    async with StandIn() as standin:              # DEFAULT_KEYS are accepted
        client = AsyncOpenAI(base_url=standin.openai_url, api_key=DEFAULT_KEYS[0].secret)
        standin.faults(FaultRule("status", status=503, first=2, bill="full"), FaultRule("no_usage", stream=True))
        ...
        assert standin.invoice().cost_nanos <= ledger

    python -m spendmesh_standin --key openai=KEY --invoice FILE --faults FILE

What a reply costs is written into the prompt, in the user's own text: `[[in=3000]]` input tokens (the prompt must have
as many bytes), `[[out=120]]` output tokens, `[[cached=512]]` of the input read from cache, `[[reasoning=40]]` thinking
tokens, `[[rejected=4]]` predicted tokens thrown away, `[[tool]]` or `[[tool=name]]` to call an offered tool. Without
them input is a quarter of the prompt's bytes and output is 16. The same request is always answered with the same text.

Under `/_standin/`: GET `invoice`, `requests`, `faults` (how often each rule acted), `health`; POST `faults` (replaces
the plan), `reset`, `ack/ID?chunks=N` (lets withheld chunks go). `faults.py` lists the switches, `prices.py` the models.
"""

from spendmesh_standin.faults import FaultPlan, FaultRule
from spendmesh_standin.invoice import InvoiceLine, Statement
from spendmesh_standin.prices import Tokens
from spendmesh_standin.server import StandIn
from spendmesh_standin.settings import DEFAULT_KEYS, Key, Settings

__all__ = ["DEFAULT_KEYS", "FaultPlan", "FaultRule", "InvoiceLine", "Key", "Settings", "StandIn", "Statement", "Tokens"]
