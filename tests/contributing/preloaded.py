"""Run Python in a copy of the project, in a process that has imported the large libraries already.

The process is forked from a server that imported them once; a new interpreter would spend several seconds on each run.
This module imports nothing of ours, because the copy's modules must be the ones that are used.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from pathlib import Path

LIBRARIES = ["torch", "torchvision", "timm", "pandas", "scipy.stats", "sklearn.metrics", "pydantic", "pyarrow.parquet"]
OURS = ("zoo", "training", "pages", "tests")
TIMEOUT = 300  # seconds


def run_python(folder: Path, arguments: list[str]) -> tuple[int | None, str, str]:
    """Exit status, standard output and standard error of `python ARGUMENTS` in a folder; status None: it hung."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    texts = [folder.parent / f"{folder.name}.{end}" for end in ("out", "err")]
    process = context.Process(
        target=_main, args=(str(folder), arguments, [str(path) for path in texts], dict(os.environ))
    )
    process.start()
    process.join(TIMEOUT)
    if process.is_alive():
        process.kill()
        process.join()
        return None, *(path.read_text(encoding="utf-8") for path in texts)
    return process.exitcode, *(path.read_text(encoding="utf-8") for path in texts)


def _main(folder: str, arguments: list[str], outputs: list[str], environment: dict[str, str]) -> None:
    root = str(Path(__file__).parents[2])
    multiprocessing.set_start_method(None, force=True)  # the default one, as in a new interpreter
    os.chdir(folder)
    os.environ.clear()  # the server has the environment of the first test that used it
    os.environ |= environment | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
    sys.path[:] = [folder, *(path for path in sys.path if path not in ("", root))]
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    for descriptor, path in enumerate(outputs, 1):
        with Path(path).open("w", encoding="utf-8") as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))
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
