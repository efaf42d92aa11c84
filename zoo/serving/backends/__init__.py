"""Libraries that compute the passes of networks: torch, and OpenVINO on processors where it is faster.

This module imports none of them: commands need its names before they know whether a network is run.
"""

from __future__ import annotations

import logging
import os

BACKENDS = ("auto", "torch", "openvino")
BACKEND_VARIABLE = "HEMAZOO_BACKEND"
LOG = logging.getLogger(__name__)


def default_backend() -> str:
    """Backend that the environment asks for by HEMAZOO_BACKEND; "auto" without it, or where it is unknown."""
    wanted = os.environ.get(BACKEND_VARIABLE) or "auto"
    if wanted not in BACKENDS:
        LOG.warning("%s is %r, not one of %s; taking auto", BACKEND_VARIABLE, wanted, ", ".join(BACKENDS))
        return "auto"
    return wanted
