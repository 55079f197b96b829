import json
from pathlib import Path

import pytest

import nano
from mainspring import registry
from mainspring.verbs import check_choices
from mainspring.verbs.fit import fit
from mainspring.verbs.listing import cached_models, models, tasks


def test_every_task_is_listed_with_its_columns() -> None:
    listed = {row[0]: row for row in tasks().rows}
    assert list(listed) == registry.names("tasks")
    assert "text: text, article, document" in listed["summarize"][3]
    text = "\n".join(tasks().lines(as_json=False))
    assert text.startswith("task ") and "summarize" in text


def test_every_family_is_listed_with_its_sizes() -> None:
    rows = {row[1]: row for row in models().rows if row[0] == "family"}
    assert list(rows) == registry.names("families")
    assert "t5-mini" in rows["t5"][3]


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
    assert ("on disk", "someone/nano", "t5", "0 MB") in models().rows


def test_a_listing_is_one_json_object() -> None:
    [line] = tasks().lines(as_json=True)
    printed = json.loads(line)
    assert [entry["task"] for entry in printed["tasks"]] == registry.names("tasks")
    [line] = models().lines(as_json=True)
    assert {entry["kind"] for entry in json.loads(line)["models"]} >= {"family"}


def test_choices_are_checked_for_calls_from_python() -> None:
    options = {"schedule": "cosine", "optimizer": "adamw", "precision": "auto", "device": "cpu"}
    check_choices(fit, {**options, "tokenizer": "unigram"})
