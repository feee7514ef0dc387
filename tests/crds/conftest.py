"""Fixtures of the kinds: each file of the corpora."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from kinds_samples import samples

CRDS = Path(__file__).parents[2] / "crds"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`accepted`, `rejected` and `updated` are each file of the folder of that name."""
    for argument, folder in (("accepted", "accepted"), ("rejected", "rejected"), ("updated", "updates")):
        if argument in metafunc.fixturenames:
            found = samples(folder)
            metafunc.parametrize(argument, list(found.values()), ids=list(found))


@pytest.fixture(scope="session")
def committed_crds() -> dict[str, dict[str, Any]]:
    """The committed CustomResourceDefinitions by kind."""
    documents = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(CRDS.glob("*.yaml"))]
    return {document["spec"]["names"]["kind"]: document for document in documents}
