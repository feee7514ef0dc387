"""The corpora of the kinds: one file, one promise. Reads accepted/, rejected/ and updates/; judges nothing."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
EXAMPLES = FOLDER.parents[1] / "examples"


@dataclass(frozen=True)
class Sample:
    """One file of a corpus: its documents, and for what is refused the field and a part of the message."""

    documents: tuple[dict[str, Any], ...]
    field: str
    message: str

    @property
    def refused(self) -> bool:
        """Whether the file says that the last document is refused."""
        return bool(self.message)


def read_sample(path: Path) -> Sample:
    """The file with its comments `# field: …` and `# message: …`."""
    text = path.read_text(encoding="utf-8")
    said = dict(re.findall(r"^# (field|message): (.*)$", text, re.MULTILINE))
    return Sample(tuple(yaml.safe_load_all(text)), said.get("field", ""), said.get("message", ""))


def samples(folder: str) -> dict[str, Sample]:
    """The files of one folder by name. An empty folder is an error: a moved corpus must not pass as none."""
    files = sorted((FOLDER / folder).glob("*.yaml"))
    if not files:
        raise FileNotFoundError(f"no files in {FOLDER / folder}")
    return {file.stem: read_sample(file) for file in files}


def examples_documents() -> list[dict[str, Any]]:
    """Every document of every manifest in examples/."""
    files = sorted(EXAMPLES.glob("**/*.yaml"))
    return [document for file in files for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
