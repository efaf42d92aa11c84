"""A Hugging Face Hub on this computer, for tests and `make demo-hub`: the protocol that huggingface_hub uses.

Repositories live in memory. Commits are files by path; large files are kept once by their SHA-256, like the Hub's LFS.
A test plans faults in `Hub.faults`. Routes are as huggingface_hub 2.4 uses them (https://huggingface.co/docs/hub/api).
"""

from tests.hub.server import serve
from tests.hub.state import Fault, Hub, HubError, Repo, metadata

__all__ = ["Fault", "Hub", "HubError", "Repo", "metadata", "serve"]
