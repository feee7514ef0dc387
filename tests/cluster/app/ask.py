"""Ask a model something by hand: `ask.py [--task T] [--plan P] [--model M] QUESTION`."""

from __future__ import annotations

import argparse

import openai


def main() -> None:
    """Ask, print the answer and what the sidecar says about the call."""
    parser = argparse.ArgumentParser()
    parser.add_argument("question")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--task", default="")
    parser.add_argument("--plan", default="")
    options = parser.parse_args()
    hints = {"x-spendmesh-task": options.task, "x-spendmesh-user-plan": options.plan}
    try:
        answer = openai.OpenAI().chat.completions.with_raw_response.create(
            model=options.model,
            messages=[{"role": "user", "content": options.question}],
            max_tokens=64,
            extra_headers={name: value for name, value in hints.items() if value},
        )
    except openai.APIStatusError as error:
        print(error.status_code, error.message)
        return
    print(answer.parse().choices[0].message.content)
    print(*sorted(f"{name}: {value}" for name, value in answer.headers.items() if "spendmesh" in name), sep="\n")


if __name__ == "__main__":
    main()
