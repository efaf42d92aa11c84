"""Help and refusals come before anything heavy is imported, and threads wait as the process's owner says."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from training.cli._errors import EXIT_STATUS as TRAINING_STATUS
from zoo.cli._errors import EXIT_STATUS
from zoo.threads import set_up_threads, usable_processors

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "timm", "pandas", "plotly", "sklearn", "cv2", "matplotlib")
EVERY_COMMAND = """
import contextlib, importlib, io, sys
from zoo.cli.common import find_commands

heavy = sys.argv[1].split()
lines = [
    [package, *words]
    for package in ("zoo.cli", "training.cli")
    for words in (["--help"], ["no-such-command"], *([name, "--help"] for name in find_commands(package)))
]
lines += [
    ["zoo.cli", "classify", "cell.png", "--model", "cnn60", "--no-such-option"],
    ["training.cli", "train", "cnn60", "--data", ".", "--out", "new", "--set", "no.such.key=1"],
]
for package, *words in lines:
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            status = importlib.import_module(package).main(words)
        except SystemExit as end:
            status = end.code
    assert status == (0 if words[-1] == "--help" else 2), (words, status, told.getvalue())
    found = [name for name in heavy if name in sys.modules]
    assert not found, f"{package} {' '.join(words)} imports {', '.join(found)}"
"""


def test_help_and_refusals_import_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", EVERY_COMMAND, " ".join(HEAVY)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted({*EXIT_STATUS, *TRAINING_STATUS}))
def test_every_expected_error_exists(name):
    module, _, kind = name.rpartition(".")
    assert issubclass(getattr(import_module(module), kind), Exception)


def test_threads_wait_without_spinning_unless_the_owner_chose(tmp_path):
    environment = {}
    set_up_threads(environment, tmp_path)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE", "OPENCV_FOR_THREADS_NUM": "1"}
    own = {"GOMP_SPINCOUNT": "100", "OPENCV_FOR_THREADS_NUM": "2"}
    set_up_threads(own, tmp_path)
    assert own == {"GOMP_SPINCOUNT": "100", "OPENCV_FOR_THREADS_NUM": "2"}


@pytest.mark.parametrize("text", ["50000 100000", "100000 100000"])
def test_a_container_of_one_processor_gets_one_thread(tmp_path, text):
    (tmp_path / "cpu.max").write_text(text)
    environment = {"OMP_WAIT_POLICY": "ACTIVE"}
    set_up_threads(environment, tmp_path)
    assert usable_processors(tmp_path) == 1
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE"
    assert environment.get("OMP_NUM_THREADS", "1") == "1"


def test_without_a_limit_the_affinity_counts(tmp_path):
    (tmp_path / "cpu.max").write_text("max 100000")
    assert usable_processors(tmp_path) == usable_processors(tmp_path / "missing")
