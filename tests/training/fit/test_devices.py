"""Memory that a training process keeps between steps."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from training.fit.processor.devices import keep_memory, make_accelerator

MEASURE = """
import resource, sys
import torch
from training.fit.processor.devices import make_accelerator
if sys.argv[1:]:
    make_accelerator(torch.device("cpu"))
for _ in range(10):
    torch.ones(20_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(20_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*way: str) -> int:
    """Pages that the system had to give while 80 MB were taken and freed ten times."""
    run = subprocess.run([sys.executable, "-c", MEASURE, *way], capture_output=True, text=True, timeout=120, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_a_training_on_a_cpu_keeps_what_it_freed():
    given_back = faults()
    assert given_back > 1000
    assert faults("training") < given_back / 4  # one of the ten may need new pages


def test_where_memory_cannot_be_kept_training_goes_on():
    assert not keep_memory(lambda _: object())
    assert make_accelerator(torch.device("cpu")).device.type == "cpu"
