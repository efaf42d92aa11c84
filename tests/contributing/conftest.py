"""A temporary copy of the project's code, to which a test adds one file or function."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.preloaded import run_python

ROOT = Path(__file__).parents[2]
CODE = ("zoo", "training", "pages", "tests", "app.py", "pyproject.toml")


@dataclass(frozen=True)
class ProjectCopy:
    """A folder with a copy of the code; the built-in entries are a link."""

    folder: Path

    def write(self, path: str, text: str) -> None:
        """Write one new file."""
        target = self.folder / path
        assert not target.exists(), f"{path} exists already"
        target.write_text(text, encoding="utf-8")

    def append(self, path: str, text: str) -> None:
        """Add a function at the end of a module."""
        with (self.folder / path).open("a", encoding="utf-8") as file:
            file.write(text)

    def python(self, *arguments: str) -> str:
        """Standard output of Python in the copy, such as `python("-m", "zoo", "list")`; fails if Python does."""
        status, out, err = run_python(self.folder, list(arguments))
        assert status == 0, err
        return out


@pytest.fixture
def project_copy(tmp_path: Path) -> ProjectCopy:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "builtin"))
        else:
            shutil.copy(source, folder / name)
    (folder / "zoo" / "builtin").symlink_to(ROOT / "zoo" / "builtin", target_is_directory=True)
    return ProjectCopy(folder)
