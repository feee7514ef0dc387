"""Keep the tree in architecture.md true: one line per module, taken from the module's own first sentence."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tree: make generate -->\n", "<!-- end of tree -->\n"
PACKAGES = (
    "sidecar/spendmesh_sidecar",
    "operator/spendmesh_operator",
    "cli/spendmesh_cli",
    "cli/spendmesh_standin",
)


def tree() -> str:
    """The block between the markers."""
    lines: list[str] = []
    for package in PACKAGES:
        lines += [f"\n### {package}\n", "\n```text\n", *_folder(ROOT / package, 0), "```\n"]
    return "".join(lines)


def _folder(folder: Path, depth: int) -> list[str]:
    lines = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        indent = "  " * depth
        if path.suffix == ".py" and path.name != "__init__.py":
            lines.append(f"{indent}{path.stem:<{24 - len(indent)}} {_sentence(path)}\n")
        elif path.is_dir() and (path / "__init__.py").exists():
            lines.append(f"{indent}{path.name + '/':<{24 - len(indent)}} {_sentence(path / '__init__.py')}\n")
            lines += _folder(path, depth + 1)
    return lines


def _sentence(path: Path) -> str:
    """First line of the docstring, up to a colon or full stop that ends its first thought."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n", maxsplit=1)[0].split()).split(". ")[0].rstrip(".")


def main() -> int:
    """Write the page, or with --check say whether it is true."""
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    new = head + BEGIN + tree() + "\n" + END + rest.partition(END)[2]
    if "--check" in sys.argv:
        if new != page:
            sys.stderr.write("docs/architecture.md does not show the tree as it is: run `make generate`\n")
        return int(new != page)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
