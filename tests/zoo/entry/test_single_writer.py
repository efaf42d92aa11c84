"""Only zoo/entry/write.py writes an entry's files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from zoo.entry import files

ROOT = Path(__file__).parents[3]
WRITER = ROOT / "zoo" / "entry" / "write.py"
NAMES = {"CONFIG", "WEIGHTS", "HEAD", "NEIGHBOURS", "OOD_STATISTICS", "EVALUATION", "PREDICTIONS", "HISTORY", "CARD"}
NAMES |= {"predictions_file"}
# README.md and history.json are also the names of files that are no part of an entry
TEXTS = {files.CONFIG, files.WEIGHTS, files.HEAD, files.NEIGHBOURS, files.OOD_STATISTICS, files.EVALUATION}
WRITING = {
    "atomic_path",
    "dump",
    "mkdir",
    "open",
    "rename",
    "replace",
    "save",
    "save_file",
    "save_model",
    "to_json",
    "to_parquet",
    "touch",
    "write",
    "write_bytes",
    "write_json",
    "write_table",
    "write_text",
}


def entry_names(tree: ast.Module) -> set[str]:
    """Names that a module imports from zoo.entry for the files of an entry, as it calls them."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if node.module in ("zoo.entry", "zoo.entry.files")]
    return {alias.asname or alias.name for node in ours for alias in node.names if alias.name in NAMES}


def writes(source: str) -> Iterator[int]:
    """Numbers of the lines in which a module writes a file of an entry."""
    tree = ast.parse(source)
    names = entry_names(tree)
    paths = set()  # local variables that hold the path of such a file
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and mentions(node.value, names, set()):
            paths |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        reads = called == "open" and not any(
            isinstance(part, ast.Constant) and isinstance(part.value, str) and set(part.value) & set("wax+")
            for part in node.args
        )
        where = [*node.args, *(word.value for word in node.keywords)]
        if isinstance(function, ast.Attribute):
            where.append(function.value)
        if called in WRITING and not reads and any(mentions(part, names, paths) for part in where):
            yield node.lineno


def mentions(node: ast.AST, names: set[str], paths: set[str]) -> bool:
    """Whether an expression names a file of an entry."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id in names | paths:
            return True
        if isinstance(part, ast.Constant) and part.value in TEXTS:
            return True
    return False


def modules() -> list[Path]:
    return [path for base in ("zoo", "training") for path in sorted((ROOT / base).rglob("*.py")) if path != WRITER]


def test_no_other_module_writes_an_entry():
    found = [f"{path.relative_to(ROOT)}:{line}" for path in modules() for line in writes(path.read_text())]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "write_json(folder / CONFIG, {})",
        "save_file(tensors, str(folder / WEIGHTS))",
        '(folder / "evaluation.json").write_text("{}")',
        "path = folder / CONFIG\npath.write_text('')",
        "with atomic_path(folder / CONFIG) as temporary:\n    pass",
        'table.to_parquet(folder / f"{PREDICTIONS}/x.parquet")',
        '(folder / CONFIG).open("w")',
    ],
)
def test_the_check_sees_writing(line):
    assert list(writes(f"from zoo.entry import CONFIG, PREDICTIONS, WEIGHTS\n{line}\n"))


@pytest.mark.parametrize(
    "line", ["read_json(folder / CONFIG)", "(folder / CONFIG).read_text()", "open(folder / CONFIG)"]
)
def test_the_check_lets_reading_pass(line):
    assert not list(writes(f"from zoo.entry import CONFIG\n{line}\n"))
