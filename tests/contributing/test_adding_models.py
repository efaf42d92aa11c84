"""An attribution method is one registered function, an architecture is one file."""

from __future__ import annotations

import json

METHOD = '''

@register_method("mean-cam", "MeanCAM", "the mean over all channels", gradient=False, by_class=False)
def mean_cam(features: FeatureMap) -> torch.Tensor:
    """Average the channels."""
    return features.features.mean(1).relu()
'''

# explains a drawn cell with the new method, as the command line and the pages do
EXPLAIN = """
import json
import sys
from pathlib import Path

import numpy as np

from tests.making import draw_cell, make_entry
from zoo.attribution import METHODS
from zoo.cli import main
from zoo.entry import read_entry
from zoo.imaging.decode import decode
from zoo.serving.runtime import Runtime, methods_for

folder = Path(sys.argv[1])
picture = folder / "cell.png"
draw_cell("monocyte", 1).save(picture)
entry = read_entry(make_entry(folder / "net", "test_resnet"))
with Runtime("cpu", "fp32") as runtime:
    found = runtime.explain(entry, decode(picture), method="mean-cam")
    features = runtime.model(entry).capture(found.seen.pixels, None)
status = main(["explain", str(picture), "--model", "net", "--method", "mean-cam", "--out", str(folder / "out")])
print(json.dumps({
    "listed": "mean-cam" in METHODS and "mean-cam" in methods_for(entry),
    "right": bool(np.allclose(found.cam, features.features[0].mean(0).relu(), atol=1e-5)),
    "status": status,
    "written": sorted(path.suffix for path in (folder / "out").iterdir()),
}))
"""

ARCHITECTURE = '''"""`tiny_net`: two convolutions, for tests."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from zoo.architectures._layers import PlainNetwork, default_cfg, dense


class TinyNet(PlainNetwork):
    """Two convolutions and a dense layer."""

    def __init__(self, num_classes: int = 4, in_chans: int = 3, global_pool: str = "", **kwargs: Any) -> None:
        blocks = [nn.Conv2d(in_chans, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Conv2d(8, 8, 3, padding=1)]
        super().__init__(nn.Sequential(*blocks), dense(8 * 8 * 8, (16,)), 8, 16, num_classes, 4)


default_cfgs = generate_default_cfgs({"tiny_net": default_cfg(32, "features.0")})


@register_model
def tiny_net(pretrained: bool = False, **kwargs: Any) -> TinyNet:
    """Build the network."""
    return build_model_with_cfg(TinyNet, "tiny_net", pretrained, **kwargs)
'''

# builds the network, and serves an entry of it; a recipe names it by a change of its architecture
BUILD = """
import json
import sys
from pathlib import Path

import timm
import torch

from tests.making import ARCHITECTURES, draw_cell, make_entry
from training.recipe import load_recipe
from zoo.architectures import is_own
from zoo.entry import read_entry
from zoo.serving.runtime import Runtime

ARCHITECTURES["tiny_net"] = {"input_size": [3, 32, 32], "crop_mode": "squash"}
recipe = load_recipe("cnn60", ["model.architecture=tiny_net"])
entry = read_entry(make_entry(Path(sys.argv[1]) / "net", "tiny_net"))
with Runtime("cpu", "fp32") as runtime:
    answer = runtime.explain(entry, draw_cell("monocyte", 1))
print(json.dumps({
    "shape": list(timm.create_model("tiny_net", num_classes=5)(torch.zeros(2, 3, 32, 32)).shape),
    "own": is_own("tiny_net"),
    "recipe": recipe.network.architecture,
    "total": sum(answer.prediction.probabilities.values()),
    "map": list(answer.values.shape),
}))
"""


def test_an_attribution_method_is_one_function(project_copy, tmp_path, monkeypatch):
    monkeypatch.setenv("HEMAZOO_ZOO", str(tmp_path / "net"))
    project_copy.append("zoo/attribution/cams.py", METHOD)
    assert "mean-cam (the mean over all channels)" in " ".join(
        project_copy.python("-m", "zoo", "explain", "--help").split()
    )
    found = json.loads(project_copy.python("-c", EXPLAIN, str(tmp_path)).splitlines()[-1])
    assert found == {"listed": True, "right": True, "status": 0, "written": [".npy", ".png"]}


def test_an_architecture_is_one_file(project_copy, tmp_path):
    project_copy.write("zoo/architectures/tiny_net.py", ARCHITECTURE)
    found = json.loads(project_copy.python("-c", BUILD, str(tmp_path)).splitlines()[-1])
    assert found["shape"] == [2, 5]
    assert found["own"]
    assert found["recipe"] == "tiny_net"
    assert abs(found["total"] - 1) < 1e-6
    assert found["map"] == [96, 96]
