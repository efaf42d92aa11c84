"""A .skops file read as plain data, with sizes, types and references checked, before skops builds anything of it.

A .skops file is a zip: `schema.json` is a graph of nodes, and each array is a `.npy` file. A node says which class it
is of and how it is loaded; a node whose `__id__` was met before stands for the first one of that id. skops follows all
of this as it stands, so a file can claim any size, point back at itself, or show one content and mean another.
"""

from __future__ import annotations

import ast
import json
import math
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from zoo import limits
from zoo.entry import EntryError

SCHEMA = "schema.json"
PROTOCOL = 2  # of skops; the later ones are unknown here
MAX_MEMBERS = 20_000  # files in the zip; a forest of 1,000 trees has 5,000
MAX_SCHEMA_BYTES = 50_000_000
MAX_JSON_VALUES = 5_000_000
MAX_NODES = 1_000_000
MAX_DEPTH = 64  # of nodes in nodes; a calibrated SVM has 11
MAX_RATIO, RATIO_FROM_BYTES = 200, 1_000_000  # unpacked bytes of one packed byte, in files that are larger than this
MAX_DIMENSIONS = 3
MAX_TEXT = 1000  # letters of a text or number
MAX_ID = 2**64

ESTIMATORS = {  # those that training writes (training/fit/networks/classical.py)
    "sklearn.pipeline.Pipeline",
    "sklearn.decomposition._pca.PCA",
    "sklearn.preprocessing._data.StandardScaler",
    "sklearn.neighbors._classification.KNeighborsClassifier",
    "sklearn.svm._classes.SVC",
    "sklearn.calibration.CalibratedClassifierCV",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._forest.RandomForestClassifier",
    "sklearn.tree._classes.DecisionTreeClassifier",
}
TREE = "sklearn.tree._tree.Tree"
NUMBERS = {f"numpy.{name}" for name in ("bool", "int32", "int64", "float32", "float64")}
KEY_TYPES = {"builtins.str": str, "builtins.int": int, "builtins.float": float}
# how numpy writes the head of a .npy file: numbers, or the nodes of a decision tree
NPY = re.compile(
    rb"\{'descr': (?P<type>'[<|][biuf][1248]'|\[(?:\('[a-z_]{0,40}', '[<|][iufV][0-9]'\)(?:, )?){1,16}\]), "
    rb"'fortran_order': (?P<fortran>True|False), 'shape': \((?P<shape>[0-9, ]{0,60})\), \} *\n"
)
NPY_MAGIC, NPY_VERSION = b"\x93NUMPY", b"\x01\x00"


@dataclass(frozen=True)
class Part:
    """One object of a head that is not built yet.

    Attributes:
        kind: Name of its class with its module.
        fields: Its attributes: numbers, texts, arrays, lists, tuples, mappings and further parts.
        arguments: What a tree is made with, before its attributes are set.
    """

    kind: str
    fields: Mapping[str, Any]
    arguments: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """Name of its class."""
        return self.kind.rsplit(".", 1)[1]


@dataclass
class _Reader:
    """State of reading a file: nodes and their values by id, and the bytes of its arrays."""

    file: zipfile.ZipFile
    nodes: dict[int, Any] = field(default_factory=dict)
    values: dict[int, Any] = field(default_factory=dict)
    count: int = 0
    array_bytes: int = 0


def read_graph(file: zipfile.ZipFile) -> Any:
    """Read the graph of a .skops file as plain data.

    Args:
        file: The opened zip.

    Returns:
        A `Part` in most cases; any plain value that the file holds otherwise.

    Raises:
        EntryError: It is too large, holds other types than heads have, or contradicts itself.
    """
    _check_members(file)
    text = file.read(SCHEMA)
    # each value begins after one of these letters, so their number bounds what parsing makes
    if sum(text.count(letter) for letter in (b"[", b"{", b",", b":")) > MAX_JSON_VALUES:
        raise EntryError(f"{SCHEMA} holds more than {MAX_JSON_VALUES:,} values.")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EntryError(f"{SCHEMA} is not valid JSON; it is damaged.") from error
    if not isinstance(schema, dict) or schema.get("protocol") != PROTOCOL:
        raise EntryError(f"{SCHEMA} is of another protocol of skops than {PROTOCOL}.")
    return _read(_Reader(file), schema, MAX_DEPTH)


def _check_members(file: zipfile.ZipFile) -> None:
    """Refuse a zip of too many, too large, equally named or too well packed files. Raises EntryError."""
    members = file.infolist()
    if len(members) > MAX_MEMBERS:
        raise EntryError(f"it holds {len(members):,} files; at most {MAX_MEMBERS:,} are read.")
    if len({item.filename for item in members}) != len(members):
        raise EntryError("it holds two files of one name; it is damaged.")
    if any(item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for item in members):
        raise EntryError("it is packed by another method than deflate.")
    # zipfile never unpacks more of a member than this
    size, packed = sum(item.file_size for item in members), sum(item.compress_size for item in members)
    if size > limits.HEAD_MB.bytes:
        raise EntryError(f"it unpacks to {size:,} bytes; at most {limits.HEAD_MB.bytes:,} are loaded.")
    schema = next((item for item in members if item.filename == SCHEMA), None)
    if schema is None:
        raise EntryError(f"it holds no {SCHEMA}; it is damaged.")
    if schema.file_size > MAX_SCHEMA_BYTES:
        raise EntryError(f"{SCHEMA} has {schema.file_size:,} bytes; at most {MAX_SCHEMA_BYTES:,} are read.")
    if size > RATIO_FROM_BYTES and size > MAX_RATIO * max(packed, 1):
        raise EntryError(f"it unpacks to {size:,} bytes from {packed:,}, more than {MAX_RATIO} for one.")


def _read(reader: _Reader, node: Any, depth: int) -> Any:
    """Value of a node. Raises EntryError."""
    reader.count += 1
    if not depth or reader.count > MAX_NODES:
        raise EntryError(f"it holds more than {MAX_NODES:,} nodes, or nodes in nodes more than {MAX_DEPTH} deep.")
    if not isinstance(node, dict):
        raise EntryError("it holds a node that is no mapping; it is damaged.")
    loader, number = node.get("__loader__"), node.get("__id__")
    if type(number) is not int or not 0 < number < MAX_ID:
        raise EntryError("it holds a node without a valid id; it is damaged.")
    if number in reader.nodes:
        # as skops does, take the first node of an id: what it contains may be numbered anew where it is repeated
        if number not in reader.values or _outline(reader.nodes[number]) != _outline(node):
            raise EntryError("it holds two nodes of one id, or a node that contains itself; it is damaged.")
        return reader.values[number]
    read = LOADERS.get(loader) if isinstance(loader, str) else None
    kind = f"{node.get('__module__')}.{node.get('__class__')}"
    if read is None:
        raise EntryError(f"it holds {kind[:MAX_TEXT]}, which is not loaded: only the types of HemaZoo's heads are.")
    reader.nodes[number] = node
    reader.values[number] = read(reader, node, kind, depth - 1)
    return reader.values[number]


def _outline(node: dict[str, Any]) -> dict[str, Any]:
    """A node without the nodes in it."""
    return {key: value for key, value in node.items() if not isinstance(value, list | dict)}


def _check_kind(kind: str, allowed: set[str]) -> None:
    if kind not in allowed:
        raise EntryError(f"it holds {kind[:MAX_TEXT]}, which is not loaded: only the types of HemaZoo's heads are.")


def _content(node: dict[str, Any], kind: type) -> Any:
    """A node's content, of a type. Raises EntryError."""
    content = node.get("content")
    if not isinstance(content, kind):
        raise EntryError("it holds a node without its content; it is damaged.")
    return content


def _scalar(_: _Reader, node: dict[str, Any], __: str, ___: int) -> Any:
    """A number, a text or None, as JSON."""
    text = _content(node, str)
    if len(text) > MAX_TEXT:
        raise EntryError(f"it holds a text of {len(text):,} letters; at most {MAX_TEXT:,} are read.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EntryError("it holds a number or text that is not valid JSON; it is damaged.") from error
    if isinstance(value, list | dict) or (isinstance(value, float) and not math.isfinite(value)):
        raise EntryError("it holds a value that is no finite number and no text; it is damaged.")
    return value


def _sequence(kind: str, make: Callable[[list[Any]], Any]) -> Callable[[_Reader, dict[str, Any], str, int], Any]:
    def read(reader: _Reader, node: dict[str, Any], found: str, depth: int) -> Any:
        _check_kind(found, {kind})
        return make([_read(reader, value, depth) for value in _content(node, list)])

    return read


def _mapping(reader: _Reader, node: dict[str, Any], kind: str, depth: int) -> dict[Any, Any]:
    _check_kind(kind, {"builtins.dict"})
    types = _read(reader, node.get("key_types"), depth)
    content = _content(node, dict)
    if not isinstance(types, list) or len(types) != len(content) or not all(one in KEY_TYPES.values() for one in types):
        raise EntryError("it holds a mapping whose keys are not described; it is damaged.")
    try:
        keys = [make(key) for make, key in zip(types, content, strict=True)]
    except ValueError as error:
        raise EntryError("it holds a mapping whose keys are not of their type; it is damaged.") from error
    return dict(zip(keys, (_read(reader, value, depth) for value in content.values()), strict=True))


def _type(_: _Reader, __: dict[str, Any], kind: str, ___: int) -> type:
    _check_kind(kind, set(KEY_TYPES))
    return KEY_TYPES[kind]


def _estimator(reader: _Reader, node: dict[str, Any], kind: str, depth: int) -> Part:
    _check_kind(kind, ESTIMATORS)
    return Part(kind, _fields(_read(reader, node.get("content"), depth)))


def _tree(reader: _Reader, node: dict[str, Any], kind: str, depth: int) -> Part:
    _check_kind(kind, {TREE})
    reduced = node.get("__reduce__")
    # in the order in which skops reads them, since the first node of an id counts
    fields = _fields(_read(reader, node.get("content"), depth))
    arguments = _read(reader, reduced.get("args") if isinstance(reduced, dict) else None, depth)
    if not isinstance(arguments, tuple):
        raise EntryError("it holds a tree without its arguments; it is damaged.")
    return Part(kind, fields, arguments)


def _fields(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise EntryError("it holds an object without fields; it is damaged.")
    return value


def _array(reader: _Reader, node: dict[str, Any], kind: str, _: int) -> Any:
    """An array of finite numbers, or of the nodes of a decision tree; numpy's scalars are arrays without dimension."""
    _check_kind(kind, {"numpy.ndarray"} | NUMBERS)
    name = node.get("file")
    if node.get("type") != "numpy" or not isinstance(name, str) or name not in reader.file.NameToInfo:
        raise EntryError("it holds an array that is not in it, or an array of objects; it is damaged.")
    # one file may stand behind many nodes
    reader.array_bytes += reader.file.getinfo(name).file_size
    if reader.array_bytes > limits.HEAD_MB.bytes:
        raise EntryError(f"its arrays have more than {limits.HEAD_MB.bytes:,} bytes.")
    array = _parse_npy(name, reader.file.read(name))
    if kind == "numpy.ndarray":
        return array
    if array.ndim or array.dtype.name != kind.removeprefix("numpy."):
        raise EntryError(f"{name} is not the single number that it is said to be; it is damaged.")
    return array[()]


def _parse_npy(name: str, data: bytes) -> np.ndarray:
    """An array of a .npy file's content. Raises EntryError where sizes differ or numbers are not finite.

    Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    length = int.from_bytes(data[8:10], "little")
    head = NPY.fullmatch(data[10 : 10 + length]) if data[:8] == NPY_MAGIC + NPY_VERSION else None
    if head is None:
        raise EntryError(f"{name} is no array of numbers; it is damaged.")
    dtype = np.lib.format.descr_to_dtype(ast.literal_eval(head["type"].decode()))
    shape = tuple(int(side) for side in head["shape"].replace(b" ", b"").split(b",") if side)
    if len(shape) > MAX_DIMENSIONS or math.prod(shape) * dtype.itemsize != len(data) - 10 - length:
        raise EntryError(f"{name} claims a size that it does not have; it is damaged.")
    array = np.frombuffer(data, dtype, offset=10 + length).reshape(
        shape, order="F" if head["fortran"] == b"True" else "C"
    )
    columns = [array[column] for column in dtype.names] if dtype.names else [array]
    if not all(np.isfinite(column).all() for column in columns if column.dtype.kind == "f"):
        raise EntryError(f"{name} holds values that are no finite numbers.")
    return array


LOADERS: Mapping[str, Callable[[_Reader, dict[str, Any], str, int], Any]] = {
    "JsonNode": _scalar,
    "ListNode": _sequence("builtins.list", list),
    "TupleNode": _sequence("builtins.tuple", tuple),
    "DictNode": _mapping,
    "TypeNode": _type,
    "ObjectNode": _estimator,
    "TreeNode": _tree,
    "NdArrayNode": _array,
}


def open_zip(file: Path | BinaryIO) -> zipfile.ZipFile:
    """Open a .skops file. Raises EntryError if it is missing or no zip."""
    try:
        return zipfile.ZipFile(file)
    except FileNotFoundError as error:
        raise EntryError("it is missing.") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise EntryError("it is no zip; it is damaged.") from error
