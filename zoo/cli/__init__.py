"""Command line of the zoo: `hemazoo` or `python -m zoo`. Each module of this folder is a command."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.cli.common import Program, run_program

PROGRAM = Program("zoo.cli", "hemazoo", "python -m zoo", "Models of blood cells: list, classify, explain.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of the zoo.

    Args:
        arguments: Words of the command line; None takes those of this process.

    Returns:
        The exit status: 0 done, 1 some inputs failed (each is named), 2 wrong usage, 130 interrupted.
    """
    return run_program(PROGRAM, arguments)
