"""`make demo-hub`: the built-in zoo published to a Hub on this computer, and the app that lists it from there."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# before anything imports huggingface_hub
os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}

from tests.hub import serve  # noqa: E402
from training.publish.hub import PublishOptions, publish  # noqa: E402
from zoo.sources.catalogue import BUILTIN, FolderSource  # noqa: E402


def main() -> None:
    """Serve until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8501, help="of the app")
    options = parser.parse_args()
    with serve() as hub, tempfile.TemporaryDirectory() as place:
        os.environ |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice", "HEMAZOO_CACHE": f"{place}/cache"}
        for entry in FolderSource(BUILTIN, "builtin").entries():
            print(publish(entry, f"alice/{entry.id}", PublishOptions(tag="v1"), print).url, flush=True)
        os.environ |= {"HEMAZOO_ZOO": "hub:alice", "HF_HUB_CACHE": f"{place}/hf", "HF_TOKEN": ""}
        print(f"HemaZoo with the Hub of this computer: http://localhost:{options.port}", flush=True)
        app = ["streamlit", "run", str(ROOT / "app.py"), "--server.port", str(options.port)]
        subprocess.run([sys.executable, "-m", *app, "--server.address", "localhost"], cwd=ROOT, check=False)


if __name__ == "__main__":
    main()
