"""Serve the models over HTTP.

POST /classify and /explain take pictures; GET /models, /health and /metrics tell about the server; /docs shows them
all. Needs the extra `serve`. docs/serving.md has a client in ten lines.

  python -m zoo serve
  curl -F files=@cell.png -F model=champion8 http://127.0.0.1:8601/classify

Only this computer reaches the server unless --host says otherwise. Ctrl-C ends it after the requests under way.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from zoo.cli._model import add_running_arguments
from zoo.cli.common import FAILED, OK, USAGE, fail, print_message

if TYPE_CHECKING:
    from uvicorn import Server

TOKEN_VARIABLE = "HEMAZOO_TOKEN"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
PORT, MAX_PORT = 8601, 65535
GRACE_SECONDS = 20  # for requests under way when the server is ended
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--host", default=LOOPBACK[0], metavar="ADDRESS", help="0.0.0.0: all (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=PORT, metavar="N", help="0: any free one (default: %(default)s)")
    parser.add_argument(
        "--token",
        metavar="TEXT",
        help=f"what clients must send as “Authorization: Bearer TEXT” (default: {TOKEN_VARIABLE}, which other users "
        "of this computer cannot see; else none)",
    )
    add_running_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until the process is told to end; the status is 1 if the address cannot be used."""
    try:
        import uvicorn

        from zoo.serving.http.app import make_app
    except ImportError as error:
        return fail(f"{error.name} is not installed: pip install 'hemazoo[serve]'", USAGE)
    from zoo.serving.runtime import Runtime

    _log_to_stderr()
    token = options.token or os.environ.get(TOKEN_VARIABLE) or None
    is_local = options.host in (*LOOPBACK, "::1")
    if not is_local and token is None:
        print_message(f"Whoever reaches {options.host} may use this server. Set {TOKEN_VARIABLE} to ask for a token.")
    app = make_app(
        Runtime(options.device, options.precision, backend=options.backend), token, LOOPBACK if is_local else ()
    )
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return _serve(uvicorn.Server(config))


def _serve(server: Server) -> int:
    """Run the server. SIGTERM and Ctrl-C both end it, and with it the command, in order."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run()  # its own handlers begin the end; it then repeats the signal, which is to do nothing more
    except SystemExit:  # the address is taken or not of this computer; uvicorn has logged which
        return FAILED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return OK


def _log_to_stderr() -> None:
    """Log requests and the start of the server, in one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    for name in ("zoo", "uvicorn"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to {MAX_PORT}")
    return int(text)
