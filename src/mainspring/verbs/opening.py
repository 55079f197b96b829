"""A model opened for a task: what `run` and `evaluate` share."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mainspring import events
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.checkpoints.speech import decoding, front_end
from mainspring.compute.precision import ready
from mainspring.core.model import Transformer
from mainspring.errors import BadOption
from mainspring.formulations import (
    Formulation,
    Inference,
    Limits,
    OnLong,
    Prediction,
    Setup,
    Values,
)
from mainspring.formulations.prediction import generation_options, tokenizer_of
from mainspring.generation.constrained import Constraint
from mainspring.tasks import Task, choose_formulation
from mainspring.tasks.settings import check_source, check_taught, setup_of

SAMPLING = ("temperature", "top_k", "top_p", "min_p")


@dataclass(frozen=True)
class Opened:
    """A checkpoint and how it is to be used for one task; `megabytes` are its weights in memory."""

    name: str
    bundle: Bundle
    formulation: Formulation
    setup: Setup
    how: Inference
    precision: str
    megabytes: float

    def predict(
        self,
        rows: Iterable[Values],
        on_done: Callable[[int], None],
        on_text: Callable[[str], None] | None = None,
    ) -> Iterator[Prediction]:
        """A prediction for each row, in order."""
        answer = self.formulation.predict
        assert answer is not None
        return answer(self.bundle, rows, self.setup, self.how, on_done, on_text)


@dataclass(frozen=True)
class Use:
    """How a model is to be opened and used, as the user says it. `constraint` is an option and the
    grammar it states, which all that is written must fit."""

    model: str
    max_source: int | None
    generation: Mapping[str, Any]
    on_long: OnLong
    precision: str
    device: str
    options: Mapping[str, Any]
    constraint: tuple[str, str] | None = None


def model_for(task: Task, named: str | None) -> str:
    """The model that was named, or the one that serves the task where none was, which is said."""
    if named is not None:
        return named
    if task.model is None:
        raise BadOption(f"name a model for `{task.name}`: --model FOLDER")
    events.note(f"no --model: using `{task.model}`")
    return task.model


def open_for(task: Task, use: Use) -> Opened:
    """Loads the model, checks that it can do `task`, and prepares it for inference."""
    if use.max_source is not None and use.max_source < 4:
        raise BadOption("--max-source must be at least 4")
    bundle = load(use.model)
    formulation = choose_formulation(task, bundle.spec)
    if formulation.predict is None:
        raise BadOption(f"`{task.name}` is for training; it has no predictions")
    if use.constraint is not None and not formulation.holds:
        raise BadOption(
            f"{use.constraint[0]}: {formulation.name} does not write one text that could be held "
            "to it; tasks that do: generate, summarize, answer"
        )
    check_source(use.max_source, bundle.spec)
    found = setup_of(bundle, task)
    check_taught(bundle, task, use.model, by_head=formulation.head is not None)
    setup = replace(
        found,
        limits=Limits(use.max_source or found.limits.source, found.limits.target),
        options={**found.options, **use.options},
    )
    for option in task.options:
        taught, asked = (of.get(option.name) for of in (found.options, use.options))
        if option.taught and taught is not None and asked not in (None, taught):
            flag = f"--{option.name.replace('_', '-')}"
            events.warn(f"{flag} {asked}: {use.model} was taught with {taught} and may not know it")
    options = None
    if formulation.generates:
        if bundle.hears:
            options = decoding(bundle, use.generation)
        else:
            options = generation_options(bundle.generation, setup.limits, use.generation)
        idle = [name for name in SAMPLING if name in use.generation and not options.do_sample]
        _warn_of_no_effect(idle, " without --do-sample")
    else:
        _warn_of_no_effect(
            [name for name in use.generation if name != "seed"], ": nothing is generated"
        )
    prepared = ready(bundle.model, use.precision, use.device)
    if bundle.hears:
        mel = front_end(bundle)
        events.note(f"{use.model}: hears {mel.window / mel.rate:g} s at a time")
    else:
        events.note(f"{use.model}: reads {setup.limits.source} tokens, prefix {setup.prefix!r}")

    def prepare_alike(other: Transformer) -> None:
        ready(other, use.precision, use.device)

    constraint = None
    if use.constraint is not None:
        constraint = Constraint(use.constraint[1], tokenizer_of(bundle).writer)
    how = Inference(options, use.on_long, prepare=prepare_alike, constraint=constraint)
    megabytes = prepared.bytes_after / 1e6
    return Opened(use.model, bundle, formulation, setup, how, prepared.precision, megabytes)


def _warn_of_no_effect(names: Sequence[str], why: str) -> None:
    if names:
        flags = ", ".join("--" + name.replace("_", "-") for name in names)
        events.warn(f"{flags}: no effect{why}")
