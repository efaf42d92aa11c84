"""How does the app become a Space on the Hub? Its files and a Dockerfile in one commit, with the zoo it is to list."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from training.publish.hub import Published, Say, compare, push, state
from zoo.entry import EntryError
from zoo.files import write_text
from zoo.sources import hub
from zoo.sources.catalogue import VARIABLE

ROOT = Path(__file__).parents[2]
PARTS = (
    "app.py",
    "pages",
    "zoo",
    ".streamlit/config.toml",
    "requirements.txt",
    "Dockerfile",
    ".dockerignore",
    "LICENSE",
)
LEFT_OUT = {"__pycache__", ".DS_Store"}
CPU = ("cpu-basic", "cpu-upgrade")


@dataclass(frozen=True)
class Space:
    """How to deploy: hardware by the Hub's name (None leaves it as it is) and places that its zoo lists."""

    hardware: str | None = None
    zoo: str | None = None
    private: bool = False
    rehearse: bool = False


def deploy(repo: str, wanted: Space, say: Say) -> Published:
    """Put the app into the Space `repo`; what is there already is not sent again.

    Needs a checkout: the installed package lacks `app.py` and the pages.

    Raises EntryError outside a checkout, if the Hub refuses, or somebody else deployed meanwhile: nothing is changed
    then.
    """
    if not hub.REPO.fullmatch(repo):
        raise EntryError(f"{repo} is no name of a Space: give NAMESPACE/NAME of letters, digits, dots and dashes.")
    if not (ROOT / "app.py").is_file():
        raise EntryError("deploy-space needs a checkout of HemaZoo: an installed package holds no app.")
    client = hub.api()
    with hub.hub_errors(repo), tempfile.TemporaryDirectory() as place:
        staged = stage(Path(place) / "app", repo, wanted)
        url = f"{client.endpoint}/spaces/{repo}"
        if not wanted.rehearse:
            client.create_repo(
                repo, repo_type="space", space_sdk="docker", private=wanted.private or None, exist_ok=True
            )
        head, there = state(repo, "space")
        change = compare(staged, there, is_ours)
        if wanted.rehearse:
            return Published(repo, head, url, change)
        sha = str(head)
        if change.none:
            say(f"{repo}: nothing has changed.")
        else:
            sha, url = push(repo, staged, change, head=sha, url=url, message="Deploy HemaZoo", kind="space")
        if wanted.zoo:
            client.add_space_variable(repo, VARIABLE, _places(wanted.zoo))
        if wanted.hardware:
            client.request_space_hardware(repo, wanted.hardware)
    return Published(repo, sha, url, change)


def _places(zoo: str) -> str:
    return zoo if zoo.startswith(hub.PREFIX) else hub.PREFIX + zoo


def stage(place: Path, repo: str, wanted: Space) -> Path:
    """The folder that is sent: the app's own files, its Dockerfile for the hardware, and the Space's card."""
    for part in PARTS:
        for path in [ROOT / part] if (ROOT / part).is_file() else sorted((ROOT / part).rglob("*")):
            name = path.relative_to(ROOT)
            if path.is_file() and not LEFT_OUT & set(name.parts) and path.suffix != ".partial":
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place / name)
    if wanted.hardware and wanted.hardware not in CPU:
        text = (place / "Dockerfile").read_text(encoding="utf-8")
        write_text(place / "Dockerfile", text.replace("ARG DEVICE=cpu", "ARG DEVICE=cuda"))
    write_text(place / "README.md", card(repo))
    return place


def card(repo: str) -> str:
    """The Space's card: what the Hub needs to know to run it, and what it is."""
    return f"""---
title: {repo.split("/")[1]}
emoji: 🩸
colorFrom: red
colorTo: pink
sdk: docker
app_port: 8501
license: apache-2.0
short_description: Classify blood cells, see why, compare models
tags:
- {hub.TAG}
- blood-cells
- hematology
---

# HemaZoo

Pick a model, classify pictures of blood cells, see why, and compare models by numbers that can be checked.

**Not a medical device**: for research, teaching and engineering only; do not diagnose with it. Pictures that you upload
are kept in the memory of your session alone, and are gone with it.
"""


def is_ours(name: str) -> bool:
    """Whether a file of the Space is one that deploying may delete."""
    return any(name == part or name.startswith(f"{part}/") for part in PARTS)
