"""Find the commands of a package, parse the command line and run one command.

A command is a module of the package or of a folder in it; folders group commands in `--help`. The file's name is the
command's (`deploy_space.py` is `deploy-space`) and its docstring the help text. It defines

- `add_arguments(parser)`, which adds its options to an `argparse.ArgumentParser`;
- `run(options)`, which runs it and returns an exit status;
- `INTERRUPTED_MESSAGE`, where Ctrl-C or SIGTERM deserves more than "Stopped.".

The package's module `_errors` maps names of exceptions to exit statuses. Modules called `common`, or
with a leading underscore, are not commands.

The docstring is read from the source without importing the module: importing torch for `--help` would take seconds.
"""

from __future__ import annotations

import argparse
import ast
import io
import pkgutil
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType

from zoo.files import printable
from zoo.threads import set_up_threads
from zoo.version import __version__

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
DEVICE_HELP = "auto, cpu, cuda or mps (default: %(default)s)"
ENTRY_HELP = "id of an entry in the zoo, or its folder"


@dataclass(frozen=True)
class Program:
    """A command-line program.

    Attributes:
        package: Package whose modules are the commands.
        script: Name of the installed script.
        command: How to start the program without installing it.
        description: One sentence for `--help`.
    """

    package: str
    script: str
    command: str
    description: str

    @property
    def name(self) -> str:
        """The name for help texts: the script's if it was started, else the command."""
        return self.script if Path(sys.argv[0]).stem == self.script else self.command


class HelpFormatter(argparse.HelpFormatter):
    """Wraps each paragraph of a description; indented paragraphs, such as examples, stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip("\n").split("\n\n")
        return "\n\n".join(
            part if part.startswith(" ") else textwrap.fill(" ".join(part.split()), width, initial_indent=indent)
            for part in paragraphs
        )


def print_message(message: object) -> None:
    """Print a line for people on stderr; stdout is kept for results."""
    print(message, file=sys.stderr)


def fail(message: object, status: int = FAILED) -> int:
    """Print why a command failed, on stderr, and return the exit status."""
    print_message(message)
    return status


def find_commands(package: str) -> dict[str, str]:
    """List the commands of a package.

    Returns:
        The docstring of each command by its name, in alphabetical order.
    """
    return {name: _docstring(path) for name, (_, path) in sorted(_modules(package).items())}


def load_command(package: str, name: str) -> ModuleType:
    """Import the module of the command `name`. Raises KeyError if there is none."""
    return import_module(_modules(package)[name][0])


def _modules(package: str) -> dict[str, tuple[str, Path]]:
    """Module and file of each command of a package, by the command's name."""
    found: dict[str, tuple[str, Path]] = {}
    for folder in import_module(package).__path__:
        for module in pkgutil.iter_modules([folder]):
            if module.ispkg:
                found |= _modules(f"{package}.{module.name}")
            elif module.name != "common" and not module.name.startswith("_"):
                name = module.name.replace("_", "-")
                found[name] = (f"{package}.{module.name}", Path(folder) / f"{module.name}.py")
    return found


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _groups(package: str) -> str:
    """The names of commands by folder, each folder with its sentence; empty where there are no folders."""
    groups: dict[Path, list[str]] = {}
    for name, (module, path) in sorted(_modules(package).items()):
        if module.rpartition(".")[0] != package:
            groups.setdefault(path.parent, []).append(name)
    return "\n\n".join(
        f"{_docstring(folder / '__init__.py').removesuffix('.')}: {', '.join(names)}."
        for folder, names in sorted(groups.items())
    )


def make_parser(program: Program, selected: str | None = None) -> argparse.ArgumentParser:
    """Make the parser of a program.

    Args:
        program: The program.
        selected: The command to be run. Only its options are added, so that only its module is imported.
    """
    parser = argparse.ArgumentParser(
        program.name,
        description=program.description,
        epilog=_groups(program.package).replace("%", "%%"),
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"HemaZoo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in find_commands(program.package).items():
        summary = text.partition("\n")[0].removesuffix(".").replace("%", "%%")
        command = commands.add_parser(
            name, help=summary[:1].lower() + summary[1:], description=text, formatter_class=HelpFormatter
        )
        if name == selected:
            load_command(program.package, name).add_arguments(command)
    return parser


def run_program(program: Program, arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run one command and return its exit status.

    Args:
        program: The program.
        arguments: Words of the command line; None takes those of this process.
    """
    set_up_threads()
    words = sys.argv[1:] if arguments is None else list(arguments)
    selected = next((word for word in words if not word.startswith("-")), None)  # options of the program have no value
    options = make_parser(program, selected).parse_args(words)
    command = load_command(program.package, options.command)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot show end no run
    try:
        with _ended_by_sigterm():
            return int(command.run(options))
    except KeyboardInterrupt:
        return fail(getattr(command, "INTERRUPTED_MESSAGE", "Stopped."), INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # whoever reads our output has left, as `head` does
        return FAILED
    except Exception as error:
        status = _exit_status(program.package, error)
        if status is not None:
            return fail(error, status)
        if isinstance(error, OSError):
            return fail(f"{printable(str(error.filename or 'A file'))} cannot be read or written: {error.strerror}.")
        raise


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, by which services and schedulers end a process, do what Ctrl-C does; commands may do better."""
    alone = threading.current_thread() is threading.main_thread()  # others receive no signals
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if hasattr(signal, "SIGCHLD"):  # where workers are told too, torch would raise an error for their end
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit_status(package: str, error: Exception) -> int | None:
    """The exit status for an expected error, None for any other."""
    statuses = import_module(f"{package}._errors").EXIT_STATUS
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    return next((status for name, status in statuses.items() if name in kinds), None)
