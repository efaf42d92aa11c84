"""`python -m training deploy-space`: one commit; the Dockerfile is linted and its steps are run in a folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from huggingface_hub import HfApi

from tests.hub import Hub, metadata
from training.cli import main
from training.publish.space import render_card

ROOT = Path(__file__).parents[3]
HOME = "/home/user"


@pytest.fixture
def server(hub) -> Hub:
    return hub


def deploy(*options: str) -> int:
    return main(["deploy-space", "--repo", "alice/demo", *options])


def test_the_dockerfile_passes_the_linter():
    linter = Path(sys.executable).parent / "hadolint"
    run = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_app_is_deployed_and_deployed_again(server, capsys):
    assert deploy("--zoo", "alice", "--hardware", "t4-small", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    space = server.repos["spaces", "alice/demo"]
    files = space.at("main").files
    assert {
        "app.py",
        "pages/classify.py",
        "zoo/serving/runtime.py",
        "Dockerfile",
        "requirements.txt",
        "requirements.lock",
        "README.md",
    } <= set(files)
    assert not any(name.startswith(("training", "tests", "runs", ".git/")) or "__pycache__" in name for name in files)
    assert {name.split("/")[0] for name in files} == {
        ".gitattributes",  # made by the Hub
        *(".dockerignore", ".streamlit", "Dockerfile", "LICENSE", "README.md", "app.py", "pages"),
        *("requirements.txt", "requirements.lock"),
        "zoo",
    }
    told_of = metadata(server.blobs[files["README.md"].oid].decode())
    assert told_of["sdk"] == "docker"
    assert told_of["app_port"] == 8501
    assert b"ARG DEVICE=cuda" in server.blobs[files["Dockerfile"].oid]
    assert server.count("POST /api/spaces/alice/demo/variables")
    assert server.count("POST /api/spaces/alice/demo/hardware")
    assert told["sha"] == space.at("main").sha
    commits = len(space.commits)
    assert deploy("--hardware", "t4-small") == 0
    assert "nothing has changed" in capsys.readouterr().err
    server.put("alice/demo", {"zoo/gone.py": b"old", "notes.txt": b"theirs"}, "spaces")
    assert deploy("--dry-run") == 0
    told = capsys.readouterr().err
    assert "- zoo/gone.py" in told
    assert "notes.txt" not in told
    assert "~ Dockerfile" in told, "without a GPU it is another"
    assert len(space.commits) == commits + 1
    assert deploy() == 0
    assert "zoo/gone.py" not in space.at("main").files
    assert "notes.txt" in space.at("main").files


def test_refusals_of_the_hub_are_reported(server, capsys, monkeypatch):
    assert main(["deploy-space", "--repo", "demo"]) == 1
    assert "NAMESPACE/NAME" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "")
    assert deploy() == 1
    assert "hf auth login" in capsys.readouterr().err
    assert not server.repos


def test_the_dockerfiles_steps_start_the_app(server, tmp_path):
    """The Space as the Hub would build it, without a container: files, environment, health check and command."""
    assert deploy() == 0
    sent = Path(
        HfApi(endpoint=server.url).snapshot_download("alice/demo", repo_type="space", local_dir=tmp_path / "sent")
    )
    home, port = tmp_path / "home", free_port()
    home.mkdir()

    def here(text: str) -> str:
        return text.replace(HOME, str(home)).replace("8501", str(port)).replace("0.0.0.0", "127.0.0.1")

    parser = DockerfileParser(fileobj=(sent / "Dockerfile").open("rb"))
    steps = [(step["instruction"], step["value"]) for step in parser.structure]
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(home)}
    environment |= {name: here(value) for name, value in parser.envs.items()}
    place = home
    for instruction, value in steps:
        words = value.split()
        if instruction == "WORKDIR":
            place = Path(here(value))
            place.mkdir(parents=True)
        elif instruction == "COPY":
            source, target = [word for word in words if not word.startswith("--")]
            assert target == "."
            ignored = (sent / ".dockerignore").read_text().split()
            if source == ".":
                shutil.copytree(sent, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*ignored, ".cache"))
            else:
                shutil.copy(sent / source, place)
        elif instruction == "RUN":
            assert words[0] in ("useradd", "if"), "the user, and what requirements.txt names"
    # what is installed there is what is installed here
    wanted = [line for line in (place / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    there = subprocess.run([sys.executable, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    assert {line.split("==")[0].lower() for line in wanted} <= {
        line.split("==")[0].lower().replace("_", "-") for line in there.splitlines()
    }
    assert dict(steps)["USER"] == "1000"
    assert dict(steps)["EXPOSE"] == "8501"
    command = json.loads(here(dict(steps)["CMD"]))
    check = json.loads(here(dict(steps)["HEALTHCHECK"].split("CMD ")[1]))
    begin = time.monotonic()
    with subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as app:
        try:
            while subprocess.run(check, env=environment, capture_output=True, check=False).returncode:
                assert app.poll() is None
                assert time.monotonic() - begin < 120
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20).read()
        finally:
            app.terminate()
    assert b'<div id="root">' in page
    print(f"healthy {time.monotonic() - begin:.1f} s after its start")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_the_card_has_valid_metadata():
    assert yaml.safe_load(render_card("a/b").split("---")[1])["title"] == "b"
