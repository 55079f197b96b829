"""What this machine can do: the instructions of its CPU, threads, memory and GPUs.

Linux and macOS are read directly; elsewhere torch is asked. Nothing here needs torch but the GPUs
and that last resort.
"""

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# The instruction sets that matter to speed, from old to new, each with the flags that
# /proc/cpuinfo names it by. oneDNN's cap (ONEDNN_MAX_CPU_ISA) uses names of the same ladder.
LADDER: tuple[tuple[str, frozenset[str]], ...] = (
    ("AVX2", frozenset({"avx2", "fma"})),
    ("AVX512_CORE", frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq"})),
    ("AVX512_CORE_VNNI", frozenset({"avx512_vnni"})),
    ("AVX512_CORE_BF16", frozenset({"avx512_bf16"})),
    ("AVX512_CORE_AMX", frozenset({"amx_tile", "amx_bf16", "amx_int8"})),
)
# Where each name that the cap can hold stands on that ladder: how many of its steps it allows.
CAPS = {
    "SSE41": 0,
    "AVX": 0,
    "AVX2": 1,
    "AVX2_VNNI": 1,
    "AVX2_VNNI_2": 1,
    "AVX512_CORE": 2,
    "AVX512_CORE_VNNI": 3,
    "AVX512_CORE_BF16": 4,
    "AVX10_1_512": 4,
    "AVX512_CORE_FP16": 4,
}


@dataclass(frozen=True)
class Hardware:
    """`instructions` are names of `LADDER`; `memory` is in bytes, 0 where it is not known."""

    cpu: str
    instructions: tuple[str, ...]
    threads: int
    memory: int
    gpus: tuple[str, ...] = ()

    @property
    def fast_bfloat16(self) -> bool:
        """Whether the CPU multiplies bfloat16 matrices faster than float32 ones."""
        return "AVX512_CORE_BF16" in self.instructions or "AVX512_CORE_AMX" in self.instructions

    @property
    def fast_int8(self) -> bool:
        """Whether the CPU has dot products of 8-bit integers."""
        return "AVX512_CORE_VNNI" in self.instructions or "AVX512_CORE_AMX" in self.instructions


def usable_instructions(flags: frozenset[str], cap: str | None) -> tuple[str, ...]:
    """The steps of `LADDER` that the CPU `flags` offer and oneDNN's `cap` leaves."""
    allowed = len(LADDER) if cap is None else CAPS.get(cap.upper(), len(LADDER))
    return tuple(name for name, needed in LADDER[:allowed] if needed <= flags)


def cpu_flags() -> frozenset[str]:
    """The CPU's feature flags in Linux's words."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
        return frozenset()
    import torch

    asked = {
        "avx2": torch.cpu._is_avx2_supported(),
        "fma": torch.cpu._is_avx2_supported(),
        "avx512_vnni": torch.cpu._is_vnni_supported(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "amx_tile": torch.cpu._is_amx_tile_supported(),
    }
    found = {flag for flag, there in asked.items() if there}
    if torch.cpu._is_avx512_supported():
        found |= {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
    if "amx_tile" in found:
        found |= {"amx_bf16", "amx_int8"}
    return frozenset(found)


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_bytes() -> int:
    """The machine's memory, or the container's limit where that is lower; 0 if unknown."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file():
        text = limit.read_text(encoding="ascii").strip()
        if text.isdigit():
            total = min(total, int(text))
    return total


def gpu_names() -> tuple[str, ...]:
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


@cache
def detect() -> Hardware:
    """This machine. oneDNN's cap on instructions is taken into account."""
    cap = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA")
    threads = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return Hardware(
        cpu_name(), usable_instructions(cpu_flags(), cap), threads, memory_bytes(), gpu_names()
    )
