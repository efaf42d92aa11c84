"""Entries and pictures that somebody made to do harm, or that arrived damaged: all of them drawn up here, by code."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.making import LABELS, draw_cell, make_predictions

Damage = Callable[[Path], Any]


def change_config(folder: Path, change: Callable[[dict], Any]) -> None:
    """Rewrite config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def change_header(folder: Path, change: Callable[[dict], Any]) -> None:
    """Rewrite the safetensors header, leaving its data as it is."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    parsed = json.loads(data[8 : 8 + length])
    text = json.dumps(change(parsed) or parsed).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Rewrite the tensors."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)


def _set(*path: str | int, value: Any) -> Damage:
    def change(config: dict) -> None:
        place: Any = config
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value

    return lambda folder: change_config(folder, change)


def _write(name: str, content: bytes | str) -> Damage:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def _claim(text: str | bytes) -> Damage:
    """A safetensors file that is its header alone."""
    data = text if isinstance(text, bytes) else text.encode()
    return _write("model.safetensors", struct.pack("<Q", len(data)) + data)


def _link(name: str, target: str) -> Damage:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return change


def _zip(members: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def _skops(schema: dict[str, Any]) -> bytes:
    return _zip({"schema.json": json.dumps({"protocol": 2, "_skops_version": "0.12", **schema})})


def _with_head(content: bytes | None) -> Damage:
    """The entry decides by a classical classifier, which is this."""

    def change(folder: Path) -> None:
        _set("zoo", "head", value="head.skops")(folder)
        if content is not None:
            (folder / "head.skops").write_bytes(content)

    return change


SYSTEM = {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "content": "system", "__id__": 1}
BOMB = "&a [" + ", ".join(["x"] * 9) + "]\n" + "\n".join(
    f"k{n}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]" for n in range(9)
)  # fmt: skip
TENSOR = '{"a": {"dtype": "%s", "shape": %s, "data_offsets": %s}}'

# what must be told when the zoo is listed: how to make it, and a part of the sentence
BROKEN: dict[str, tuple[Damage, str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "config is a folder": (lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()), "cannot be read"),
    "empty config": (_write("config.json", ""), "not valid JSON"),
    "config is a list": (_write("config.json", "[]"), "config.json"),
    "config is null": (_write("config.json", "null"), "config.json"),
    "deep config": (_write("config.json", "[" * 100_000), "not valid JSON"),
    "binary config": (_write("config.json", bytes(range(256))), "not valid JSON"),
    "large config": (_write("config.json", b"[" + b"1," * 11_000_000 + b"1]"), "larger than"),
    "number without end": (_write("config.json", "9" * 100_000), "config.json"),
    "labels missing": (lambda f: change_config(f, lambda c: c.pop("label_names")), "label_names"),
    "too few labels": (lambda f: change_config(f, lambda c: c["label_names"].pop()), "3 label_names"),
    "labels twice": (_set("label_names", value=["a", "a", "b", "c"]), "not all different"),
    "label of script": (_set("label_names", 0, value="<script>alert(1)</script>"), "label_names"),
    "label of lines": (_set("label_names", 0, value="a\n\n# b"), "label_names"),
    "label without end": (_set("label_names", 0, value="a" * 10_000), "label_names"),
    "label is a number": (_set("label_names", 0, value=7), "label_names"),
    "million classes": (_set("num_classes", value=10**6), "num_classes"),
    "description of script": (_set("label_descriptions", value={"a": "<img src=x onerror=alert(1)>"}), "markup"),
    "title with a picture from elsewhere": (_set("zoo", "title", value="![x](http://evil/x.png)"), "markup"),
    "summary with a link": (_set("zoo", "summary", value="[log in](javascript:alert(1))"), "markup"),
    "summary with an address": (_set("zoo", "summary", value="see http://evil"), "address"),
    "title without end": (_set("zoo", "title", value="a" * 10_000), "title"),
    "std zero": (_set("pretrained_cfg", "std", value=[0, 1, 1]), "std"),
    "huge input": (_set("pretrained_cfg", "input_size", value=[3, 9e9, 9e9]), "input_size"),
    "input of 1,025 pixels": (_set("pretrained_cfg", "input_size", value=[3, 1025, 64]), "input_size"),
    "input of 60,000 pixels": (_set("pretrained_cfg", "input_size", value=[3, 60_000, 60_000]), "input_size"),
    "negative input": (_set("pretrained_cfg", "input_size", value=[3, -64, 64]), "input_size"),
    "crop of nothing": (_set("pretrained_cfg", "crop_pct", value=0), "crop_pct"),
    "architecture is a path": (_set("architecture", value="../../evil"), "architecture"),
    "architecture is another repository": (_set("architecture", value="hf-hub:somebody/model"), "architecture"),
    "architecture is a module": (_set("architecture", value="os;import x"), "architecture"),
    "temperature zero": (_set("zoo", "temperature", value=0), "temperature"),
    "head is a path": (_set("zoo", "head", value="../../head.skops"), "head"),
    "member is a path": (_set("zoo", "members", value=["../a", "b"]), "members"),
    "members without end": (_set("zoo", "members", value=[f"a{n}" for n in range(1000)]), "members"),
    **{
        f"model_args {name}": (_set("model_args", value=given), "model_args")
        for name, given in {
            "name a file": {"checkpoint_path": "/etc/passwd"},
            "name a file in a word": {"backbone": "../../weights"},
            "ask the Hub": {"pretrained": True},
            "ask another repository": {"backbone": "hf-hub:somebody/model"},
            "change what is loaded": {"pretrained_cfg_overlay": {"url": "http://somewhere"}},
            "go behind the name": {"__class__": "x"},
            "build without end": {"depth": 10**9},
            "are too many": {"depths": [1] * 10_000},
            "are too deep": {"depths": [[[[[[1]]]]]]},
            "are no numbers": {"drop_rate": float("nan")},
        }.items()
    },
    "no zoo part": (lambda f: change_config(f, lambda c: c.pop("zoo")), "zoo"),
    "future schema": (_set("zoo", "schema_version", value=99), "schema_version"),
    "weights empty": (_write("model.safetensors", b""), "not a safetensors"),
    "weights a pickle": (_write("model.safetensors", b"\x80\x04\x95" + bytes(90)), "not a safetensors"),
    "weights a zip": (_write("model.safetensors", _zip({"data.pkl": b"cos\nsystem\n"})), "not a safetensors"),
    "weights a page": (_write("model.safetensors", "<html>Not found</html>"), "not a safetensors"),
    "weights cut": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-1000]),
        "cut short",
    ),
    "weights too long": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes() + b"more"),
        "too long",
    ),
    "header longer than the file": (_write("model.safetensors", struct.pack("<Q", 10**6) + b"{}"), "cut short"),
    "header of 2⁶³ bytes": (_write("model.safetensors", struct.pack("<Q", 2**63) + b"{}"), "not a safetensors"),
    "header of 20 MB": (_claim(b"{" + b" " * 20_000_000 + b"}"), "not a safetensors"),
    "header too deep": (_claim("[" * 100_000), "damaged"),
    "header no text": (_claim(b"\xff\xfe{}"), "damaged"),
    "header lies": (lambda f: change_header(f, lambda h: h["classifier.bias"].update(shape=[10**6])), "claims a size"),
    "header without type": (
        lambda f: change_header(f, lambda h: h["classifier.bias"].pop("dtype") and None),
        "not described",
    ),
    "header no mapping": (lambda f: change_header(f, lambda _: [1]), "damaged"),
    "tensor of a trillion": (_claim(TENSOR % ("F32", "[1000000, 1000000]", "[0, 4000000000000]")), "claims a size"),
    "tensor of no known type": (_claim(TENSOR % ("OBJECT", "[1]", "[0, 8]")), "not described"),
    "tensor of negative size": (_claim(TENSOR % ("F32", "[-1]", "[0, 4]")), "not described"),
    "tensor of half a number": (_claim(TENSOR % ("F32", "[0.5]", "[0, 2]")), "not described"),
    "tensor backwards": (_claim(TENSOR % ("F32", "[1]", "[4, 0]")), "claims a size"),
    "tensors that overlap without end": (
        _claim(json.dumps({f"a{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(9)}) + "x"),
        "damaged",
    ),
    "evaluation broken": (_write("evaluation.json", '{"benchmarks": 3}'), "evaluation.json"),
    "evaluation too deep": (_write("evaluation.json", "[" * 100_000), "evaluation.json"),
    "evaluation with a path": (
        _write("evaluation.json", '{"benchmarks": {"../../x": {"title": "x"}}}'),
        "evaluation.json",
    ),
    "evaluation of script": (
        lambda f: (f / "evaluation.json").write_text(
            (f / "evaluation.json").read_text().replace("drawn cells", "<script>alert(1)</script>")
        ),
        "markup",
    ),
    "config is a link": (_link("config.json", "/etc/hostname"), "leads out"),
    "weights are a link": (_link("model.safetensors", "/dev/zero"), "leads out"),
    "card is a link": (_link("README.md", "/etc/passwd"), "leads out"),
    "link in a circle": (_link("history.json", "history.json"), "leads out"),
}  # fmt: skip

# what reads well, and must be told when the model is to be used
UNUSABLE: dict[str, tuple[Damage, str]] = {
    "architecture unknown": (_set("architecture", value="resnet_of_nobody"), "not known here"),
    "weights of another network": (_set("architecture", value="test_resnet"), "do not fit"),
    "tensor missing": (lambda f: change_weights(f, lambda t: t.pop("classifier.bias")), "do not fit"),
    "tensor too many": (lambda f: change_weights(f, lambda t: t.update(evil=torch.ones(3))), "do not fit"),
    "tensor turned": (
        lambda f: change_weights(f, lambda t: t.update({"classifier.weight": t["classifier.weight"].T})),
        "do not fit",
    ),
    "weights not numbers": (
        lambda f: change_weights(f, lambda t: [v.fill_(torch.nan) for v in t.values() if v.is_floating_point()]),
        "no number",
    ),
    "weights infinite": (
        lambda f: change_weights(f, lambda t: [v.fill_(torch.inf) for v in t.values() if v.is_floating_point()]),
        "no number",
    ),
    "unknown option": (_set("model_args", value={"wings": 2}), "do not fit"),
    "built far too large": (
        lambda f: (
            _set("architecture", value="test_vit")(f),
            _set("model_args", value={"embed_dim": 65_536, "depth": 4096, "num_heads": 2})(f),
        ),
        "far larger",
    ),
    "built far too deep": (
        lambda f: (_set("architecture", value="test_vit")(f), _set("model_args", value={"depth": 65_536})(f)),
        "far larger",
    ),
    "more tokens than memory": (
        lambda f: (
            _set("architecture", value="test_vit")(f),
            _set("model_args", value={"img_size": 1024, "patch_size": 1, "pos_embed": "none"})(f),
            _set("pretrained_cfg", "input_size", value=[3, 1024, 1024])(f),
        ),
        "MB for one picture",
    ),
    "built for a huge picture": (
        lambda f: (
            _set("architecture", value="transfer")(f),
            _set("model_args", value={"backbone": "test_resnet", "input_size": [65_536, 65_536]})(f),
        ),
        "at most 1,024 pixels",
    ),
    "window of a million positions": (
        lambda f: (
            _set("architecture", value="swin_tiny_patch4_window7_224")(f),
            _set("model_args", value={"window_size": [1000, 1000]})(f),
        ),
        "at most 64 positions",
    ),
    "built of many small layers": (
        lambda f: (
            _set("architecture", value="test_vit")(f),
            _set("model_args", value={"embed_dim": 2, "depth": 65_536, "num_heads": 1})(f),
        ),
        "layers|far larger",
    ),
    "head missing its zip": (_with_head(b"no zip"), "cannot be loaded"),
    "head empty": (_with_head(_zip({})), "cannot be loaded"),
    "head runs a command": (_with_head(_skops(SYSTEM)), "not loaded|cannot be loaded"),
    "head a pickle": (_with_head(b"\x80\x04cos\nsystem\n"), "cannot be loaded"),
    "head a bomb": (_with_head(_zip({"schema.json": bytes(300_000_000)})), "unpacks to"),
    "gate no safetensors": (_write("gate.safetensors", b"\x80\x04pickle"), "gate"),
    "gate of another model": (
        lambda f: save_file(
            {
                "mean": torch.zeros(7), "means": torch.zeros(4, 2), "axes": torch.zeros(7, 2),
                "variances": torch.ones(2), "rest": torch.tensor(1.0), "limit": torch.tensor(1.0),
                "far": torch.tensor(1.0),
            },
            f / "gate.safetensors",
        ),
        "gate",
    ),
    "an ensemble of itself": (_set("zoo", "members", value=["mine", "other"]), "member"),
}  # fmt: skip

# what must do nothing: the model is used as if it were not there
HARMLESS: dict[str, Damage] = {
    "card of script": _write("README.md", "# x\n<script>alert(1)</script>\n<iframe src='http://evil'></iframe>"),
    "card with pictures from elsewhere": _write("README.md", "![a](http://evil/a.png)\n![b][c]\n\n[c]: http://evil/b.png"),
    "card with a YAML bomb": _write("README.md", f"---\na: {BOMB}\n---\n# x"),
    "card with a YAML object": _write("README.md", "---\na: !!python/object/apply:os.system ['true']\n---\n# x"),
    "card no text": _write("README.md", bytes(range(256))),
    "card of 30 MB": _write("README.md", b"x" * 30_000_000),
    "card missing": lambda f: (f / "README.md").unlink(),
    "history too deep": _write("history.json", "[" * 100_000),
    "history of numbers": _write("history.json", "[1, 2, 3]"),
    "history of a million columns": _write(
        "history.json", json.dumps([{f"c{n}-{m}": 1 for m in range(10)} for n in range(50_000)])
    ),
    "history of nothing known": _write("history.json", '{"a": {"b": [1, {"c": null}]}}'),
    "history with paths": _write("history.json", '[{"epoch": "../../x", "train_loss": "<script>"}]'),
    "predictions no parquet": _write("predictions/drawn-test.parquet", "no parquet"),
    "predictions of other columns": lambda f: pd.DataFrame({"x": [1]}).to_parquet(f / "predictions/drawn-test.parquet"),
    "predictions that unpack without end": lambda f: pd.DataFrame(
        {name: np.zeros(3_000_000, np.float16) for name in ["file", "cell", "label", *(f"p:{n}" for n in LABELS)]}
    ).to_parquet(f / "predictions/drawn-test.parquet", compression="zstd"),
    "predictions of other labels": lambda f: make_predictions(1).rename(columns=str.upper).to_parquet(
        f / "predictions/drawn-test.parquet"
    ),
    "code beside it": _write("modeling.py", "raise SystemExit('this was run')"),
    "a pickle beside it": _write("pytorch_model.bin", b"\x80\x04cos\nsystem\n(S'true'\ntR."),
    "a package of its own name": lambda f: ((f / "timm").mkdir(), (f / "timm" / "__init__.py").write_text("1/0")),
    "config with keys of others": _set("auto_map", value={"AutoModel": "modeling.Evil"}),
    "layer that is not there": _set("zoo", "explanation_layer", value="__class__.__init__"),
}  # fmt: skip


def damaged(good: Path, place: Path, damage: Damage) -> Path:
    """A copy of a good entry at `place`, damaged."""
    shutil.copytree(good, place)
    damage(place)
    return place


CELL = draw_cell("neutrophil")
KINDS = {
    "jpeg": ("JPEG", {}), "progressive jpeg": ("JPEG", {"progressive": True}), "png": ("PNG", {}), "bmp": ("BMP", {}),
    "webp": ("WEBP", {}), "gif": ("GIF", {}), "tiff": ("TIFF", {}), "tiff lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
}  # fmt: skip


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def pictures() -> Iterator[tuple[str, bytes]]:
    """More than 150 files with names of pictures: damaged, of other kinds, too large, or malicious."""
    random = np.random.default_rng(0)
    yield from _damaged(random)
    yield from _odd_headers()
    yield from _other_files(random)


def _damaged(random: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    for name, (kind, options) in KINDS.items():
        data = saved(CELL, kind, **options)
        for share in (0.02, 0.3, 0.6, 0.9, 0.99):
            yield f"{name} cut at {share}", data[: int(share * len(data))]
        for count in (1, 8, 64):
            yield f"{name} with {count} other bytes", _other_bytes(data, count, random)
        yield f"{name} without its head", data[16:]
        yield f"{name} twice", data + data
        yield f"{name} with a page behind it", data + b"<script>alert(1)</script>"
        yield f"{name} with zeros from the middle", data[: len(data) // 2] + bytes(len(data) // 2)


def _odd_headers() -> Iterator[tuple[str, bytes]]:
    for width, height in ((30_000, 30_000), (9_000, 9_000), (2**31 - 1, 2**31 - 1), (1, 1), (0, 5), (10**6, 100)):
        yield f"png that claims {width}×{height}", png_header(width, height)
    for bits, colour in ((16, 2), (16, 0), (1, 0), (3, 2), (8, 7), (8, 3)):
        yield f"png of {bits} bits, colour {colour}", png_header(500, 500, bits, colour)
    array = np.asarray(CELL)
    for name, values in {
        "seven channels": np.zeros((64, 64, 7), np.uint16),
        "no number": np.full((64, 64), np.nan, np.float32),
        "infinite": np.full((64, 64), np.inf, np.float32),
        "complex": np.zeros((64, 64), np.complex64),
        "a stack": np.zeros((40, 64, 64), np.uint16),
        "one value": np.zeros((64, 64), np.uint16),
        "negative": -array.astype(np.int32),
        "sixty-four bits": array.astype(np.uint64),
        "huge numbers": array.astype(np.float64) * 1e300,
        "one row": array[:1].astype(np.uint16),
    }.items():
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values)
        yield f"tiff of {name}", buffer.getvalue()


def _other_files(random: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    others = {
        "nothing": b"",
        "one byte": b"\xff",
        "text": b"just text",
        "a page": b"<html><script>alert(1)</script></html>",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        "pdf": b"%PDF-1.7 \n1 0 obj",
        "zip": _zip({"a.png": saved(CELL, "PNG")}),
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n/x (true) system\n",
        "elf": b"\x7fELF" + bytes(99),
        "psd": b"8BPS\0\1" + bytes(99),
        "ico": b"\0\0\1\0\1\0" + bytes(99),
        "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99),
        "fits": b"SIMPLE  =                    T" + bytes(99),
        "ppm of a terapixel": b"P6 1000000 1000000 255 ",
        "xbm": b"#define a_width 9\n#define a_height 9\nstatic char a_bits[] = {",
        "noise": random.bytes(5000),
        "zeros": bytes(5000),
        "21 MB": bytes(21_000_000),
        "tiff of nothing": b"II*\0" + bytes(40),
        "tiff in a circle": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "big tiff": b"II+\0\x08\0\0\0" + bytes(60),
        "gif of no frame": b"GIF89a\x40\0\x40\0\0\0\0;",
        "bmp of minus a million": b"BM" + bytes(16) + struct.pack("<iii", 40, -(10**6), 10**6),
        "webp of nothing": b"RIFF\x04\0\0\0WEBP",
    }
    yield from others.items()


def _other_bytes(data: bytes, count: int, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for place in random.integers(4, len(changed), count):
        changed[place] = random.integers(0, 256)
    return bytes(changed)
