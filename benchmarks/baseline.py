"""Answers, maps and listings of every built-in model, to compare two versions of the program.

    python benchmarks/baseline.py make --data ROOT      writes benchmarks/baseline.parquet and baseline.json
    python benchmarks/baseline.py compare --data ROOT   prints the largest differences; exit status 1 above tolerance

200 pictures of PBC and BCCD, chosen by name, in float32 on the CPU. Maps are stored as 12 × 12 block means.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

import zoo
from zoo.cli import main as command
from zoo.entry import usable_entries

PICTURES = 200
SLOW_PICTURES = 10  # for methods that need hundreds of forward passes a picture
GRID = 12  # cells a side of a stored map
PROBABILITY_TOLERANCE = 1e-4
MAP_TOLERANCE = 5e-3
TABLE = Path(__file__).with_name("baseline.parquet")
LISTING = Path(__file__).with_name("baseline.json")
FAST = {"grad-cam"}


def main() -> int:
    """Make the baseline, or compare with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("make", "compare"))
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="folder that holds pbc and bccd")
    options = parser.parse_args()
    table, listing = answers(options.data), listings()
    if options.action == "make":
        table.to_parquet(TABLE, index=False, compression="zstd")
        LISTING.write_text(json.dumps(listing, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    return compare(table, listing)


def chosen_pictures(root: Path) -> list[Path]:
    """160 pictures of PBC, evenly over its sorted names, and 40 frames of BCCD."""
    crops = sorted((root / "pbc").glob("*/*.jpg"))
    frames = sorted((root / "bccd" / "JPEGImages").glob("*.jpg"))
    return crops[:: len(crops) // 160][:160] + frames[:: len(frames) // 40][:40]


def answers(root: Path) -> pd.DataFrame:
    """One row for each model and picture: probabilities by label and the map's block means."""
    pictures = chosen_pictures(root)
    assert len(pictures) == PICTURES
    rows = []
    with zoo.Runtime("cpu", "fp32", batch_size=1) as runtime:
        for entry in usable_entries(zoo.list_entries()):
            mapped = PICTURES
            for number, path in enumerate(tqdm(pictures, desc=entry.id, file=sys.stderr)):
                image = zoo.decode(path)
                prediction = runtime.classify(entry, image)
                blocks, method = np.zeros(0, np.float16), ""
                if number < mapped or number >= PICTURES - SLOW_PICTURES:
                    found = runtime.explain(entry, image)
                    method = found.method
                    blocks = block_means(found.values).astype(np.float16)
                    if method not in FAST:
                        mapped = SLOW_PICTURES
                rows.append(
                    {
                        "model": entry.id,
                        "file": path.relative_to(root).as_posix(),
                        "labels": list(prediction.probabilities),
                        "probabilities": np.array(list(prediction.probabilities.values()), np.float32),
                        "distance": prediction.distance,
                        "method": method,
                        "map": blocks,
                    }
                )
    return pd.DataFrame(rows)


def block_means(values: np.ndarray) -> np.ndarray:
    """Means of a map (H, W) over a grid of GRID × GRID blocks, flattened."""
    return np.array(
        [part.mean() for band in np.array_split(values, GRID) for part in np.array_split(band, GRID, axis=1)]
    )


def listings() -> list[dict[str, object]]:
    """The output of `python -m zoo list --json`."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        command(["list", "--json"])
    return json.loads(out.getvalue())


def compare(table: pd.DataFrame, listing: list[dict[str, object]]) -> int:
    """Print the largest differences from the stored baseline; 1 if one is above its tolerance."""
    before = pd.read_parquet(TABLE)
    joined = before.merge(table, on=["model", "file"], how="outer", suffixes=("", "_now"), indicator=True)
    lost = int((joined["_merge"] != "both").sum())
    joined = joined[joined["_merge"] == "both"]
    names = sum(list(a) != list(b) for a, b in zip(joined["labels"], joined["labels_now"], strict=True))
    shares = largest(joined["probabilities"], joined["probabilities_now"])
    maps = largest(joined["map"], joined["map_now"])
    distances = float((joined["distance"] - joined["distance_now"]).abs().max())
    known = {str(entry["id"]): entry for entry in json.loads(LISTING.read_text(encoding="utf-8"))}
    now = {str(entry["id"]): entry for entry in listing}
    changed = [name for name in known if any(now.get(name, {}).get(k) != v for k, v in known[name].items())]
    print(f"{joined['model'].nunique()} models, {len(joined)} answers, {lost} lost or new, {names} with other labels")
    print(f"largest difference: probabilities {shares:.2e}, distances {distances:.2e}, maps {maps:.2e}")
    print(f"listings that differ: {', '.join(changed) or 'none'}")
    return int(bool(lost or names or changed) or shares > PROBABILITY_TOLERANCE or maps > MAP_TOLERANCE)


def largest(before: pd.Series, now: pd.Series) -> float:
    """Largest absolute difference between two columns of arrays."""
    pairs = zip(before, now, strict=True)
    return max((float(np.abs(np.float32(a) - np.float32(b)).max()) for a, b in pairs if len(a)), default=0.0)


if __name__ == "__main__":
    sys.exit(main())
