"""Building, keeping and refusing the kernels."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring.compute.hardware import Hardware
from mainspring.compute.native import library

LINE = "from mainspring.compute.native import library; print(library.why_not())"
able = pytest.mark.skipif(library.kernels() is None, reason=f"no kernels: {library.why_not()}")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing found before is remembered, in the test or after it."""
    for name in (library.SWITCH, "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    caches = library.kernels, library._open
    for each in caches:
        each.cache_clear()
    yield
    for each in caches:
        each.cache_clear()


@able
def test_built_once_into_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINSPRING_CACHE", str(tmp_path))
    assert library.kernels() is not None and library.why_not() is None
    (built,) = (tmp_path / "native").iterdir()
    made = built.stat().st_mtime_ns
    library.kernels.cache_clear()
    library._open.cache_clear()
    assert library.kernels() is not None
    assert [built] == list((tmp_path / "native").iterdir())
    assert built.stat().st_mtime_ns == made


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.SWITCH, "0")
    assert library.kernels() is None
    assert library.why_not() == "switched off by MAINSPRING_NATIVE=0"


def test_another_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "detect", lambda: Hardware("a CPU", ("AVX2",), 2, 2**34))
    assert library.kernels() is None
    assert library.why_not() is not None


def test_the_cap_of_instructions_hides_amx() -> None:
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
    done = subprocess.run(
        [sys.executable, "-c", LINE], env=environment, capture_output=True, text=True, check=True
    )
    assert "AMX" in done.stdout or "Linux" in done.stdout


@able
def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAINSPRING_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert library.kernels() is None
    assert library.why_not() == "no C compiler: install gcc"


@able
def test_a_compiler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "gcc"
    broken.write_text(
        "#!/bin/sh\ncase $1 in -dump*) echo 1;; *) echo 'it broke' >&2; exit 1;; esac\n"
    )
    broken.chmod(0o755)
    monkeypatch.setenv("MAINSPRING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "which", lambda name: str(broken))
    assert library.kernels() is None
    assert library.why_not() == f"{broken} or its result failed: it broke"
    assert not any((tmp_path / "cache" / "native").iterdir())


@able
def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MAINSPRING_CACHE", str(tmp_path / "file"))
    assert library.kernels() is None
    assert "failed" in str(library.why_not())


@able
def test_kernels_that_compute_nonsense_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_is_right", lambda built: False)
    assert library.kernels() is None
    assert library.why_not() == "they compute wrong numbers here"
