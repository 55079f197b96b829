"""Who fine-tunes an encoder as transformers' example scripts do: their tokenization, labels,
collators, Trainer with AdamW and a linear schedule, and their way from logits to answers.

    entities    examples/pytorch/token-classification/run_ner.py
    relations   examples/pytorch/text-classification/run_classification.py, markers around the two
                entities as tokens of their own
    answer      examples/pytorch/question-answering/run_qa.py

Everyone pads to the longest row of a batch, where two of the scripts would pad to the limit.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.turns import Turns

DECAY, CLIP, WARMUP = 0.01, 1.0, 0.03
AT_ONCE = 32  # rows of a batch of predictions
BEST, LONGEST = 20, 30  # starts and ends that are tried, tokens of an answer
IGNORED = -100
MARKERS = ("[E1]", "[/E1]", "[E2]", "[/E2]")

Row = dict[str, Any]
Feature = dict[str, Any]


@dataclass(frozen=True)
class ExampleSetup:
    """What one contestant trains. `train` is a JSONL file; `rows` are examples a step; `longest`
    the tokens of one, `stride` what windows of a long text share."""

    task: str
    folder: Path
    train: Path
    steps: int
    rows: int
    rate: float
    longest: int
    stride: int
    seed: int
    threads: int


@dataclass(frozen=True)
class Lengths:
    """A request: the tokens of every training example."""


@dataclass(frozen=True)
class Learn:
    """A request: all steps. The answer is a `Learned`."""


@dataclass(frozen=True)
class Predict:
    """A request: the rows of a JSONL file, answered in the task's own terms (tags of the words, the
    name of the relation, the answer)."""

    file: Path


@dataclass(frozen=True)
class Learned:
    """What the training came to; `tokens` are real ones."""

    seconds: float
    tokens: int
    rows: int
    losses: list[float]


@dataclass(frozen=True)
class Example:
    """What an example script is made of: a model, training features of rows, a collator, and
    predictions of rows."""

    model: Any
    features: list[Feature]
    collate: Callable[[list[Feature]], dict[str, Any]]
    predict: Callable[[Sequence[Row]], Iterator[Any]]


def read_rows(file: Path) -> list[Row]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def example(setup: ExampleSetup, turns: Turns) -> None:
    """The contestant."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(setup.threads)
    transformers.set_seed(setup.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(setup.folder)
    made = BUILDERS[setup.task](setup, tokenizer, read_rows(setup.train))
    turns.answer(f"transformers {transformers.__version__}, {type(made.model).__name__}, float32")
    for request in turns:
        match request:
            case Lengths():
                turns.answer([len(feature["input_ids"]) for feature in made.features])
            case Learn():
                turns.answer(_learn(setup, made))
            case Predict(file):
                made.model.eval()
                turns.answer(list(made.predict(read_rows(file))))


def _learn(setup: ExampleSetup, made: Example) -> Learned:
    """The Trainer with its defaults but for what both contestants are told."""
    import logging
    import tempfile

    import transformers

    logging.getLogger("accelerate").setLevel(logging.ERROR)
    seen = {"tokens": 0, "rows": 0}
    losses: list[Any] = []

    class Counting(transformers.Trainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            seen["tokens"] += int(inputs["attention_mask"].sum())
            seen["rows"] += len(inputs["input_ids"])
            losses.append(super().training_step(model, inputs, *rest, **named))
            return losses[-1]

    with tempfile.TemporaryDirectory() as scratch:
        arguments = transformers.TrainingArguments(
            output_dir=scratch,
            use_cpu=True,
            per_device_train_batch_size=setup.rows,
            learning_rate=setup.rate,
            weight_decay=DECAY,
            max_grad_norm=CLIP,
            lr_scheduler_type="linear",
            warmup_steps=max(1, math.ceil(WARMUP * setup.steps)),
            max_steps=setup.steps,
            seed=setup.seed,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = Counting(
            model=made.model,
            args=arguments,
            train_dataset=made.features,
            data_collator=made.collate,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    return Learned(seconds, seen["tokens"], seen["rows"], [float(loss) for loss in losses])


def _logits(
    model: Any, features: Sequence[Feature], collate: Callable[[list[Feature]], Any]
) -> Iterator[Any]:
    """The model's output for each feature: an object of tensors without the batch dimension."""
    import torch

    with torch.inference_mode():
        for at in range(0, len(features), AT_ONCE):
            part = list(features[at : at + AT_ONCE])
            found = model(**collate(part))
            yield from (
                {name: tensor[row] for name, tensor in found.items()} for row in range(len(part))
            )


# -- entities --------------------------------------------------------------------------------------


def entities(setup: ExampleSetup, tokenizer: Any, rows: list[Row]) -> Example:
    """Each word is tagged at its first token; the others carry no loss."""
    import transformers

    names = sorted({tag for row in rows for tag in row["ner_tags"]})
    number = {name: at for at, name in enumerate(names)}
    model = transformers.AutoModelForTokenClassification.from_pretrained(
        setup.folder, num_labels=len(names), id2label=dict(enumerate(names)), label2id=number
    )
    collate = transformers.DataCollatorForTokenClassification(tokenizer)
    plain = transformers.DataCollatorWithPadding(tokenizer)

    def encoded(part: Sequence[Row]) -> Any:
        return tokenizer(
            [row["tokens"] for row in part],
            is_split_into_words=True,
            truncation=True,
            max_length=setup.longest,
        )

    def firsts(words: Sequence[int | None]) -> Iterator[tuple[int, int]]:
        """(token, word) of the first token of each word."""
        for at, word in enumerate(words):
            if word is not None and (at == 0 or words[at - 1] != word):
                yield at, word

    def labels(row: Row, words: Sequence[int | None]) -> list[int]:
        found = [IGNORED] * len(words)
        for at, word in firsts(words):
            found[at] = number[row["ner_tags"][word]]
        return found

    def predict(part: Sequence[Row]) -> Iterator[list[str]]:
        batch = encoded(part)
        outputs = _logits(model, _features(batch), plain)
        for at, (row, output) in enumerate(zip(part, outputs, strict=True)):
            chosen = output["logits"].argmax(-1).tolist()
            tags = ["O"] * len(row["tokens"])  # of words beyond the limit too
            for token, word in firsts(batch.word_ids(at)):
                tags[word] = names[chosen[token]]
            yield tags

    batch = encoded(rows)
    features = [
        {**feature, "labels": labels(row, batch.word_ids(at))}
        for at, (row, feature) in enumerate(zip(rows, _features(batch), strict=True))
    ]
    return Example(model, features, collate, predict)


def _features(batch: Any) -> list[Feature]:
    """An encoding of many texts as one feature for each."""
    names = [name for name in ("input_ids", "token_type_ids", "attention_mask") if name in batch]
    columns = [batch[name] for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


# -- relations -------------------------------------------------------------------------------------


def marked(row: Row) -> str:
    """A sentence with markers around its two entities."""
    places = sorted(
        (at, mark)
        for side, name in enumerate(("head", "tail"))
        for at, mark in zip(row[f"{name}_span"], MARKERS[2 * side :], strict=False)
    )
    text, last, parts = row["text"], 0, []
    for at, mark in places:
        parts += [text[last:at], f" {mark} "]
        last = at
    return "".join([*parts, text[last:]])


def relations(setup: ExampleSetup, tokenizer: Any, rows: list[Row]) -> Example:
    """A marked sentence gets one of the relations' names, read off the first token."""
    import transformers

    names = sorted({row["relation"] for row in rows})
    number = {name: at for at, name in enumerate(names)}
    tokenizer.add_tokens(list(MARKERS), special_tokens=True)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        setup.folder, num_labels=len(names), id2label=dict(enumerate(names)), label2id=number
    )
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    collate = transformers.DataCollatorWithPadding(tokenizer)

    def encoded(part: Sequence[Row]) -> list[Feature]:
        texts = [marked(row) for row in part]
        return _features(tokenizer(texts, truncation=True, max_length=setup.longest))

    def predict(part: Sequence[Row]) -> Iterator[str]:
        for output in _logits(model, encoded(part), collate):
            yield names[int(output["logits"].argmax())]

    features = [
        {**feature, "label": number[row["relation"]]}
        for row, feature in zip(rows, encoded(rows), strict=True)
    ]
    return Example(model, features, collate, predict)


# -- answer ----------------------------------------------------------------------------------------


def answer(setup: ExampleSetup, tokenizer: Any, rows: list[Row]) -> Example:
    """Questions and windows of their texts; windows without the answer point at the first token."""
    import transformers

    model = transformers.AutoModelForQuestionAnswering.from_pretrained(setup.folder)
    collate = transformers.DataCollatorWithPadding(tokenizer)

    def encoded(part: Sequence[Row]) -> Any:
        return tokenizer(
            [row["question"].lstrip() for row in part],
            [row["context"] for row in part],
            truncation="only_second",
            max_length=setup.longest,
            stride=setup.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )

    def in_context(batch: Any, window: int) -> dict[int, tuple[int, int]]:
        """Token -> the characters it stands for, of the context's tokens."""
        sides, offsets = batch.sequence_ids(window), batch["offset_mapping"][window]
        return {at: tuple(offsets[at]) for at, side in enumerate(sides) if side == 1}

    def places(row: Row, tokens: dict[int, tuple[int, int]]) -> dict[str, int]:
        """The first and the last token of the answer, the first of all where it is not there."""
        [text, *_], [start, *_] = row["answers"]["text"], row["answers"]["answer_start"]
        end = start + len(text)
        inside = [at for at, (a, b) in tokens.items() if a < end and b > start]
        whole = inside and tokens[inside[0]][0] <= start and tokens[inside[-1]][1] >= end
        first, last = (inside[0], inside[-1]) if whole else (0, 0)
        return {"start_positions": first, "end_positions": last}

    def predict(part: Sequence[Row]) -> Iterator[str]:
        batch = encoded(part)
        of_row: dict[int, list[tuple[float, int, int]]] = {at: [] for at in range(len(part))}
        windows = zip(
            batch["overflow_to_sample_mapping"],
            _logits(model, _features(batch), collate),
            strict=True,
        )
        for window, (row, output) in enumerate(windows):
            start, end = output["start_logits"].tolist(), output["end_logits"].tolist()
            of_row[row] += _spans(start, end, in_context(batch, window))
        for at, row in enumerate(part):
            _, first, last = max(of_row[at], default=(0.0, 0, 0))
            yield row["context"][first:last]

    batch = encoded(rows)
    features = [
        {**feature, **places(rows[batch["overflow_to_sample_mapping"][at]], in_context(batch, at))}
        for at, feature in enumerate(_features(batch))
    ]
    return Example(model, features, collate, predict)


def _spans(
    start: Sequence[float], end: Sequence[float], tokens: dict[int, tuple[int, int]]
) -> Iterator[tuple[float, int, int]]:
    """(score, first character, one past the last) of the spans between the best starts and the best
    ends that lie in the context and are short enough."""

    def best(logits: Sequence[float]) -> list[int]:
        return sorted(range(len(logits)), key=lambda at: -logits[at])[:BEST]

    for first in best(start):
        for last in best(end):
            if first in tokens and last in tokens and first <= last < first + LONGEST:
                yield start[first] + end[last], tokens[first][0], tokens[last][1]


BUILDERS: dict[str, Callable[[ExampleSetup, Any, list[Row]], Example]] = {
    "entities": entities,
    "relations": relations,
    "answer": answer,
}
