"""A batch program: one question to the model, then the end. Exit status 0 if it was answered."""

from __future__ import annotations

import openai


def main() -> None:
    """Ask and print."""
    answer = openai.OpenAI().chat.completions.create(
        model="auto", messages=[{"role": "user", "content": "Summarize the night's orders."}], max_tokens=32
    )
    print(answer.model, answer.usage.total_tokens if answer.usage else "no usage")


if __name__ == "__main__":
    main()
