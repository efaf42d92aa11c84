"""Odd files on the command line: names, pipes, pages, pictures without a cell, and what must not be told."""

from __future__ import annotations

import csv
import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageDraw, PngImagePlugin

from tests.zoo.imaging.encodings import ARRAY, CELL, NAMES, TWELVE, dicom, png16, saved, tiff, with_chunks
from training.publish.examples import ExampleOptions, choose, stage
from zoo.cli import main
from zoo.serving.bulk import partial_path, prepare_output
from zoo.sources.catalogue import get_entry

MODEL = "tiny-test-efficientnet"
SURE = "champion8"  # knows when it sees no cell
PLANTED = ("PLANTED", "Planted", "4711", "48,30,1.5", "0x5EC2E7")


@pytest.fixture
def run(zoo_environment, capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        status = main([os.fspath(part) if isinstance(part, Path) else str(part) for part in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


ODD_NAMES = ["two\nlines.png", "tab\t.png", "red\x1b[31m.png", "\u202egnp.png", os.fsdecode(b"caf\xe9.png"), "سلول.png"]


def test_odd_names_are_escaped_and_end_no_run(run, tmp_path):
    for name in ODD_NAMES:
        CELL.save(tmp_path / name, "PNG")
    table = tmp_path / "table.csv"
    status, out, err = run("classify", tmp_path, "--model", MODEL, "--csv", table)
    assert status == 0, err
    names = [Path(line.split("\t")[0]).name for line in out.splitlines()]
    expected = ["two\\nlines.png", "tab\\t.png", "red\\x1b[31m.png", "\\u202egnp.png", "caf\\xe9.png", "سلول.png"]
    assert sorted(names) == sorted(expected)
    with table.open(encoding="utf-8", newline="") as file:
        assert sorted(Path(row["file"]).name for row in csv.DictReader(file)) == sorted(expected)


def test_a_bulk_run_with_odd_names_and_bad_files_resumes(run, tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    for name in ODD_NAMES:
        CELL.save(place / name, "PNG")
    (place / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "answers.jsonl"
    status, _, _ = run("classify", place, "--model", MODEL, "--out", out)
    assert status == 1
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    # as if the run had been interrupted in the middle of its fourth record
    other = tmp_path / "other.jsonl"
    prepare_output(other, get_entry(MODEL), resume=False)
    stamp = partial_path(other).read_text(encoding="utf-8")
    partial_path(out).write_text(stamp + "".join(lines[:3]) + lines[3][:20], encoding="utf-8")
    out.unlink()
    status, _, err = run("classify", place, "--model", MODEL, "--out", out, "--resume")
    assert status == 1
    records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(records) == len({record["file"] for record in records}) == len(ODD_NAMES) + 1
    assert [Path(record["file"]).name for record in records if "error" in record] == ["bad.png"]
    assert "1 of 7 files" in err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_refused_without_opening(run, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    with socket.socket(socket.AF_UNIX) as unix:
        monkeypatch.chdir(tmp_path)  # the path of a socket is short
        unix.bind("socket.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    CELL.save(tmp_path / "cell.png")
    status, out, _ = run("classify", tmp_path, "--model", MODEL, "--json")
    assert status == 1
    said = {Path(record["file"]).name: record.get("error", "") for record in map(json.loads, out.splitlines())}
    assert said.pop("cell.png") == ""
    assert said.pop("folder.png") == "This is a folder, not a picture."
    assert said.pop("link.png") == "The file cannot be opened: No such file or directory."
    assert set(said) == {"pipe.png", "socket.png", "device.png"}
    assert set(said.values()) == {"This is a pipe, socket or device, not a picture."}


def test_notes_are_in_text_table_and_json(run, tmp_path):
    (tmp_path / "deep.png").write_bytes(png16(TWELVE))
    _, out, _ = run("classify", tmp_path, "--model", MODEL, "--csv", tmp_path / "table.csv")
    assert out.endswith("\t(read as 12 bit)\n")
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        assert next(csv.DictReader(file))["notes"] == "read as 12 bit"
    _, out, _ = run("classify", tmp_path, "--model", MODEL, "--json")
    assert json.loads(out)["notes"] == ["read as 12 bit"]
    _, out, err = run("explain", tmp_path / "deep.png", "--model", MODEL, "--out", tmp_path)
    assert "read as 12 bit" in err


def test_pages_and_slices(run, tmp_path):
    (tmp_path / "pages.tif").write_bytes(tiff(np.stack([ARRAY, ARRAY // 2])))
    blurred = np.asarray(CELL.resize((16, 16)).resize(CELL.size))
    stack = tiff(np.stack([blurred, ARRAY, blurred]), imagej=True, metadata={"axes": "ZYXS"})
    (tmp_path / "stack.tif").write_bytes(stack)

    def read(*more: object) -> list[tuple[str, int | None]]:
        _, out, _ = run("classify", tmp_path, "--model", MODEL, "--json", *more)
        records = map(json.loads, out.splitlines())
        return [(Path(record["file"]).name, record["page"]) for record in records]

    assert read() == [("pages.tif", 1), ("pages.tif", 2), ("stack.tif", None)]
    assert read("--page", "all")[2:] == [("stack.tif", number) for number in (1, 2, 3)]
    assert read("--page", "2") == [("pages.tif", 2), ("stack.tif", 2)]
    _, out, _ = run("classify", tmp_path / "stack.tif", "--model", MODEL)
    assert "slice 2 of 3, the sharpest" in out


@pytest.mark.parametrize("kind", ["text", "face", "histology"])
def test_a_picture_without_a_cell_gets_a_warning_and_no_class(run, tmp_path, kind):
    if kind == "text":
        picture = Image.new("RGB", (300, 300), "white")
        ImageDraw.Draw(picture).multiline_text((5, 5), "\n".join(["the quick brown fox jumps over"] * 18), fill="black")
    else:
        name, box = {"face": ("astronaut", (170, 30, 300, 170)), "histology": ("immunohistochemistry", None)}[kind]
        picture = Image.fromarray(getattr(skimage.data, name)()).crop(box)
    picture.save(tmp_path / "x.png")
    _, out, _ = run("classify", tmp_path / "x.png", "--model", SURE, "--csv", tmp_path / "table.csv")
    assert out == f"{tmp_path / 'x.png'}\tNo recognisable blood cell. Try one stained cell, in focus.\n"
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert row["warning"].startswith("No recognisable blood cell")
    assert (row["label"], row["confidence"], row["neutrophil"]) == ("", "", "")
    _, out, _ = run("classify", tmp_path / "x.png", "--model", SURE, "--json")
    assert json.loads(out)["warning"] == row["warning"]


def planted_pictures(folder: Path) -> None:
    """Pictures that name a person, a place and a device in every way that their formats offer."""
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x9286] = "PLANTED patient", "Planted Person", b"PLANTED"
    exif.get_ifd(0x8825)[1] = "48,30,1.5"
    exif.get_ifd(0x8769)[0xA431] = "PLANTED-SN 4711"
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Planted Person")
    text.add_itxt("XML:com.adobe.xmp", "<x>PLANTED</x>")
    CELL.save(folder / "a.jpg", exif=exif, comment=b"PLANTED", quality=95)
    CELL.save(folder / "b.png", exif=exif, pnginfo=text)
    CELL.save(folder / "c.webp", exif=exif, xmp=b"<x>PLANTED</x>", lossless=True)
    (folder / "d.tif").write_bytes(tiff(ARRAY, description="PLANTED 4711", software="Planted"))
    (folder / "e.dcm").write_bytes(dicom(ARRAY, 8))
    (folder / "torn.dcm").write_bytes(dicom(ARRAY, 8)[:700])
    (folder / "torn.png").write_bytes(with_chunks(saved(CELL, "PNG"), (b"tEXt", b"Author\0PLANTED"))[:900])
    (folder / "torn.tif").write_bytes(tiff(ARRAY, description="PLANTED 4711")[:900])
    assert NAMES["PatientID"].encode() in (folder / "e.dcm").read_bytes()


def test_no_command_tells_whom_a_picture_shows(run, tmp_path):
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    out.mkdir()
    planted_pictures(pictures)
    told = [*run("classify", pictures, "--model", MODEL, "--csv", out / "table.csv")[1:]]
    told += run("classify", pictures, "--model", MODEL, "--json")[1:]
    told += run("classify", pictures, "--model", MODEL, "--out", out / "answers.jsonl")[1:]
    for picture in sorted(pictures.iterdir()):
        told += run("explain", picture, "--model", MODEL, "--out", out)[1:]
    for torn in pictures.glob("torn.*"):
        torn.unlink()
    stage(choose(pictures, 9), out, ExampleOptions())
    written = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    assert len(written) > 12
    for word in PLANTED:
        assert not [text for text in told if word in text]
        assert not [content for content in written if word.encode() in content]
