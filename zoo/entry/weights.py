"""Weight files: size and number of parameters, checked by the safetensors header alone."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.entry.files import EntryError
from zoo.limits import PARAMETERS

MAX_HEADER_BYTES = 10_000_000
BYTES_PER_ELEMENT = {
    "F16": 2,
    "BF16": 2,
    "F32": 4,
    "F64": 8,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
BATCH_NORM_STATE = ("running_mean", "running_var", "num_batches_tracked")  # not counted as parameters


@dataclass(frozen=True)
class Weights:
    """Number of parameters (without batch-norm state) and size of the weight files in bytes.

    `parameters` is None for weights that were not downloaded yet where the Hub does not state the number.
    """

    parameters: int | None
    bytes: int


def read_header(path: Path) -> Weights:
    """Check a safetensors file by its header alone (https://github.com/huggingface/safetensors#format).

    Raises:
        EntryError: The file is not a safetensors file, is cut short, or claims other sizes than it has.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise EntryError(f"{path.name} is not a safetensors file, or it is cut short.")
            header = json.loads(file.read(length))
    except OSError as error:
        raise EntryError(f"{path.name} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, EntryError):
            raise
        raise EntryError(f"{path.name} is not a safetensors file: its header is damaged.") from error
    return Weights(_count_parameters(path.name, header, size - 8 - length), size)


def with_head(weights: Weights, head: Path) -> Weights:
    """Weights with the size of a classical head's file added. Raises EntryError if that file is missing."""
    try:
        return Weights(weights.parameters, weights.bytes + head.stat().st_size)
    except OSError as error:
        raise EntryError(f"{head.name} cannot be read: {error.strerror}.") from error


def _count_parameters(name: str, header: Any, data_bytes: int) -> int:
    """Number of parameters in a parsed safetensors header. Raises EntryError where its sizes do not add up."""
    if not isinstance(header, dict):
        raise EntryError(f"{name} is not a safetensors file: its header is damaged.")
    total, end = 0, 0
    for key, tensor in header.items():
        if key == "__metadata__":
            continue
        shape, kind, offsets = _tensor(name, key, tensor)
        elements = math.prod(shape)
        if elements > PARAMETERS.value or offsets[1] - offsets[0] != elements * BYTES_PER_ELEMENT[kind]:
            raise EntryError(f"{name}: tensor {key!r} claims a size it does not have.")
        end = max(end, offsets[1])
        if not key.endswith(BATCH_NORM_STATE):
            total += elements
    if end != data_bytes:
        raise EntryError(f"{name} is cut short or too long: {data_bytes:,} bytes of weights, {end:,} announced.")
    if total > PARAMETERS.value:
        raise EntryError(f"{name} has {total:,} parameters; at most {PARAMETERS.value:,} are loaded.")
    return total


def _tensor(name: str, key: str, tensor: Any) -> tuple[list[int], str, list[int]]:
    """Shape, element type and byte offsets of one tensor in the header."""
    try:
        shape, kind, offsets = tensor["shape"], tensor["dtype"], tensor["data_offsets"]
        numbers = [*shape, *offsets]
        if kind not in BYTES_PER_ELEMENT or len(offsets) != 2 or not all(type(n) is int and n >= 0 for n in numbers):
            raise TypeError
    except (KeyError, TypeError) as error:
        raise EntryError(f"{name}: tensor {key[:80]!r} is not described as safetensors requires.") from error
    return shape, kind, offsets
