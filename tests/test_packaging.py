"""Packaging: pins within ranges, one version number, torch without CUDA, and what the wheel holds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import zoo

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def read_pins(name: str) -> dict[str, str]:
    """Pinned version by package of a requirements file, without the files that it includes."""
    pins = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if text and not text.startswith("-r"):
            package, version = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?==([\w.]+)", text).groups()
            pins[canonicalize_name(package)] = version
    return pins


def read_ranges(extra: str | None = None) -> dict[str, Requirement]:
    """Declared range by package: the dependencies, or those of an extra."""
    listed = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, listed)}


@pytest.mark.parametrize(
    ("file", "ranges"),
    [
        ("requirements.txt", read_ranges() | read_ranges("app") | read_ranges("dicom")),
        ("requirements-ray.txt", read_ranges("ray")),
        ("requirements-serve.txt", read_ranges("serve")),
        ("requirements-dev.txt", {k: v for k, v in read_ranges("dev").items() if k != PROJECT["name"]}),
    ],
)
def test_every_pin_is_within_its_range(file, ranges):
    pins = read_pins(file)
    assert set(pins) == set(ranges)
    outside = [f"{name}=={pin}" for name, pin in pins.items() if not ranges[name].specifier.contains(pin)]
    assert not outside


def test_the_version_is_written_once():
    assert PROJECT["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", zoo.__version__)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {zoo.__version__}" in changes
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == zoo.__version__


def test_the_workflow_covers_every_declared_python():
    declared = [text.rsplit(" ", 1)[1] for text in PROJECT["classifiers"] if ":: Python ::" in text]
    workflow = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text(encoding="utf-8"))
    checks = workflow["jobs"]["checks"]
    assert checks["strategy"]["matrix"]["python"] == declared
    assert ".ci/run" in [step.get("run") for step in checks["steps"]]


def test_pre_commit_runs_the_checks_of_make_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = [hook["entry"].replace(".venv/bin/", "$(BIN)/").removesuffix(" --fix") for hook in hooks]
    assert len(commands) == 3
    assert all(f"\t{command}" in makefile for command in commands)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose virtual environment has a Python that only writes down how it is called."""
    for name in ("Makefile", "requirements.lock", *(path.name for path in ROOT.glob("requirements*.txt"))):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@" >> calls.txt\n')
    python.chmod(0o755)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", ".venv/.installed", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def calls(folder: Path) -> list[str]:
    return (folder / "calls.txt").read_text().splitlines()


def test_device_cpu_installs_torch_from_the_index_without_cuda(checkout):
    assert make(checkout, "DEVICE=cpu").returncode == 0
    torch, others = calls(checkout)
    assert f"--index-url {CPU_INDEX} -r .venv/torch.txt" in torch
    assert others.endswith("--no-deps --require-hashes -r .venv/others.lock")
    left_out = set(locked(ROOT / "requirements.lock")) - set(locked(checkout / ".venv/others.lock"))
    assert {"torch", "torchvision", "triton"} <= left_out
    assert all(re.match("torch|triton|nvidia-|cuda-", name) for name in left_out)
    pins = read_pins("requirements.txt")
    assert (checkout / ".venv/torch.txt").read_text().split() == [
        f"torch=={pins['torch']}",
        f"torchvision=={pins['torchvision']}",
    ]


def test_the_default_device_installs_the_lock_file_alone(checkout):
    assert make(checkout).returncode == 0
    assert len(calls(checkout)) == 1
    assert calls(checkout)[0].endswith("--require-hashes -r requirements.lock")


def test_the_lock_file_can_be_left_out(checkout):
    assert make(checkout, "LOCK=no").returncode == 0
    assert calls(checkout)[0].endswith("-q -r requirements.txt")


def locked(path: Path) -> dict[str, tuple[str, int]]:
    """Version and number of hashes by package, as a lock file has them."""
    blocks = re.findall(
        r"^([a-z0-9][\w.-]*)(?:\[\w,]+\])?==([\w.]+)(.*?)(?=^[a-z0-9]|\Z)", path.read_text(), re.M | re.S
    )
    return {canonicalize_name(name): (version, rest.count("--hash=sha256:")) for name, version, rest in blocks}


def test_the_lock_file_pins_what_requirements_name_and_more_with_hashes():
    """Renewed by `make lock`."""
    lock = locked(ROOT / "requirements.lock")
    pins = read_pins("requirements.txt")
    assert {name: lock[name][0] for name in pins} == pins
    assert len(lock) > len(pins)
    assert all(hashes for _, hashes in lock.values())


def test_the_bill_of_materials_lists_the_installed_packages(tmp_path):
    command = re.search(r"\$\(BIN\)/cyclonedx-py (.*) --output-file", (ROOT / "Makefile").read_text()).group(1)
    arguments = command.replace("$(BIN)/python", sys.executable).split()
    out = tmp_path / "sbom.json"
    subprocess.run([sys.executable, "-m", "cyclonedx_py", *arguments, "--output-file", out], check=True)
    listed = {part["name"].lower(): part["version"] for part in json.loads(out.read_text())["components"]}
    assert listed["streamlit"] == read_pins("requirements.txt")["streamlit"]
    assert len(listed) > 100


def test_a_renewed_installation_keeps_its_device(checkout):
    make(checkout, "DEVICE=cpu")
    (checkout / "calls.txt").unlink()
    later = (checkout / ".venv/.installed").stat().st_mtime + 10
    os.utime(checkout / "requirements.txt", (later, later))
    assert make(checkout).returncode == 0
    assert CPU_INDEX in calls(checkout)[0]
    assert "make clean" in make(checkout, "DEVICE=cuda").stderr


def test_refuses_an_unknown_device(checkout):
    run = make(checkout, "DEVICE=tpu")
    assert run.returncode != 0
    assert "give cpu or cuda" in run.stderr


def test_the_container_installs_torch_as_make_does():
    makefile, dockerfile = (ROOT / "Makefile").read_text(), (ROOT / "Dockerfile").read_text()
    selection = "grep -E '^(torch|torchvision)==' requirements.txt"
    without_cuda = re.search("^WITHOUT_CUDA := (.*)$", makefile, re.M).group(1)
    for text in (selection, CPU_INDEX, without_cuda):
        assert text in makefile
        assert text in dockerfile


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a folder of its own; what it depends on is taken from the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def source_files() -> Iterator[str]:
    for folder in ("zoo", "training"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT).as_posix()


@pytest.mark.artefacts
def test_the_wheel_holds_zoo_and_training_with_their_data(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        entry_points = archive.read(f"hemazoo-{zoo.__version__}.dist-info/entry_points.txt").decode()
    assert sorted(names) == sorted(source_files())
    assert {
        "zoo/builtin/champion8/model.safetensors",
        "zoo/benchmarks/sets/lisc.toml",
        "zoo/audits/builtin/pbc/report.json",
        "zoo/sources/examples.json",
        "training/recipes/champion8.toml",
        "training/spaces/cnn5_224.toml",
    } <= set(names)
    assert "hemazoo = zoo.cli:main" in entry_points
    assert "hemazoo-train = training.cli:main" in entry_points


@pytest.fixture
def run_installed(installed, tmp_path):
    """Run an installed command in a folder outside the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "HEMAZOO_CACHE": str(tmp_path / "cache")}

    def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [installed / "bin" / command, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.artefacts
def test_installed_commands_work_from_another_folder(run_installed, cells, tmp_path):
    cells[0].save(tmp_path / "picture.png")
    assert run_installed("hemazoo", "--version").stdout.split() == ["HemaZoo", zoo.__version__]
    assert "champion8-small" in run_installed("hemazoo", "list").stdout
    classified = run_installed("hemazoo", "classify", "picture.png", "--model", "champion8-small")
    assert classified.returncode == 0
    assert "picture.png" in classified.stdout
    recipes = run_installed("hemazoo-train", "recipes")
    assert recipes.returncode == 0
    assert "champion8" in recipes.stdout


@pytest.mark.artefacts
@pytest.mark.parametrize("arguments", [("deploy-space", "--repo", "alice/demo", "--dry-run"), ("reproduce",)])
def test_commands_that_need_a_checkout_say_so(run_installed, arguments):
    run = run_installed("hemazoo-train", *arguments)
    assert run.returncode != 0
    assert "checkout" in run.stderr
