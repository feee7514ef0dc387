"""Where the examples are: beside the package in a wheel, at the top of the tree in a checkout."""

from __future__ import annotations

from pathlib import Path


def examples() -> Path:
    """The folder `examples`. Raises FileNotFoundError naming what to do."""
    here = Path(__file__).resolve().parent
    for folder in (here / "examples", here.parents[1] / "examples"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError("the examples are not installed; run from a checkout, or install the wheel again")
