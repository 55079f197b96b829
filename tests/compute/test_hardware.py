import os
import subprocess
import sys

import pytest

from mainspring.compute.hardware import detect, usable_instructions

AMX = frozenset(
    {"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"}
    | {"avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"}
)


@pytest.mark.parametrize(
    ("cap", "last"),
    [
        (None, "AVX512_CORE_AMX"),
        ("ALL", "AVX512_CORE_AMX"),
        ("AVX512_CORE_BF16", "AVX512_CORE_BF16"),
        ("avx512_core_vnni", "AVX512_CORE_VNNI"),
        ("AVX2", "AVX2"),
    ],
)
def test_the_cap_of_onednn_counts(cap: str | None, last: str) -> None:
    assert usable_instructions(AMX, cap)[-1] == last


def test_an_old_cpu_has_what_it_has() -> None:
    assert usable_instructions(frozenset({"sse4_2"}), None) == ()
    assert usable_instructions(frozenset({"avx2", "fma"}), "SSE41") == ()


def test_this_machine() -> None:
    found = detect()
    assert found.cpu and found.threads >= 1 and found.memory >= 0
    assert not found.fast_bfloat16 or "AVX2" in found.instructions


def test_a_capped_process_does_not_choose_bfloat16() -> None:
    code = (
        "from mainspring.compute.hardware import detect\n"
        "raise SystemExit(10 + detect().fast_bfloat16)"
    )
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 10
