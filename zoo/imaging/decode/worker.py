"""The decode worker: a small process that decodes pictures whose decoders may hang, crash or fill the memory.

It reads requests from stdin and answers on stdout: the length of a JSON header in 4 bytes, the header, then the bytes
that the header announces. Nothing is unpickled on either side. Each request has a limit of CPU time, after which the
system ends the process, and of memory.
"""

from __future__ import annotations

import gc
import json
import logging
import re
import select
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from PIL import Image

from zoo.imaging.decode.errors import PictureError, decoder_errors
from zoo.imaging.decode.formats import TIFF, format_called
from zoo.imaging.decode.headers import read_header
from zoo.imaging.decode.reading import read_here

IDLE_SECONDS = 60  # after which a worker without work ends
KEPT_BYTES = 300_000_000  # a worker that once took more ends after its answer, which gives the memory back
LENGTH = struct.Struct(">I")
MAX_HEADER = 100_000  # bytes


def send(stream: IO[bytes], header: dict[str, Any], body: bytes = b"") -> None:
    """Write a message."""
    encoded = json.dumps(header | {"bytes": len(body)}).encode()
    stream.write(LENGTH.pack(len(encoded)) + encoded)
    stream.write(body)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Read a message. Raises EOFError where the other side has ended."""
    length = LENGTH.unpack(_exactly(stream, LENGTH.size))[0]
    if length > MAX_HEADER:
        raise EOFError
    header = json.loads(_exactly(stream, length))
    return header, _exactly(stream, int(header["bytes"]))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def main() -> None:
    """Answer requests until stdin ends, nothing comes for a while, or a request took much memory."""
    logging.disable()  # tifffile and pydicom quote the file in warnings
    Image.MAX_IMAGE_PIXELS = None  # our own limit is lower, and its sentence says more
    _once()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    send(answers, {})
    while _comes(requests) and not _is_large():
        try:
            request, raw = receive(requests)
        except EOFError:
            return
        with _limits(request["seconds"], request["memory"]):
            header, body = _answer(request, raw)
        del raw
        send(answers, header, body)
        del body
        gc.collect()


def _answer(request: dict[str, Any], raw: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        with decoder_errors():
            kind = format_called(request["format"])
            if request["task"] == "list":
                return _listed(raw, kind is TIFF), b""
            picture = read_here(raw, kind, read_header(raw, kind), request["page"])
            facts = {
                "page": picture.page,
                "pages": picture.pages,
                "notes": picture.notes,
                "size": picture.image.size,
                "um_per_px": picture.um_per_px,
            }
            return facts, picture.image.tobytes()
    except PictureError as error:
        return {"error": str(error)}, b""


def _listed(raw: bytes, is_tiff: bool) -> dict[str, Any]:
    if not is_tiff:
        from zoo.imaging.decode.dicom import count_frames  # noqa: PLC0415 (an extra)

        return {"pages": count_frames(raw), "stack": False}
    from zoo.imaging.decode.tiff.pages import list_tiff  # noqa: PLC0415 (only TIFF needs tifffile)

    pages, stack = list_tiff(raw)
    return {"pages": pages, "stack": stack}


def _comes(stream: IO[bytes]) -> bool:
    """Whether a request comes before the worker has been idle for long."""
    if sys.platform == "win32":
        return True  # pipes cannot be waited for
    return bool(select.select([stream], [], [], IDLE_SECONDS)[0])


def _once() -> None:
    """Limits for the whole life of the process: no files, no core dumps."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 (Unix only)

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the program, and with it this process


def _is_large() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    # not getrusage, whose maximum includes the parent's memory at the fork
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return peak is not None and 1024 * int(peak[1]) > KEPT_BYTES


@contextmanager
def _limits(seconds: float, memory: int) -> Iterator[None]:
    """Limit CPU time (everywhere but on Windows) and additional memory (on Linux; elsewhere it is not enforced)."""
    if sys.platform == "win32":
        yield
        return
    import resource  # noqa: PLC0415

    signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends the process, in the middle of a C function too
    usual, most = resource.getrlimit(resource.RLIMIT_AS)  # a cluster's scheduler may have set them
    if sys.platform.startswith("linux"):
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        allowed = now + memory if most == resource.RLIM_INFINITY else min(now + memory, most)
        resource.setrlimit(resource.RLIMIT_AS, (allowed, most))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if sys.platform.startswith("linux"):
            resource.setrlimit(resource.RLIMIT_AS, (usual, most))


if __name__ == "__main__":
    main()
