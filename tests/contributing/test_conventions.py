"""Conventions that the linter does not check: file and function length, docstrings, and what tests may patch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("zoo", "training", "pages")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 450, 60
SOURCES = [
    ROOT / "app.py",
    *(path for folder in (*OURS, "tests", "benchmarks", "docs") for path in sorted((ROOT / folder).rglob("*.py"))),
]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_file_is_long():
    long = {name_of(path): n for path in SOURCES if (n := len(path.read_text().splitlines())) > MAX_FILE_LINES}
    assert not long


def test_no_function_is_long():
    long = {
        f"{name_of(path)}:{node.lineno} {node.name}": length
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert not long


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """(place, first line) of every docstring of a file."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                line = getattr(node, "lineno", 1)
                yield f"{name_of(path)}:{line}", text.splitlines()[0]


def is_question(line: str) -> bool:
    return line.endswith("?") or bool(re.match(r"(What|How|Who|Whose|Whom|Where|Why|When|Which)\b", line))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("How good is a model, and how sure are we?", True),
        ("What an entry knows.", True),
        ("Is one model really better than another?", True),
        ("Learning-rate schedules and early stopping.", False),
        ("Whether the interval lies on one side of zero.", False),
    ],
)
def test_questions_are_recognised(line, expected):
    assert is_question(line) == expected


def test_no_docstring_begins_as_a_question():
    questions = {place: line for path in SOURCES for place, line in docstrings(path) if is_question(line)}
    assert not questions


def patched_names(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, module or expression, name) of everything that a test file patches by `setattr` or `patch`."""
    tree = tree_of(path)
    imported = {
        alias.asname or alias.name: name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        for name in [f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name]
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = ast.unparse(node.func).rsplit(".", 1)[-1]
        first = node.args[0]
        if called in ("setattr", "delattr") and len(node.args) > 1 and not isinstance(first, ast.Constant):
            target = ast.unparse(first)
            head, _, rest = target.partition(".")
            place = ".".join(filter(None, [imported.get(head, head), rest]))
            second = node.args[1]
            yield node.lineno, place, str(second.value) if isinstance(second, ast.Constant) else ast.unparse(second)
        elif called in ("setattr", "delattr", "patch") and isinstance(first, ast.Constant):
            place, _, name = str(first.value).rpartition(".")
            yield node.lineno, place, name
        elif called == "object" and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            yield node.lineno, ast.unparse(first), str(node.args[1].value)


def is_private(place: str, name: str) -> bool:
    """Whether a patched name is a private member of our own code; dunder names are not."""
    parts = [*place.split("."), name]
    private = [part for part in parts if part.startswith("_") and not part.startswith("__")]
    return bool(private) and place.split(".", 1)[0] in OURS


TESTS = sorted((ROOT / "tests").rglob("*.py"))


def test_no_test_patches_a_private_member():
    found = [
        f"{name_of(path)}:{line} {place}.{name}"
        for path in TESTS
        for line, place, name in patched_names(path)
        if is_private(place, name)
    ]
    assert not found


def test_patches_are_found(tmp_path):
    """The check above sees each way of patching."""
    source = tmp_path / "test_some.py"
    source.write_text(
        "import zoo.serving.models.loaded\nfrom training import run as running\n"
        "monkeypatch.setattr('zoo.data.packed._write', None)\n"
        "monkeypatch.setattr(running, '_stop', None)\n"
        "patch('zoo.cache._folder')\n"
        "monkeypatch.setattr(zoo.serving.models.loaded._Model, 'load', None)\n"
        "monkeypatch.setattr(torch, '_C', None)\n"
        "monkeypatch.setattr(running, 'train', None)\n"
    )
    assert [line for line, place, name in patched_names(source) if is_private(place, name)] == [3, 4, 5, 6]
