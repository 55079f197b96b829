import json
from pathlib import Path

import numpy as np
import pytest

import nano
from mainspring import registry
from mainspring.checkpoints.packaged import CACHE_VARIABLE, TABLE
from mainspring.errors import BadOption
from mainspring.tasks.answer import TASK as ANSWER
from mainspring.verbs import check_values
from mainspring.verbs.fit import fit
from mainspring.verbs.listing import Listing, cached_models, models, tasks


def named(listing: Listing) -> list[dict[str, str]]:
    return [dict(zip(listing.headings, row, strict=True)) for row in listing.rows]


def test_every_task_is_listed_with_its_columns() -> None:
    listed = {row[0]: row for row in tasks().rows}
    assert list(listed) == registry.names("tasks")
    assert "text: text, article, document" in listed["summarize"][3]
    text = "\n".join(tasks().lines(as_json=False))
    assert text.startswith("task ") and "summarize" in text


def test_every_family_is_listed_with_what_it_can_do() -> None:
    rows = {row["family"]: row for row in named(models().families)}
    assert list(rows) == registry.names("families")
    assert (
        rows["t5"]["pretraining"] == "span corruption" and "t5-mini" in rows["t5"]["from scratch"]
    )
    assert rows["t5"]["export"] == "huggingface"
    assert rows["llama"]["export"] == "huggingface, gguf"
    assert "summarize" in rows["llama"]["tasks"] and "entities" not in rows["llama"]["tasks"]
    assert "entities" in rows["bert"]["tasks"] and "summarize" not in rows["bert"]["tasks"]
    assert rows["whisper"]["tasks"] == "transcribe (use only)"


def test_what_can_be_fetched_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    found = {row["model"]: row for row in named(models().models)}
    assert found["starter"]["where"] == "not here: mainspring get starter"
    for name, part in TABLE["starter"].files.items():
        (tmp_path / "starter").mkdir()
        with (tmp_path / "starter" / name).open("wb") as file:
            file.truncate(part.size)
    found = {row["model"]: row for row in named(models().models)}
    assert found["starter"]["where"] == str(tmp_path / "starter")
    assert found["minilm"]["where"] == "not here: mainspring get minilm"
    assert found["starter"]["family"] == "llama" and found["starter"]["size"] == "98 MB"


def test_models_in_the_cache_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    revision = tmp_path / "models--someone--nano" / "snapshots" / ("a" * 40)
    nano.bundle().save(revision)
    refs = revision.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path))
    [found] = cached_models()
    assert (found.name, found.family) == ("someone/nano", "t5")
    assert Path(found.where) == revision
    assert ("someone/nano", "t5", "0 MB", str(revision)) in models().models.rows


def test_a_listing_is_one_json_object() -> None:
    [line] = tasks().lines(as_json=True)
    printed = json.loads(line)
    assert [entry["task"] for entry in printed["tasks"]] == registry.names("tasks")
    [line] = models().lines(as_json=True)
    printed = json.loads(line)
    assert [entry["family"] for entry in printed["families"]] == registry.names("families")
    assert {"starter", "minilm"} <= {entry["model"] for entry in printed["models"]}
    text = [*models().lines(as_json=False)]
    assert text[0].startswith("family ") and any(line.startswith("model ") for line in text)


def test_values_are_checked_for_calls_from_python() -> None:
    options = {"schedule": "cosine", "optimizer": "adamw", "precision": "auto", "device": "cpu"}
    check_values(fit, {**options, "tokenizer": "unigram"})
    check_values(fit, {"steps": np.int64(3), "minutes": 2.5, "seed": 0, "lora": None})
    for steps in (2.5, "3"):
        with pytest.raises(BadOption, match="--steps must be a whole number"):
            check_values(fit, {"steps": steps})
    [option] = [option for option in ANSWER.options if option.name == "n_best"]
    assert option.read(2.0) == option.read("2") == 2
    with pytest.raises(BadOption, match=r"--n-best must be a whole number, not 2\.5"):
        option.read(2.5)
