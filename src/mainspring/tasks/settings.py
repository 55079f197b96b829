"""What a fine-tuned folder remembers of its task: `mainspring.json` beside the weights."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mainspring import events
from mainspring.checkpoints.bundle import Bundle
from mainspring.errors import BadOption, BadWeights, Mismatch
from mainspring.formulations import Limits, Setup
from mainspring.spec import Learned, Model, Sinusoidal, Stack
from mainspring.tasks import Task, checkpoint_prefix

FILE = "mainspring.json"
FORMAT = 1


def setup_bytes(task: str, setup: Setup) -> bytes:
    """The file's content."""
    record = {"format": FORMAT, "task": task, **asdict(setup)}
    return json.dumps(record, indent=1, ensure_ascii=False).encode()


def setup_of(bundle: Bundle, task: Task) -> Setup:
    """The setup that a checkpoint carries for `task`, or what its config and the task suggest."""
    data = bundle.extra_files.get(FILE)
    if data is not None:
        try:
            stored = json.loads(data)
            setup = Setup(
                Limits(**stored["limits"]),
                str(stored["prefix"]),
                str(stored.get("suffix", "")),
                tuple(stored.get("labels", ())),
                {**task.defaults, **stored.get("options", {})},
            )
            name = stored["task"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadWeights(f"{FILE}: cannot be read ({error}); fit writes it anew") from None
        if stored.get("format") != FORMAT:
            raise Mismatch(f"{FILE}: format {stored.get('format')}, this release reads {FORMAT}")
        if name == task.name:
            return setup
    limits = task.limits
    longest = bundle.config.get("n_positions")  # T5 v1.0 states what it was trained on
    if isinstance(longest, int) and bundle.spec.encoder is not None:
        limits = Limits(longest, limits.target)
    limits = within(limits, bundle.spec)
    if bundle.spec.encoder is None and "vocabulary" in dict(bundle.spec.heads):
        return Setup(limits, task.instruction, task.cue, options=task.defaults)
    prefix = checkpoint_prefix(task, bundle.config)
    keys = {key for formulation in task.formulations for key in formulation.config_keys}
    kept = {key: bundle.config[key] for key in keys if bundle.config.get(key) is not None}
    return Setup(limits, prefix, labels=_labels(bundle), options={**task.defaults, **kept})


def check_taught(bundle: Bundle, task: Task, name: str, *, by_head: bool) -> None:
    """What is said of the model `name` where `fit` taught it another task: Mismatch where a head
    answers, whose labels are that task's; else a note."""
    data = bundle.extra_files.get(FILE)
    taught = None if data is None else json.loads(data)["task"]
    if taught in (None, task.name):
        return
    if by_head:
        raise Mismatch(f"{name} was taught `{taught}` and cannot do `{task.name}`")
    events.note(f"{name} was taught `{taught}`, not `{task.name}`")


def remembered(model: str, task: Task) -> dict[str, Any]:
    """The options of `task` that a folder written by `fit` remembers, read without its weights."""
    file = Path(model) / FILE
    if not file.is_file():
        return {}
    try:
        stored = json.loads(file.read_bytes())
        return dict(stored["options"]) if stored["task"] == task.name else {}
    except (ValueError, KeyError, TypeError):
        return {}  # opening the model says what is wrong


def within(limits: Limits, model: Model) -> Limits:
    """The limits, no longer than the positions that the model has vectors for. A decoder alone
    reads source and target in one row."""
    source, target = limits.source, limits.target
    if model.decoder is not None:
        target = min(target, _positions(model.decoder))
    if model.encoder is not None:
        return Limits(min(source, _positions(model.encoder)), target)
    assert model.decoder is not None
    room = _positions(model.decoder)
    target = min(target, room // 2)
    return Limits(min(source, room - target), target)


def check_source(tokens: int | None, model: Model) -> None:
    """BadOption where the model has no vectors for so many positions."""
    stack = model.encoder or model.decoder
    assert stack is not None
    if tokens is not None and tokens > _positions(stack):
        raise BadOption(f"--max-source {tokens}: the model has {_positions(stack)} positions")


def _positions(stack: Stack) -> int:
    match stack.positions:
        case Learned(length=length) | Sinusoidal(length=length):
            return length
        case _:
            return sys.maxsize


def _labels(bundle: Bundle) -> tuple[str, ...]:
    """The names of a classifier's outputs, where its config has any."""
    named = bundle.config.get("id2label") or {}
    return tuple(str(name) for _, name in sorted((int(i), name) for i, name in named.items()))
