"""Drawn cells and tiny entries: what the tests use instead of real pictures and trained models."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import save_file

import zoo.architectures  # noqa: F401
from zoo.audits.reports import Duplicates, Report, SourceCells, write_pictures
from zoo.entry import write_predictions
from zoo.files import write_json, write_text
from zoo.scores import metrics
from zoo.scores.predictions import confusion, label_arrays

LABELS = ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]
LOOKS = {  # nucleus lobes, nucleus colour, cytoplasm colour
    "eosinophil": (2, (96, 40, 130), (240, 150, 130)),
    "lymphocyte": (1, (70, 30, 120), (190, 200, 240)),
    "monocyte": (1, (120, 90, 160), (170, 170, 200)),
    "neutrophil": (4, (80, 40, 120), (235, 215, 225)),
}
# timm's smallest networks, one of each kind of feature map, and our own
ARCHITECTURES = {
    "cnn60": {"input_size": [3, 60, 60], "crop_mode": "squash"},
    "test_resnet": {"input_size": [3, 64, 64], "crop_mode": "center", "crop_pct": 0.9},
    "test_efficientnet": {"input_size": [3, 48, 64], "crop_mode": "squash"},
    "test_convnext": {"input_size": [3, 64, 64], "crop_mode": "border"},
    "test_vit": {"input_size": [3, 160, 160], "crop_mode": "squash"},
}


def draw_cell(label: str, seed: int = 0, size: tuple[int, int] = (96, 96)) -> Image.Image:
    """A drawn blood cell of a kind on a smear-coloured ground with red cells around it."""
    random = np.random.default_rng([seed, LABELS.index(label)])
    lobes, nucleus, cytoplasm = LOOKS[label]
    image = Image.new("RGB", size, (232, 222, 214))
    draw = ImageDraw.Draw(image)
    side = min(size)
    for _ in range(6):
        _disc(draw, random.uniform(0, size[0]), random.uniform(0, size[1]), side * 0.13, (222, 170, 165))
    x, y = size[0] / 2 + random.normal(0, side / 20), size[1] / 2 + random.normal(0, side / 20)
    _disc(draw, x, y, side * 0.3, cytoplasm)
    for angle in np.linspace(0, 2 * np.pi, lobes, endpoint=False) + random.uniform(0, 6):
        away = side * 0.12 if lobes > 1 else 0
        _disc(draw, x + away * np.cos(angle), y + away * np.sin(angle), side * (0.2 if lobes == 1 else 0.1), nucleus)
    noise = random.normal(0, 4, (size[1], size[0], 3))
    smooth = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)), float)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: tuple[int, int, int]) -> None:
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def draw_folder(folder: Path, each: int, names: dict[str, str] | None = None, size: tuple[int, int] = (96, 96)) -> Path:
    """Class folders with `each` drawn cells a class; `names` maps label to folder name."""
    for label in LABELS:
        place = folder / (names or {}).get(label, label)
        place.mkdir(parents=True, exist_ok=True)
        for seed in range(each):
            draw_cell(label, seed, size).save(place / f"{seed:03}.png")
    return folder


DATASET_TOML = """
title = "Drawn by a test"
laboratory = "{laboratory}"
place = "{name}"
licence = "none"
citation = "drawn by a test"
role = "training"
"""
BENCHMARK_TOML = """
version = 1
title = "Drawn by a test"
data = "{data}"
labels = ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]
"""


def register_dataset(registry: Path, name: str, laboratory: str = "", more: str = "") -> None:
    """Write a data set's TOML file into a folder that HEMAZOO_REGISTRY names."""
    (registry / "data").mkdir(parents=True, exist_ok=True)
    text = DATASET_TOML.format(laboratory=laboratory or name, name=name) + more
    (registry / "data" / f"{name}.toml").write_text(text, encoding="utf-8")


def register_benchmark(registry: Path, name: str, data: str, rows: str, more: str = "") -> None:
    """Write a benchmark's TOML file and its rows (CSV) into a folder that HEMAZOO_REGISTRY names."""
    (registry / "benchmarks").mkdir(parents=True, exist_ok=True)
    (registry / "benchmarks" / f"{name}.toml").write_text(BENCHMARK_TOML.format(data=data) + more, encoding="utf-8")
    (registry / "benchmarks" / f"{name}.csv").write_text(rows, encoding="utf-8")


def make_config(architecture: str, labels: list[str] = LABELS, **ours: Any) -> dict[str, Any]:
    """A valid config.json of a tiny entry."""
    given = {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0, "interpolation": "bilinear"}
    return {
        "architecture": architecture,
        "num_classes": len(labels),
        "label_names": labels,
        "model_args": {},
        "pretrained_cfg": given | ARCHITECTURES[architecture],
        "zoo": {"schema_version": 1, "title": f"Tiny {architecture}", "task": "test", **ours},
    }


def make_entry(folder: Path, architecture: str, seed: int = 0, labels: list[str] = LABELS, **ours: Any) -> Path:
    """An entry with random weights whose answers differ between pictures."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    model = timm.create_model(architecture, num_classes=len(labels))
    with torch.no_grad():
        head = model.get_classifier()
        head.weight.mul_(8 / head.weight.norm(dim=1, keepdim=True))
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    write_json(folder / "config.json", make_config(architecture, labels, **ours))
    write_text(folder / "README.md", f"---\nlicense: apache-2.0\n---\n# Tiny {architecture}\n\nMade by a test.\n")
    write_json(folder / "history.json", [{"epoch": n, "train_loss": 1 / n, "val_loss": 1.2 / n} for n in (1, 2, 3)])
    return folder


def make_predictions(seed: int, labels: list[str] = LABELS, images: int = 240, cells: int = 60) -> pd.DataFrame:
    """Predictions of a made-up model; truth and cells are the same for every seed."""
    truth = np.random.default_rng(99).integers(0, len(labels), cells)[np.arange(images) % cells]
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1, (images, len(labels))) + 2.0 * np.eye(len(labels))[truth]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    table = pd.DataFrame(shares.astype(np.float16).astype(np.float32), columns=labels)
    table.insert(0, "file", [f"{n:04}.png" for n in range(images)])
    table.insert(1, "cell", [f"cell-{n % cells}" for n in range(images)])
    table.insert(2, "label", [labels[n] for n in truth])
    return table


def add_evaluation(
    folder: Path,
    seed: int,
    name: str = "drawn-test",
    labels: list[str] = LABELS,
    table: pd.DataFrame | None = None,
) -> None:
    """Give an entry an evaluation and the predictions it follows from."""
    table = make_predictions(seed, labels) if table is None else table
    truth, shares = label_arrays(table, labels)
    write_predictions(folder, name, table, labels)
    record = {
        "title": "drawn cells",
        "labels": labels,
        "confusion": confusion(truth, shares.argmax(1), len(labels)).tolist(),
        "metrics": metrics.as_dict(metrics.evaluate(table, labels)),
        "n_images": len(table),
        "n_cells": int(table["cell"].nunique()),
        "split_hash": "drawn",
    }
    write_json(folder / "evaluation.json", {"schema_version": 1, "benchmarks": {name: record}})


def draw_smear(label: str, seed: int, size: tuple[int, int] = (160, 160)) -> Image.Image:
    """A drawn smear in which no two pictures have a part in common: lumpy red cells around one lumpy stained cell."""
    random = np.random.default_rng([seed, LABELS.index(label), 7])
    _, nucleus, cytoplasm = LOOKS[label]
    image = Image.new("RGB", size, (236, 226, 216))
    draw = ImageDraw.Draw(image)
    side = min(size)
    for _ in range(22):
        _lump(draw, random, random.uniform(0, 1, 2) * size, side * random.uniform(0.05, 0.1), (216, 164, 156))
    middle = np.array(size) / 2 + random.normal(0, side / 16, 2)
    _lump(draw, random, middle, side * 0.22, cytoplasm)
    for _ in range(4):
        _lump(draw, random, middle + random.normal(0, side * 0.04, 2), side * random.uniform(0.06, 0.11), nucleus)
    smooth = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)), float)
    return Image.fromarray((smooth + random.normal(0, 2, smooth.shape)).clip(0, 255).astype(np.uint8))


def _lump(
    draw: ImageDraw.ImageDraw,
    random: np.random.Generator,
    middle: np.ndarray,
    radius: float,
    colour: tuple[int, int, int],
) -> None:
    """A filled outline of random shape, with specks in it."""
    shade = np.array(colour) + random.normal(0, 10, 3)
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    away = radius * random.uniform(0.6, 1.35, 14)
    corners = np.column_stack([middle[0] + away * np.cos(angles), middle[1] + away * np.sin(angles)])
    draw.polygon([tuple(corner) for corner in corners], fill=tuple(int(v) for v in shade.clip(0, 255)))
    for _ in range(6):
        x, y = middle + random.normal(0, radius * 0.5, 2)
        speck = tuple(int(v) for v in (shade + random.normal(0, 35, 3)).clip(0, 255))
        _disc(draw, x, y, radius * random.uniform(0.08, 0.25), speck)


def draw_smears(folder: Path, each: int, size: tuple[int, int] = (160, 160)) -> Path:
    """Class folders with `each` drawn smears a class, no two alike."""
    for label in LABELS:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for seed in range(each):
            draw_smear(label, seed, size).save(folder / label / f"{seed:03}.png")
    return folder


def make_report(folder: Path, images: int, seed: int = 0) -> Path:
    """An audit report of `images` made-up pictures, as `training audit` writes it, thumbnails included."""
    random = np.random.default_rng(seed)
    buffers = [io.BytesIO() for _ in LABELS]
    for label, buffer in zip(LABELS, buffers, strict=True):
        draw_cell(label, seed, (72, 72)).save(buffer, "JPEG", quality=60)
    number = random.integers(0, len(LABELS), images)
    files = [f"TRAIN/{LABELS[n]}/{row:05}.png" for row, n in enumerate(number)]
    subject = np.arange(images) // 3
    table = pd.DataFrame(
        {
            "file": files,
            "label": [LABELS[n] for n in number],
            "split": random.choice(["train", "test"], images),
            "cell": [f"cell-{n}" for n in subject],
            "subject": subject,
            "flag": random.choice(["", "outlier", "label error"], images, p=[0.98, 0.01, 0.01]),
            "likelier": None,
            "score": random.uniform(0, 20, images).astype(np.float32),
            **{axis: (random.normal(0, 1, images) + number).astype(np.float32) for axis in "xyz"},
            "thumbnail": [buffers[n].getvalue() for n in number],
        }
    )
    counts = {label: int((number == n).sum()) for n, label in enumerate(LABELS)}
    write_json(folder / "report.json", _report_of(table, counts).model_dump(mode="json"))
    write_pictures(folder / "pictures.parquet", table)
    return folder


def _report_of(table: pd.DataFrame, counts: dict[str, int]) -> Report:
    files, images = table["file"].tolist(), len(table)
    near = [files[start : start + 3] for start in range(0, images, 3)]
    return Report(
        schema_version=1,
        name="drawn",
        layout="class folders",
        data_hash="0" * 64,
        images=images,
        classes=counts,
        splits={s: table[table["split"] == s]["label"].value_counts().to_dict() for s in ("train", "test")},
        unlabelled=[],
        unreadable=[],
        unreadable_reasons={},
        blank=[],
        wrong_size=[],
        wrong_mode=[],
        sizes={"72×72": images},
        formats={"PNG": images},
        problems={},
        duplicates=Duplicates(pixel=[], near=near, contradictory=near[:5], crossing=near[5:9]),
        source_cells=SourceCells(
            assigned=images, groups=len(near), conflicts=5, crossing=4, of=dict(zip(files, table["cell"], strict=True))
        ),
        originals=False,
        leak=dict.fromkeys(LABELS, 0.4),
        random_leak=dict.fromkeys(LABELS, 0.9),
        outliers=table[table["flag"] == "outlier"]["file"].tolist(),
        marked=[],
        label_errors=table[table["flag"] == "label error"]["file"].tolist(),
        likelier={},
        label_accuracy=0.97,
        shortcuts={"size": 0.25, "mean_colour": 0.6},
        alarms=["mean_colour"],
        embedder="drawn",
    )
