"""Packages that are not there: whoever needs one is told so before anything is read or loaded."""

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mainspring
from mainspring import extras
from mainspring.errors import Missing
from mainspring.verbs import graph
from mainspring.verbs.export import export

ROOT = Path(__file__).parent.parent
EXTRAS = [value for value in vars(extras).values() if isinstance(value, extras.Extra)]
# No such data, no such model: whoever looks for them first fails otherwise.
DATA, MODEL = "no-data.jsonl", "./no-model"


def test_the_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["optional-dependencies"]
    assert EXTRAS and {extra.name for extra in EXTRAS} == set(declared) - {"bench", "dev"}


def test_what_is_there_and_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    extras.Extra("x", ("json", "csv"), "this needs").check()
    with pytest.raises(Missing, match=r"^this needs a package: pip install 'mainspring\[x\]'$"):
        extras.Extra("x", ("no_such_package",), "this needs").check()
    monkeypatch.setitem(sys.modules, "csv", None)
    with pytest.raises(Missing, match=r"^these need packages: pip install 'mainspring\[x\]'$"):
        extras.Extra("x", ("json", "csv"), "these need").check()


def fit(task: str, **options: Any) -> Any:
    given = {"out": "out", "model": MODEL, **options}
    return lambda: mainspring.fit(task, DATA, **given)


def evaluate(task: str) -> Any:
    return lambda: mainspring.evaluate(task, DATA, model=MODEL)


def hnsw() -> Any:
    return mainspring.run(
        "answer", model=MODEL, question="Who?", documents="no-folder", search="hnsw"
    )


@pytest.mark.parametrize(
    ("package", "extra", "call"),
    [
        ("nervaluate", "entities", fit("entities")),
        ("nervaluate", "entities", evaluate("entities")),
        ("sacrebleu", "translate", fit("translate")),
        ("sacrebleu", "translate", evaluate("translate")),
        ("jiwer", "speech", evaluate("transcribe")),
        ("tensorboard", "track", fit("summarize", tensorboard=True)),
        ("faiss", "answer", hnsw),
        ("llguidance", "constrained", lambda: mainspring.run("generate", DATA, regex="a")),
        ("gguf", "gguf", lambda: export("gguf", model=MODEL, out="model.gguf")),
        ("pyoxigraph", "graph", lambda: graph.import_("triples.csv", store="store")),
    ],
)
def test_a_missing_package_is_told_before_there_is_work_to_lose(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    extra: str,
    call: Callable[[], object],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("triples.csv").write_text("head,relation,tail\na,b,c\n")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Missing, match=rf" needs? a package: pip install 'mainspring\[{extra}\]'$"):
        call()
    assert [file.name for file in tmp_path.iterdir()] == ["triples.csv"]


@pytest.mark.parametrize("package", ["soundfile", "soxr"])
def test_sound_needs_both_its_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(b"RIFF")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Missing, match=r"reading sound needs packages: .*\[speech\]"):
        mainspring.run("transcribe", file, model=MODEL)


def test_a_fit_that_scores_no_rows_needs_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(Missing, match="no-data"):
        fit("translate", metric_rows=0, out=tmp_path / "out")()
