"""Freed memory stays in the process, where the C library can be told so."""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource
from mainspring.compute.memory import keep_freed_memory
import torch

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
given_back = faults()
assert keep_freed_memory()
for _ in range(4):
    faults()  # blocks from before are still given back
print(given_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_is_not_handed_out_anew():
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    given_back, kept = map(int, ran.stdout.split())
    assert kept < given_back / 10


GIVING = """
from pathlib import Path
from mainspring.compute.memory import give_back_freed_memory

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))  # KB

blocks = [bytearray(60_000) for _ in range(2_000)]  # each too small to be mapped on its own
keep = blocks[::50]
full = resident()
del blocks
assert give_back_freed_memory()
print(full, resident(), len(keep))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_between_blocks_in_use_is_given_back():
    ran = subprocess.run([sys.executable, "-c", GIVING], capture_output=True, text=True, check=True)
    full, left, _ = map(int, ran.stdout.split())
    assert full - left > 80_000
