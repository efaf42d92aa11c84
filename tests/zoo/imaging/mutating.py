"""Damaged files of all encodings, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.zoo.imaging.encodings import LOSSLESS, LOSSY_OR_DEEP

HEAD_BYTES = 300  # where most mutations go: headers matter most


def mutants(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Damaged files of all encodings in turn."""
    random = np.random.default_rng(seed)
    originals = {name: make() for name, make in (LOSSLESS | LOSSY_OR_DEEP).items()}
    names = list(originals)
    for number in range(count):
        name = names[number % len(names)]
        other = originals[names[int(random.integers(len(names)))]]
        yield f"{number} {name}", mutate(originals[name], other, random)


def mutate(raw: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """Change, cut, repeat or mix."""
    data = bytearray(raw)
    for _ in range(int(random.integers(1, 5))):
        reach = len(data) if random.random() < 0.4 else min(len(data), HEAD_BYTES)
        place = int(random.integers(0, max(1, reach)))
        kind = random.integers(7)
        if kind == 0:
            data[place : place + 1] = bytes([int(random.integers(256))])
        elif kind == 1:
            data[place : place + 4] = [b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\1\0"][random.integers(4)]
        elif kind == 2:
            del data[place : place + int(random.integers(1, 40))]
        elif kind == 3:
            data[place:place] = data[place : place + int(random.integers(1, 200))]
        elif kind == 4:
            data[place:place] = other[place : place + int(random.integers(1, 400))]
        elif kind == 5 and random.random() < 0.3:
            del data[int(random.integers(20, len(data) + 21)) :]
        else:
            data[place : place + 2] = int(random.integers(65536)).to_bytes(2, "little")
    return bytes(data)


def write_mutants(folder: Path, count: int, seed: int) -> None:
    """Write damaged files."""
    for name, raw in mutants(count, seed):
        (folder / name.replace(" ", "-").replace("/", "-")).write_bytes(raw)
