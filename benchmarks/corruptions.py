"""Mean difference of our corruptions from those of medmnistc on drawn cells, in grey levels.

The package is not a requirement of the project: this script alone needs `pip install --no-deps medmnistc wand` and
ImageMagick's library (Debian: libmagickwand-6.q16-6). Deterministic kinds should agree almost exactly. Of kinds with
random positions only the strength can be compared: the distance of each from the clean picture.

    PYTHONPATH=. python benchmarks/corruptions.py
"""

from __future__ import annotations

import random

import numpy as np
from PIL import Image

from tests.making import LABELS, draw_cell
from zoo.benchmarks import corruptions

RANDOM = ("motion_blur", "stain_deposit", "bubble")


def main() -> None:
    """Print one row a kind and severity."""
    np.fromstring = np.frombuffer  # the package calls a function that NumPy 2 removed
    from medmnistc.corruptions.registry import CORRUPTIONS_DS  # noqa: PLC0415

    theirs = CORRUPTIONS_DS["bloodmnist"]
    pictures = [draw_cell(label, seed, (224, 224)) for label in LABELS for seed in range(6)]
    print(f"{'kind':18} {'severity':>8} {'difference':>10} {'ours - clean':>12} {'theirs - clean':>14}")
    for kind in corruptions.KINDS:
        for severity in corruptions.SEVERITIES:
            rows = [compare(theirs[kind], picture, n, kind, severity) for n, picture in enumerate(pictures)]
            gap, ours, away = np.mean(rows, axis=0)
            shown = "(random)" if kind in RANDOM else f"{gap:.3f}"
            print(f"{kind:18} {severity:8} {shown:>10} {ours:12.2f} {away:14.2f}")


def compare(kind: object, picture: Image.Image, number: int, name: str, severity: int) -> tuple[float, float, float]:
    """Mean absolute differences: ours from theirs, ours from clean, theirs from clean."""
    np.random.seed(number)  # noqa: NPY002 the package draws from it
    random.seed(number)
    theirs = np.asarray(kind.apply(picture.copy(), severity - 1), float)
    ours = np.asarray(corruptions.corrupt(picture, f"{number}.png", name, severity), float)
    clean = np.asarray(picture, float)
    return (
        float(np.abs(ours - theirs).mean()),
        float(np.abs(ours - clean).mean()),
        float(np.abs(theirs - clean).mean()),
    )


if __name__ == "__main__":
    main()
