"""What is compared with transformers' example code: each task's data, metric and settings."""

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.example_contestants import read_rows
from mainspring.data.entities import tagged_entities
from mainspring.data.relations import relation_values
from mainspring.metrics import answers, entities, relations
from mainspring.tasks.entities import of_words

SHUFFLE = 0  # seed of which rows are taken, the same for all

Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """How one task is compared.

    `splits(data)` are all its training, validation and test rows. `wanted(row)` is what the metric
    compares with, `theirs(row, said)` brings what the example code said into the same terms.
    `scores` are shown, the first is the one that counts. With `one_epoch` the training rows are as
    many as the steps take, else all. `options` are further words of `fit`.
    """

    task: str
    title: str
    metric: Any
    scores: tuple[str, ...]
    steps: int
    rate: float
    longest: int
    splits: Callable[[Path], tuple[list[Row], list[Row], list[Row]]]
    wanted: Callable[[Row], Any]
    theirs: Callable[[Row, Any], Any]
    rows: int = 16
    stride: int = 0
    one_epoch: bool = False
    test_rows: int | None = None
    options: str = ""

    @property
    def train_rows(self) -> int | None:
        """How many training rows are drawn; None for all."""
        return self.steps * self.rows if self.one_epoch else None


# -- the tasks -------------------------------------------------------------------------------------


def _conll(file: Path) -> list[Row]:
    rows: list[Row] = []
    for block in file.read_text(encoding="utf-8").split("\n\n"):
        pairs = [line.rsplit("\t", 1) for line in block.splitlines() if line.strip()]
        if pairs:
            words, tags = zip(*pairs, strict=True)
            rows.append({"tokens": list(words), "ner_tags": list(tags)})
    return rows


def _wnut(data: Path) -> tuple[list[Row], list[Row], list[Row]]:
    folder = data / "ner" / "wnut17"
    train, valid, test = (_conll(folder / f"{s}.conll") for s in ("train", "validation", "test"))
    return train, valid, test


def _semeval(data: Path) -> tuple[list[Row], list[Row], list[Row]]:
    folder = data / "relation_extraction" / "semeval2010_task8"
    train, valid, test = (read_rows(folder / f"{s}.jsonl") for s in ("train", "validation", "test"))
    return train, valid, test


def _squad(data: Path) -> tuple[list[Row], list[Row], list[Row]]:
    """Rows as the example code has them; the last tenth of the shuffled training rows validates."""
    import gzip

    folder = data / "qa" / "squad_v1.1"
    with gzip.open(folder / "train-v1.1.json.gz", "rt", encoding="utf-8") as file:
        train = list(_questions(json.load(file)))
    test = list(_questions(json.loads((folder / "dev-v1.1.json").read_text(encoding="utf-8"))))
    train = drawn(train, len(train))
    held = len(train) // 10
    return train[:-held], train[-held:], test


def _questions(file: dict[str, Any]) -> Iterable[Row]:
    for article in file["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                yield {
                    "question": asked["question"],
                    "context": paragraph["context"],
                    "answers": {
                        name: [answer[name] for answer in asked["answers"]]
                        for name in ("text", "answer_start")
                    },
                }


def drawn(rows: Sequence[Row], count: int | None) -> list[Row]:
    """So many of the rows, drawn at random but always the same; all of them in their own order."""
    if count is None:
        return list(rows)
    return random.Random(SHUFFLE).sample(rows, min(count, len(rows)))


def _entities_wanted(row: Row) -> Any:
    return of_words({"words": row["tokens"], "entities": row["ner_tags"]})["entities"]


def _entities_said(row: Row, tags: Any) -> Any:
    return tagged_entities(of_words({"words": row["tokens"]})["words"], tags)[0]


def _related(row: Row, name: str) -> Any:
    return relation_values({**row, "relations": name})["relations"]


COMPARISONS = (
    Comparison(
        "entities",
        "entities of WNUT 2017",
        entities.METRIC,
        ("f1", "precision", "recall"),
        steps=300,
        rate=3e-4,
        longest=128,
        splits=_wnut,
        wanted=_entities_wanted,
        theirs=_entities_said,
    ),
    Comparison(
        "relations",
        "relations of SemEval-2010 task 8",
        relations.METRIC,
        ("macro_f1", "micro_f1"),
        steps=300,
        rate=3e-4,
        longest=128,
        splits=_semeval,
        wanted=lambda row: _related(row, row["relation"]),
        theirs=_related,
    ),
    Comparison(
        "answer",
        "answers of SQuAD 1.1",
        answers.METRIC,
        ("f1", "exact"),
        steps=90,
        rate=3e-4,
        longest=256,
        splits=_squad,
        wanted=lambda row: [{"text": text} for text in row["answers"]["text"]],
        theirs=lambda row, said: said,
        stride=128,
        one_epoch=True,
        test_rows=1000,
        options="--stride 128",
    ),
)
