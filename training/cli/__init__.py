"""Command line for making models: `hemazoo-train` or `python -m training`. Each module of its folders is a command."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.cli.common import Program, run_program

PROGRAM = Program("training.cli", "hemazoo-train", "python -m training", "Make models of blood cells for the zoo.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of the training package.

    Args:
        arguments: Words of the command line; None takes those of this process.

    Returns:
        The exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    return run_program(PROGRAM, arguments)
