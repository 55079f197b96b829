"""Building, keeping and refusing the kernels."""

import os
import shutil
import subprocess
import sys
import tempfile
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
    built, proof = sorted((tmp_path / "native").iterdir(), reverse=True)
    assert (built.suffix, proof.suffix) == (".so", ".sha256")
    made = built.stat().st_mtime_ns
    library.kernels.cache_clear()
    library._open.cache_clear()
    assert library.kernels() is not None
    assert {built, proof} == set((tmp_path / "native").iterdir())
    assert built.stat().st_mtime_ns == made


@able
def test_a_library_that_was_cut_short_is_built_again(tmp_path: Path) -> None:
    """In processes of their own: to open such a file would end this one."""
    environment = {**os.environ, "MAINSPRING_CACHE": str(tmp_path)}

    def why_not() -> str:
        command = [sys.executable, "-c", LINE]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert why_not() == "None"
    (built,) = (tmp_path / "native").glob("*.so")
    whole = built.stat().st_size
    os.truncate(built, 50_000)
    assert why_not() == "None" and built.stat().st_size == whole


def test_mapped_files_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = tmp_path / "maps"
    row = b"7f00-7f01 r-xp 00000000 08:01 17    "
    paths = [b"/home/my env/libgomp-a.so.1", b"/tmp/caf\xe9.bin", b"", b"[heap]"]
    maps.write_bytes(b"".join(row + path + b"\n" for path in paths))
    monkeypatch.setattr(library, "MAPS", maps)
    assert library._mapped() == [os.fsdecode(path) for path in paths if path]


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
    assert library.why_not() == f"{broken} failed: it broke"
    assert not any((tmp_path / "cache" / "native").iterdir())


@able
def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MAINSPRING_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert library.kernels() is not None
    (own,) = tmp_path.glob("mainspring-*")
    assert len(list(own.glob("kernels-*.so"))) == 1 and own.stat().st_mode & 0o777 == 0o700


@able
def test_a_folder_that_others_can_write_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MAINSPRING_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / f"mainspring-{os.getuid()}").mkdir(mode=0o755)
    assert library.kernels() is None
    assert "nor is" in str(library.why_not())


@able
def test_kernels_that_compute_nonsense_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_is_right", lambda built: False)
    assert library.kernels() is None
    assert library.why_not() == "they compute wrong numbers here"
