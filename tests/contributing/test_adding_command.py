"""A command is one file in `zoo/cli`, or in a folder of `training/cli`."""

from __future__ import annotations

import pytest

COMMAND = '''"""Count the letters of a word.

Prints how many letters a word has.
"""

from __future__ import annotations

import argparse

from zoo.cli.common import OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("word", help="any word")


def run(options: argparse.Namespace) -> int:
    """Print the number of letters."""
    print(len(options.word))
    return OK
'''


@pytest.mark.parametrize(("package", "folder"), [("zoo", "zoo/cli"), ("training", "training/cli/data")])
def test_a_new_file_is_listed_and_runs(project_copy, package, folder):
    project_copy.write(f"{folder}/count_letters.py", COMMAND)
    commands = project_copy.python("-m", package, "--help")
    assert "count-letters" in commands
    assert "count the letters of a word" in commands
    assert "Prints how many letters a word has." in project_copy.python("-m", package, "count-letters", "--help")
    assert project_copy.python("-m", package, "count-letters", "eosinophil") == "10\n"
