"""No data set is named in code: what is particular to one stands in its TOML file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from zoo.data.registry import BUILTIN

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in BUILTIN.glob("*.toml"))
# digits may follow, as in ids of models that were made from one data set
NAMED = re.compile(rf"(?<![a-z])({'|'.join(map(re.escape, NAMES))})(?![a-z])", re.IGNORECASE)
FILES = sorted(path for place in ("zoo", "training", "pages") for path in (ROOT / place).rglob("*.py"))


def named_in(code: str) -> Iterator[tuple[int, str]]:
    """Line and text of string literals that name a data set, docstrings excepted."""
    tree = ast.parse(code)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        literal = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        if literal and NAMED.search(node.value):
            yield node.lineno, node.value


def test_no_string_names_a_data_set():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:100]!r}"
        for path in (*FILES, ROOT / "app.py")
        for line, text in named_in(path.read_text(encoding="utf-8"))
    ]
    assert not found, "Put it into the data set's file in zoo/data/sets:\n" + "\n".join(found)


def test_names_are_found_in_strings_and_not_in_docstrings():
    code = '"""Of lisc."""\nA = f"{x}/pbc8-net"\ndef f():\n    "Of PBC."\n    return "BCCD", "pbcs", "ellisc"\n'
    assert [(line, text.strip("/")) for line, text in named_in(code)] == [(2, "pbc8-net"), (5, "BCCD")]
