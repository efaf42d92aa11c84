"""Deploy the app as a Space of the Hugging Face Hub, in one commit."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from training.publish.repository import Log, Publication, check_name, publish_folder
from zoo.entry import EntryError
from zoo.files import write_text
from zoo.sources import HUB_PREFIX, hub
from zoo.sources.catalogue import VARIABLE

ROOT = Path(__file__).parents[2]
PARTS = (
    "app.py",
    "pages",
    "zoo",
    ".streamlit/config.toml",
    "requirements.txt",
    "requirements.lock",
    "Dockerfile",
    ".dockerignore",
    "LICENSE",
)
CARD = "README.md"  # of the Space
EXCLUDED = {"__pycache__", ".DS_Store"}
PARTIAL_SUFFIX = ".partial"  # of files that are being written
CPU_HARDWARE = ("cpu-basic", "cpu-upgrade")


@dataclass(frozen=True)
class SpaceOptions:
    """Options for deploying the app.

    Attributes:
        hardware: Hardware by the Hub's name; None leaves it as it is.
        zoo: Place on the Hub whose models the app lists beside the built-in ones.
        private: Whether a new Space is private.
        dry_run: Whether to change nothing, and only return what would change.
    """

    hardware: str | None = None
    zoo: str | None = None
    private: bool = False
    dry_run: bool = False


def deploy(repo: str, options: SpaceOptions, log: Log) -> Publication:
    """Put the app into the Space `repo`; files that are there already are not sent again.

    Needs a checkout: the installed package lacks `app.py` and the pages.

    Raises:
        EntryError: This is not a checkout, the Hub refuses, or somebody else deployed meanwhile. Nothing was changed.
    """
    check_name(repo)
    if not (ROOT / "app.py").is_file():
        raise EntryError("deploy-space needs a checkout of HemaZoo: the installed package does not contain the app.")
    with hub.hub_errors(repo), tempfile.TemporaryDirectory() as temporary:
        staged = stage(Path(temporary) / "app", repo, options)
        publication = publish_folder(
            staged, repo, "space", "Deploy HemaZoo", is_ours, log, options.private, options.dry_run
        )
        if options.dry_run:
            return publication
        if options.zoo:
            place = options.zoo if options.zoo.startswith(HUB_PREFIX) else HUB_PREFIX + options.zoo
            hub.api().add_space_variable(repo, VARIABLE, place)
        if options.hardware:
            hub.api().request_space_hardware(repo, options.hardware)  # type: ignore[arg-type]  # new names are allowed
    return publication


def stage(folder: Path, repo: str, options: SpaceOptions) -> Path:
    """Write the folder to send: the app's files, a Dockerfile for the hardware, and the Space's card; returns it."""
    for part in PARTS:
        for path in [ROOT / part] if (ROOT / part).is_file() else sorted((ROOT / part).rglob("*")):
            name = path.relative_to(ROOT)
            if path.is_file() and not EXCLUDED & set(name.parts) and path.suffix != PARTIAL_SUFFIX:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / name)
    if options.hardware and options.hardware not in CPU_HARDWARE:
        text = (folder / "Dockerfile").read_text(encoding="utf-8")
        write_text(folder / "Dockerfile", text.replace("ARG DEVICE=cpu", "ARG DEVICE=cuda"))
    write_text(folder / CARD, render_card(repo))
    return folder


def render_card(repo: str) -> str:
    """The Space's card: metadata that the Hub needs to run it, and a description."""
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

Pick a model, classify pictures of blood cells, see why, and compare models by figures that can be checked.

**Not a medical device**: for research, teaching and engineering only; do not diagnose with it. Uploaded pictures are
kept in the memory of your session only and are deleted with it.
"""


def is_ours(name: str) -> bool:
    """Whether a file of the Space is one that deploying may delete."""
    return any(name == part or name.startswith(f"{part}/") for part in PARTS)
