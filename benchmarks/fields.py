"""Speed of finding and naming the cells of fields, by torch and by OpenVINO; memory of a process.

    python benchmarks/fields.py --data ROOT [--json] [--model ID] [--fields N] [--rounds N] [--backend B …]

Both libraries run in turn in every round, in this process after a round that warms up; printed are medians for each
library, and the ratio between them. Fields are BCCD's, 640×480.
- `detector_s`: seconds to find the cells of a field;
- `named_s`: seconds to find them and to name the white ones by the classifier, one field after the other (goal: at
  most 0.5);
- `per_second`: fields a second of `zoo classify` (goal: at least 3), with the encoding of the JPEG files that it reads;
- `large_s`: seconds for 12 megapixels: a mosaic of fields, whose cells are small, so that all of it is searched in
  tiles (goal: at most 10); `magnified_s`: the same for one field, enlarged;
- `memory_mb`: highest memory of a new process that names the cells of one field; `memory_large_mb`: of the mosaic;
  `memory_49_mb`: of 49 megapixels.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.processes import peak_memory
from zoo.detection.detector import Detector
from zoo.imaging.decode import Picture, decode
from zoo.serving.batch import classify_files
from zoo.serving.fields import name_cells
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import DETECTOR, MODEL, get_detector, get_entry
from zoo.threads import set_up_threads

ROOT = Path(__file__).parents[1]
LARGE, LARGEST = (4000, 3000), (8000, 6125)  # pixels
BACKENDS = ("torch", "openvino")
Pictures = Sequence[Image.Image]
Way = Callable[[Pictures], None]
COUNTER = itertools.count()


def mosaic(fields: Sequence[Image.Image], size: tuple[int, int]) -> Image.Image:
    """A picture of `size` that fields side by side fill."""
    made = Image.new("RGB", size)
    width, height = fields[0].size
    places = [(x, y) for y in range(0, size[1], height) for x in range(0, size[0], width)]
    for number, place in enumerate(places):
        made.paste(fields[number % len(fields)], place)
    return made


def fresh(image: Image.Image) -> Image.Image:
    """The picture with one pixel changed: results of pictures that were searched before are kept."""
    made, place = image.copy(), (next(COUNTER) % image.width, 0)
    made.putpixel(place, (next(COUNTER) % 256, 128, next(COUNTER) % 256))
    return made


def ways(backend: str, model: str, files: Sequence[Path], runtime: Runtime) -> dict[str, tuple[Way, Pictures]]:
    """Calls that are timed of one library, and what each turn hands to them, new in every turn."""
    detector, entry = Detector(get_detector(DETECTOR), backend), get_entry(model)
    fields = [decode(path) for path in files]
    large, magnified = mosaic(fields, LARGE), fields[0].resize(LARGE)

    def find(images: Pictures) -> None:
        for image in images:
            detector.find(image)

    def name(images: Pictures) -> None:
        for image in images:
            name_cells(runtime, entry, detector, Picture(image))

    def classify(images: Pictures) -> None:
        list(classify_files(runtime, entry, as_files(images), detector=detector))

    return {
        "detector_s": (find, fields[:4]),
        "named_s": (name, fields[:4]),
        "per_second": (classify, fields),
        "large_s": (find, [large]),
        "magnified_s": (find, [magnified]),
    }


def as_files(images: Sequence[Image.Image]) -> list[tuple[str, bytes]]:
    """Pictures as a camera would store them, with names."""
    files = []
    for number, image in enumerate(images):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95)
        files.append((f"{number}.jpg", buffer.getvalue()))
    return files


def memory(backend: str, model: str, picture: Path) -> float:
    """Highest memory in MB of a new process that finds and names the cells of a picture."""
    return peak_memory(["cells", str(picture), "--model", model, "--backend", backend, "--device", "cpu", "--json"])[1]


def measure(
    backends: Sequence[str], model: str, files: Sequence[Path], rounds: int, folder: Path
) -> dict[str, dict[str, float]]:
    """Figures of each library; speeds are medians over rounds, in each of which every library has its turn."""
    taken: dict[str, dict[str, list[float]]] = {backend: {} for backend in backends}
    with Runtime("cpu") as runtime:
        timed = {backend: ways(backend, model, files, runtime) for backend in backends}
        for turn in range(1 + rounds):
            for name in timed[backends[0]]:
                for backend in backends:
                    way, images = timed[backend][name]
                    given = [fresh(image) for image in images]
                    start = time.perf_counter()
                    way(given)
                    if turn:  # the first one warms up
                        taken[backend].setdefault(name, []).append((time.perf_counter() - start) / len(given))
    figures = {
        backend: {
            name: 1 / statistics.median(values) if name == "per_second" else statistics.median(values)
            for name, values in each.items()
        }
        for backend, each in taken.items()
    }
    fields = [decode(path) for path in files]
    pictures = {
        "memory_mb": fields[0],
        "memory_large_mb": mosaic(fields, LARGE),
        "memory_49_mb": mosaic(fields, LARGEST),
    }
    for name, image in pictures.items():
        image.save(folder / f"{name}.png", compress_level=1)
        for backend in backends:
            figures[backend][name] = memory(backend, model, folder / f"{name}.png")
    return figures


def main() -> None:
    """Measure and print."""
    set_up_threads()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="folder that holds bccd")
    parser.add_argument("--model", default=MODEL, metavar="ID", help="the classifier (default: %(default)s)")
    parser.add_argument("--fields", type=int, default=40, metavar="N", help="of the bulk run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--backend", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    frames = sorted((options.data / "bccd" / "JPEGImages").glob("*.jpg"))
    files = frames[:: max(1, len(frames) // options.fields)][: options.fields]
    with TemporaryDirectory() as folder:
        figures = measure(options.backend, options.model, files, options.rounds, Path(folder))
    if options.json:
        print(json.dumps(figures))
        return
    first = figures[options.backend[0]]
    print(f"{'':16}" + "".join(f"{backend:>12}" for backend in options.backend) + f"{'ratio':>8}")
    for name in first:
        values = [figures[backend][name] for backend in options.backend]
        ratio = f"{values[0] / values[-1]:8.2f}"
        print(f"{name:16}" + "".join(f"{value:12.3f}" for value in values) + ratio)


if __name__ == "__main__":
    main()
