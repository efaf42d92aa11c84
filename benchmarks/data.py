"""Speed of reading a data set, reading it again from the cache, and finding cells.

    python benchmarks/data.py --data DATA [--frames FOLDER]

Prints seconds, rates and ratios of one run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo.data import pack, read_dataset
from zoo.imaging.localise import find_cell
from zoo.serving.batch import find_files

SIZE = (160, 160)
LONGER_SIDE = 320  # of pictures that cells are found in, pixels


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="data set to read")
    parser.add_argument("--frames", type=Path, help="folder of pictures to find cells in (default: those of --data)")
    parser.add_argument("--images", type=int, default=600, help="pictures to find cells in (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        data = read_dataset(options.data)
        cold = pack(data, SIZE, Path(cache))
        first = time.perf_counter() - start
        start = time.perf_counter()
        data = read_dataset(options.data)
        packed = pack(data, SIZE, Path(cache))
        again = time.perf_counter() - start
        rows = np.random.default_rng(0).permutation(len(data))[:2000]
        start = time.perf_counter()
        _ = [np.array(packed.pictures[row]) for row in rows]
        mapped = time.perf_counter() - start
        start = time.perf_counter()
        for row in rows:
            np.asarray(data.items[row].source.image().resize(SIZE[::-1], Image.Resampling.BICUBIC))
        decoded = time.perf_counter() - start
    print(f"{len(cold.pictures):,} pictures read, hashed and packed at {SIZE}: {first:.1f} s; again: {again:.1f} s")
    print(f"an epoch's reading from the packed cache is {decoded / mapped:.0f} times as fast as decoding")
    files = find_files([options.frames or options.data])
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))[: options.images]]
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        list(pool.map(resized, files[: 2 * workers]))  # starts the processes
        parts = np.array_split(np.array(files, object), workers)
        seconds = max(pool.map(timed, [part.tolist() for part in parts]))
    print(f"cells found in {len(files) / seconds:.0f} pictures of {LONGER_SIDE} pixels a second on {workers} cores")


def resized(path: Path) -> Image.Image:
    """The picture, its longer side LONGER_SIDE pixels."""
    image = Image.open(path).convert("RGB")
    scale = LONGER_SIDE / max(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)))


def timed(paths: list[Path]) -> float:
    """Seconds to find the cells of decoded pictures."""
    images = [resized(path) for path in paths]
    start = time.perf_counter()
    for image in images:
        find_cell(image)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
