"""The test's application: official SDKs as anyone uses them, told by HTTP what to ask. Knows nothing of Spendmesh.

POST /call {"api": "chat|messages|embeddings", "arguments": {...}} answers with the outcome.
POST /jobs {"call": {...}, "count": N, "workers": K} starts N calls by K threads and answers {"id": "1"};
GET /jobs/1 tells what has come of them so far, streams chunk by chunk. GET /ready answers when the SDKs are loaded.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import openai

Json = dict[str, Any]
PORT = 8000


class Caller:
    """One client of each SDK, made without arguments: addresses and keys come from the environment."""

    def __init__(self) -> None:
        self.openai = openai.OpenAI()
        self.anthropic = anthropic.Anthropic()
        self.apis: dict[str, Any] = {
            "chat": self.openai.chat.completions,
            "embeddings": self.openai.embeddings,
            "messages": self.anthropic.messages,
        }

    def call(self, api: str, arguments: Json, outcome: Json) -> None:
        """Make one call; `outcome` grows while a stream runs."""
        try:
            answer = self.apis[api].with_raw_response.create(**arguments)
            outcome["status"] = answer.http_response.status_code
            outcome["headers"] = dict(answer.headers)
            parsed = answer.parse()
            if arguments.get("stream"):
                outcome["chunks"] = []
                for chunk in parsed:
                    outcome["chunks"].append(chunk.model_dump(mode="json"))
            else:
                outcome["result"] = parsed.model_dump(mode="json")
            outcome["ended"] = "ok"
        except (openai.APIStatusError, anthropic.APIStatusError) as error:
            outcome["status"] = error.status_code
            outcome["headers"] = dict(error.response.headers)
            outcome["body"] = error.body
            outcome["ended"] = "refused"
        except Exception as error:  # noqa: BLE001  whatever an SDK raises is the outcome
            outcome["error"] = f"{type(error).__name__}: {error}"
            outcome["ended"] = "broken"


class Job:
    """Calls in the background."""

    def __init__(self, caller: Caller, call: Json, count: int, workers: int) -> None:
        self._caller, self._call, self._left = caller, call, count
        self._lock = threading.Lock()
        self.outcomes: list[Json] = []
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._left <= 0:
                    return
                self._left -= 1
                outcome: Json = {}
                self.outcomes.append(outcome)
            self._caller.call(self._call["api"], self._call["arguments"], outcome)

    def state(self) -> Json:
        """What there is so far."""
        done = not any(thread.is_alive() for thread in self._threads)
        return {"done": done, "outcomes": [dict(outcome) for outcome in self.outcomes]}


def main() -> None:
    """Serve until the end of the container."""
    caller = Caller()
    jobs: dict[str, Job] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.startswith("/jobs/"):
                self._answer(jobs[self.path.removeprefix("/jobs/")].state())
            else:
                self._answer({"ready": True})

        def do_POST(self) -> None:
            said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/call":
                outcome: Json = {}
                caller.call(said["api"], said["arguments"], outcome)
                self._answer(outcome)
            else:
                identifier = str(len(jobs) + 1)
                jobs[identifier] = Job(caller, said["call"], said["count"], said["workers"])
                self._answer({"id": identifier})

        def _answer(self, body: Json) -> None:
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: the outcomes are the record."""

    ThreadingHTTPServer(("", PORT), Handler).serve_forever()


if __name__ == "__main__":
    main()
