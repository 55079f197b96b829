"""Tasks: the words people use. One short file each; the machinery is in `formulations`."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mainspring.data.kinds import KINDS, Flaw
from mainspring.data.rows import Row
from mainspring.data.schema import Field, Layout
from mainspring.errors import BadOption, Mismatch, Range
from mainspring.formulations import Formulation, Limits, Values
from mainspring.metrics import Metric
from mainspring.spec import Model


@dataclass(frozen=True)
class Option:
    """A task's own option: `--name VALUE` in the verbs it has a meaning for.

    `least` and `most` are the smallest and the largest number it may be. What `fit` is told the
    model remembers; `learnt` is False where the option has no meaning for `fit`, and `taught` True
    where the model knows only what it was told.
    """

    name: str
    help: str
    kind: type[str] | type[int] | type[float] = str
    default: str | int | float | None = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    learnt: bool = True
    taught: bool = False

    def read(self, given: Any) -> Any:
        """A value as given in words, in its own type; BadOption where it is none."""
        flag = f"--{self.name.replace('_', '-')}"
        try:
            value = self.kind(given)
        except ValueError:
            value = None
        whole = self.kind is int
        if value is None or (whole and isinstance(given, float) and value != given):
            raise BadOption(f"{flag} must be a {'whole ' * whole}number, not {given!r}")
        if self.choices and value not in self.choices:
            raise BadOption.unknown(flag, str(value), self.choices)
        if not isinstance(value, str):
            Range(self.least, self.most).check(flag, value)
        return value


def shown(value: Any) -> str:
    """An answer as a person reads it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Task:
    """What a task is called, what it reads, how it is posed, and how it is scored.

    `fields` are what a row of its data has, in the task's own terms: inputs, and the target where
    there is one. They feed the reader, the command line and the docs; the first text among them is
    what a bare text given to `run` is taken for. `layouts` are other columns that data may come in,
    tried where those of `fields` are not there, and `unfold` makes rows of a nested one. An input
    that is missing may be given for all rows by an option of its name. `values` completes a row's
    values, as that of a layout does. `by_columns(task, options, columns, named)` gives the task
    that the options, the columns of the data and the fields whose column was named make of it, and
    options that follow from them; `variant(task, options)` what `run` and `evaluate` take for this
    task under these options.

    `formulations` are tried in order: the first whose needs the model meets serves. `output` names
    the column a prediction is written to, `show` puts one into words. `limits` are the token limits
    used where neither the user nor the checkpoint says any. `prompt` is the key under which a
    checkpoint's `task_specific_params` may keep this task's prefix, and `prefix` what it is where
    several keys begin so; `instruction` and `cue` are what a decoder-only model is told before and
    behind the text. `metric` is None where the loss itself is the score; `best` is the score that
    picks the best checkpoint. `options` are the task's own. `model` is the checkpoint that serves
    where the user names none; without one the user must.
    """

    name: str
    help: str
    fields: tuple[Field, ...]
    formulations: tuple[Formulation, ...]
    output: str
    best: str
    metric: Metric | None = None
    prompt: str = ""
    prefix: str = ""
    instruction: str = ""
    cue: str = ""
    limits: Limits = field(default_factory=lambda: Limits(512, 128))
    layouts: tuple[Layout, ...] = ()
    values: Callable[[Values], Values] = lambda values: values
    unfold: Callable[[Row], Iterable[Row]] | None = None
    by_columns: "ByColumns | None" = None
    options: tuple[Option, ...] = ()
    model: str | None = None
    show: Callable[[Any], str] = shown
    variant: "Callable[[Task, Values], Task]" = lambda task, options: task

    @property
    def higher_is_better(self) -> bool:
        """Losses and rates of errors fall, every other score rises."""
        return self.best not in ("loss", *(self.metric.errors if self.metric else ()))

    @property
    def inputs(self) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.role == "input")

    @property
    def target(self) -> Field | None:
        """What is learnt and compared with; None where a text is its own target."""
        return next((field for field in self.fields if field.role == "target"), None)

    @property
    def text(self) -> Field:
        """The input that a bare word of `run` is taken for: a text, or the name of a sound file."""
        return next(field for field in self.inputs if field.kind in ("text", "audio"))

    @property
    def defaults(self) -> Values:
        """The options that have a value without being told."""
        return {o.name: o.default for o in self.options if o.default is not None}

    def read_options(self, given: Mapping[str, Any], known: Sequence[str]) -> Values:
        """The task's own options as given, in their types. Inputs may be given too.

        BadOption offers the nearest name, also among those `known` to the verb.
        """
        mine = {option.name: option for option in self.options}
        fields = {field.name: field for field in self.inputs}
        values: Values = {}
        for word, value in given.items():
            name = word.replace("-", "_")
            if name in mine:
                values[name] = mine[name].read(value)
            elif name in fields:
                values[name] = _checked(fields[name], value)
            else:
                names = ["--" + n.replace("_", "-") for n in (*mine, *fields, *known)]
                raise BadOption.unknown("option", "--" + name.replace("_", "-"), names)
        return values

    def apart(self, given: Values) -> tuple[Values, Values]:
        """What `read_options` gives, as the inputs in it and the task's own options."""
        fields = {field.name for field in self.inputs}
        inputs = {name: value for name, value in given.items() if name in fields}
        return inputs, {name: value for name, value in given.items() if name not in fields}


ByColumns = Callable[[Task, Values, Sequence[str], Mapping[str, str]], tuple[Task, Values]]


def _checked(field: Field, value: Any) -> Any:
    """An input that is given by an option; BadOption where it is none."""
    try:
        return KINDS[field.kind](value)
    except Flaw as flaw:
        flag = f"--{field.name.replace('_', '-')}"
        raise BadOption(f"{flag}: {flaw.reason}{flaw.detail}; it must hold {field.help}") from None


def choose_formulation(task: Task, model: Model, to: Literal["use", "fit"] = "use") -> Formulation:
    """The first of the task's formulations that the model can serve; Mismatch where none can.

    To be fitted a model may lack the head: it is given one.
    """
    heads = dict(model.heads)
    reasons = []
    for formulation in task.formulations:
        lack = formulation.lacks(model)
        if lack is None and formulation.head not in (None, *heads) and to == "use":
            lack = (
                f"a `{formulation.head}` head, which `mainspring fit {task.name} DATA --model "
                "MODEL` gives it"
            )
        if lack is None:
            return formulation
        reasons.append(f"{formulation.name} needs {lack}")
    hint = ""
    if to == "use" and task.formulations[0].head == "classes" and _writes_alone(model):
        hint = (
            ". Without rows to learn from, a model that writes can choose between labels: "
            "`mainspring run generate TEXTS --choices LABEL LABEL`"
        )
    raise Mismatch(f"this model cannot do `{task.name}`: {'; '.join(reasons)}{hint}")


def _writes_alone(model: Model) -> bool:
    return model.encoder is None and model.vocabulary_head is not None


def checkpoint_prefix(task: Task, config: Mapping) -> str:
    """The prefix a checkpoint's config asks for before this task's input, or none."""
    params = config.get("task_specific_params") or {}
    if task.prompt and task.prefix and any(key.startswith(task.prompt) for key in params):
        return task.prefix
    return str((params.get(task.prompt) or {}).get("prefix", ""))
