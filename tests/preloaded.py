"""Processes that have imported the large libraries already, among them Python in a copy of the project.

They are forked from a server that imported the libraries once; a new interpreter would spend several seconds on each
run. There is one server a test process, so that all tests that use it name the same libraries. It and this module
import nothing of ours, because a copy's modules must be the ones that are used.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import runpy
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path

LIBRARIES = [
    *("torch", "torchvision", "timm", "pandas", "scipy.stats", "sklearn.metrics", "pydantic", "pyarrow.parquet"),
    *("huggingface_hub", "accelerate"),
]
OURS = ("zoo", "training", "pages", "tests")
TIMEOUT = 600  # seconds; nothing takes as long, even where four test processes share two cores


def forked() -> ForkServerContext:
    """The context whose processes have imported `LIBRARIES`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    return context


def run_python(folder: Path, arguments: list[str]) -> tuple[int | None, str, str]:
    """Exit status, standard output and standard error of `python ARGUMENTS` in a folder; status None: it hung."""
    texts = [folder.parent / f"{folder.name}.{end}" for end in ("out", "err")]
    for path in texts:
        path.touch()
    process = forked().Process(
        target=_main, args=(str(folder), arguments, [str(path) for path in texts], dict(os.environ))
    )
    process.start()
    process.join(TIMEOUT)
    status = process.exitcode
    if status is None:
        process.kill()
        process.join()
    out, err = (path.read_text(encoding="utf-8") for path in texts)
    return status, out, err


def _main(folder: str, arguments: list[str], outputs: list[str], environment: dict[str, str]) -> None:
    for descriptor, path in enumerate(outputs, 1):
        with Path(path).open("w", encoding="utf-8") as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))
    faulthandler.dump_traceback_later(TIMEOUT - 20, file=sys.stderr)  # what hangs, if something does
    root = str(Path(__file__).parents[1])
    multiprocessing.set_start_method(None, force=True)  # the default one, as in a new interpreter
    os.chdir(folder)
    os.environ.clear()  # the server has the environment of the first test that used it
    os.environ |= environment | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
    sys.path[:] = [folder, *(path for path in sys.path if path not in ("", root))]
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    option, code, *rest = arguments
    try:
        if option == "-m":
            sys.argv = [code, *rest]
            runpy.run_module(code, run_name="__main__", alter_sys=True)
        else:
            sys.argv = ["-c", *rest]
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
