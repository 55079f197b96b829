"""The contract of a task says what does not hold."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nano
from mainspring import registry
from mainspring.data.schema import Field
from mainspring.families.bert import FAMILY
from mainspring.metrics import Metric
from mainspring.tasks import Task
from mainspring.tasks.summarize import TASK as SUMMARIZE
from mainspring.testing import check_metric, check_reading, check_task, check_task_record

ROWS = nano.pairs(12)


@pytest.mark.parametrize("name", registry.names("tasks"))
def test_every_task_has_a_whole_record(name: str) -> None:
    check_task_record(registry.find("tasks", name), name)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "other"}, "calls itself `other`"),
        ({"help": "A sentence."}, "without a full stop"),
        ({"formulations": ()}, "no formulation"),
        ({"metric": None}, "the loss is the score"),
        ({"fields": SUMMARIZE.fields[:1]}, "needs a target"),
        ({"fields": (replace(SUMMARIZE.text, kind="poem"),)}, "no kind `poem`"),
        ({"fields": (replace(SUMMARIZE.text, accepted=()),)}, "lacks column names"),
    ],
)
def test_a_record_that_is_not_whole(changes: dict[str, Any], told: str) -> None:
    broken: Task = replace(SUMMARIZE, **changes)
    with pytest.raises(AssertionError, match=told):
        check_task_record(broken, "summarize")


def test_a_metric_that_likes_wrong_answers() -> None:
    metric = Metric(
        lambda made, wanted, kind: [{"score": float(a != b)} for a, b in zip(made, wanted)],  # noqa: B905
        lambda kind: "upside down",
    )
    with pytest.raises(AssertionError, match="`rougeLsum` is none of the scores: score"):
        check_metric(replace(SUMMARIZE, metric=metric), ["a", "b"])
    with pytest.raises(AssertionError, match="score higher than right ones"):
        check_metric(replace(SUMMARIZE, metric=metric, best="score"), ["a", "b"])


def test_data_that_a_task_does_not_use(tmp_path: Path) -> None:
    data = nano.write_jsonl(ROWS, tmp_path / "rows.jsonl")
    assert len(check_reading(SUMMARIZE, data, len(ROWS))) == len(ROWS)
    careless = Field("text", "any", ("article",), "anything")
    with pytest.raises(AssertionError, match="nothing in it is not listed"):
        check_reading(replace(SUMMARIZE, fields=(careless,)), data, len(ROWS))


@pytest.mark.slow
def test_entities_keep_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    monkeypatch.setitem(FAMILY.sizes, "bert-nano", {**FAMILY.sizes["bert-tiny"], **tiny})
    rows = [
        {"tokens": [name, "lives", "in", place], "tags": ["B-PER", "O", "O", "B-LOC"]}
        for name in ("Anna", "Boris", "Clara", "David")
        for place in ("Rome", "Oslo", "Lima")
    ]
    check_task("entities", rows, from_scratch="bert-nano", vocabulary=300)


def test_too_little_data_is_said() -> None:
    with pytest.raises(AssertionError, match="at least eight rows"):
        check_task("summarize", ROWS[:3], from_scratch="t5-tiny")
