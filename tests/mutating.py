"""Seeded mutations of an entry's files: what a damaged disk, a careless edit or a stranger may have made of them."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

FILES = (
    "config.json", "evaluation.json", "history.json", "model.safetensors", "head.skops",
    "predictions/drawn-test.parquet", "neighbours.parquet", "gate.safetensors",
)  # fmt: skip
ODD: list[Any] = [
    None, True, -1, 0, 1, 7, 10**6, 2**31, 2**63, 10**400, -1e308, 0.5, float("nan"), float("inf"), "", "a", "x" * 5000,
    "../../etc/passwd", "\x00", "é\n", [], [[]], {}, [None] * 50, {"a": {"b": []}}, ["a", 1], "precomputed",
    "CachedNode",
]  # fmt: skip


def mutants(good: dict[str, Path], place: Path, count: int, seed: int) -> Iterator[tuple[str, Path]]:
    """Mutated copies of entries.

    Args:
        good: Entries by name.
        place: Folder that the copies are made in.
        count: How many.
        seed: Of the mutations.

    Yields:
        What was done, and the copy.
    """
    names = list(good)
    for number in range(count):
        random = np.random.default_rng([seed, number])
        source = good[names[number % len(names)]]
        folder = place / f"m{number:04}"
        shutil.copytree(source, folder)
        present = [name for name in FILES if (folder / name).exists()]
        name = present[(number // len(names)) % len(present)]
        path = folder / name
        done = _choose(random, name)(random, path)
        yield f"{number} {source.name} {name}: {done}", folder


def _choose(random: np.random.Generator, name: str) -> Callable[[np.random.Generator, Path], str]:
    deep = {".json": _mutate_json, ".skops": _mutate_zip, ".safetensors": _mutate_header}.get(Path(name).suffix)
    return deep if deep is not None and random.random() < 0.75 else _mutate_bytes


def _mutate_bytes(random: np.random.Generator, path: Path) -> str:
    data = bytearray(path.read_bytes())
    kind = random.choice(["flip", "cut", "insert", "zero", "repeat", "tail"])
    place = int(random.integers(0, max(len(data), 1)))
    length = int(random.integers(1, 64))
    if kind == "flip":
        for where in random.integers(0, max(len(data), 1), length):
            data[where] = int(random.integers(0, 256))
    elif kind == "cut":
        del data[place:]
    elif kind == "insert":
        data[place:place] = random.bytes(length)
    elif kind == "zero":
        data[place : place + length] = bytes(length)
    elif kind == "repeat":
        data[place:place] = data[place : place + 4096]
    else:
        del data[:length]
    path.write_bytes(data)
    return f"{kind} at {place}"


def _mutate_json(random: np.random.Generator, path: Path) -> str:
    value = json.loads(path.read_text(encoding="utf-8"))
    done = _mutate_values(random, value)
    path.write_text(json.dumps(value), encoding="utf-8")
    return done


def _mutate_zip(random: np.random.Generator, path: Path) -> str:
    """Mutate the schema of a .skops file, or one of its arrays."""
    with zipfile.ZipFile(path) as file:
        files = {item.filename: file.read(item) for item in file.infolist()}
    arrays = [name for name in files if name.endswith(".npy")]
    if random.random() < 0.5:
        schema = json.loads(files["schema.json"])
        done = _mutate_values(random, schema)
        files["schema.json"] = json.dumps(schema).encode()
    else:
        name = arrays[int(random.integers(len(arrays)))]
        files[name], done = _mutate_array(random, files[name])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return done


def _mutate_array(random: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    array = np.load(io.BytesIO(data)).copy()
    place = tuple(int(random.integers(0, side)) for side in array.shape if side)
    if not array.size:
        return data[:-1], "array cut"
    if array.dtype.names:
        column = array.dtype.names[int(random.integers(len(array.dtype.names)))]
        array[column][place] = random.choice([-1, -2, 0, 1, 100]).astype(array.dtype[column])
        done = f"array {column} at {place}"
    elif random.random() < 0.4 and array.ndim:
        array, done = array[: max(0, len(array) - 1)], "array shorter"
    elif array.dtype.kind == "f":
        array[place] = random.choice([np.nan, np.inf, -1e30, 0.0])
        done = f"array value at {place}"
    else:
        array[place] = random.choice([-1, 0, 9, 10**5]).astype(array.dtype)
        done = f"array number at {place}"
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue(), done


def _mutate_header(random: np.random.Generator, path: Path) -> str:
    """Mutate the header of a safetensors file."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    done = _mutate_values(random, header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return done


def _mutate_values(random: np.random.Generator, value: Any) -> str:
    """Change one or two values of parsed JSON in place: replaced, removed, copied from elsewhere, or renamed."""
    done = []
    for _ in range(int(random.integers(1, 3))):
        places = list(_places(value))
        if not places:
            break
        parent, key = places[int(random.integers(len(places)))]
        kind = random.choice(["replace", "remove", "copy", "rename"])
        if kind == "remove":
            del parent[key]
        elif kind == "copy":
            other, name = places[int(random.integers(len(places)))]
            parent[key] = json.loads(json.dumps(other[name]))
        elif kind == "rename" and isinstance(parent, dict):
            parent[f"{key}x"] = parent.pop(key)
        else:
            parent[key] = ODD[int(random.integers(len(ODD)))]
        done.append(f"{kind} {str(key)[:40]}")
    return ", ".join(done)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in parsed JSON, as its container and key."""
    for key, part in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
        yield value, key
        if isinstance(part, dict | list):
            yield from _places(part)
