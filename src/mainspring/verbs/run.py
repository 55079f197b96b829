"""`run`: applies a model to texts, files, folders, tables or standard input."""

import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mainspring import registry
from mainspring.events import Answer, emit
from mainspring.threads import wait_politely
from mainspring.verbs import check_values, given_inputs
from mainspring.verbs.output import json_line

if TYPE_CHECKING:
    from mainspring.tasks import Task

JSON_ROW = dict[str, Any]


def run(
    task: str,
    /,
    *inputs: str | Path,
    model: str | None = None,
    out: str | Path | None = None,
    text: str | None = None,
    columns: dict[str, str] | None = None,
    encoding: str | None = None,
    lines: bool = False,
    on_long: Literal["split", "cut", "refuse"] = "split",
    max_source: int | None = None,
    max_new_tokens: int | None = None,
    min_new_tokens: int | None = None,
    num_beams: int | None = None,
    length_penalty: float | None = None,
    no_repeat_ngram_size: int | None = None,
    repetition_penalty: float | None = None,
    do_sample: bool | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    schema: str | Path | dict[str, Any] | None = None,
    grammar: str | Path | None = None,
    regex: str | None = None,
    choices: list[str] | None = None,
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    strict: bool = False,
    **task_options: str,
) -> list[JSON_ROW]:
    """Apply a model to inputs.

    Each prediction keeps the columns of its input (as `input_…` those that are called as an added
    one) and adds the answer (`summary`), what goes with it (for generated text `stop`, which is
    "eos", "length" or "stop", and `tokens`), `source_tokens_unread` and `windows`. A row that the
    model refuses says why under `error`; where it refuses all, or none can be read, the exit code
    is 2.

    Parameters
    ----------
    task
        What to do: `mainspring tasks` lists the tasks.
    inputs
        Texts, files, folders, tables; "-" or nothing reads standard input.
    model
        A folder that `fit` wrote, a GGUF file, or a hub name; by default the starter
        (`mainspring get starter`) for the tasks it can do.
    out
        File for the predictions instead of printing them: .jsonl, .csv or .tsv. An unfinished one
        is gone on with.
    text
        Column of the input text, where its name is not one of the accepted ones.
    columns
        Columns of any fields, by field: --columns.question q.
    encoding
        Of text files that are not UTF-8 and have no mark of their own: gb18030, cp1252.
    lines
        Each line of a text file or of standard input is an input of its own, told by its `line`.
    on_long
        Inputs longer than the model reads: summarized in windows and joined, cut, or refused.
    max_source
        Longest input in tokens; by default what the model was taught with.
    max_new_tokens
        Longest output in tokens.
    min_new_tokens
        Shortest output in tokens.
    num_beams
        Beams of the search; 1 is greedy.
    length_penalty
        Above 0 favours long outputs of a beam search, below 0 short ones.
    no_repeat_ngram_size
        No n-gram of this size occurs twice in an output.
    repetition_penalty
        Above 1 makes tokens that were written already less likely.
    do_sample
        Draw tokens at random instead of taking the likeliest.
    temperature
        Of the drawing: below 1 bolder for likely tokens.
    top_k
        Draw from this many likeliest tokens.
    top_p
        Draw from the likeliest tokens that together have this probability.
    min_p
        Draw from tokens at least this share as likely as the likeliest.
    seed
        Of the drawing.
    schema
        File with the JSON schema that each written text must fit (from Python also the schema).
    grammar
        File with the grammar (Lark) that each written text must fit.
    regex
        Pattern that the whole of each written text must fit.
    choices
        Texts one of which is written: --choices yes no "not sure".
    precision
        Arithmetic; auto is bfloat16 where the hardware has it.
    device
        Where to compute; auto is a GPU where there is one.
    strict
        Stop at the first broken row instead of counting it.
    task_options
        The task's own options, and inputs that are the same for all rows: --question "…".
    """
    return list(answers(locals()))


GENERATION = (
    "max_new_tokens",
    "min_new_tokens",
    "num_beams",
    "length_penalty",
    "no_repeat_ngram_size",
    "repetition_penalty",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
)


def answers(options: Mapping[str, Any]) -> Iterator[JSON_ROW]:
    """The predictions that `run` gives for these options, each as soon as it is made."""
    check_values(run, options)
    wait_politely()
    from mainspring.data.rows import reading_as
    from mainspring.tasks.reading import named_columns
    from mainspring.verbs.applying import Request, apply
    from mainspring.verbs.constraining import stated
    from mainspring.verbs.opening import Use, model_for

    out = options["out"]
    task: Task = registry.find("tasks", options["task"])
    given = task.read_options(options["task_options"], list(inspect.signature(run).parameters))
    task = task.variant(task, given)
    inputs, own = task.apart(given)
    request = Request(
        task=task,
        inputs=given_inputs(options["inputs"]),
        use=Use(
            model=model_for(task, options["model"]),
            max_source=options["max_source"],
            generation={n: options[n] for n in GENERATION if options[n] is not None},
            on_long=options["on_long"],
            precision=options["precision"],
            device=options["device"],
            options=own,
            constraint=stated(options),
        ),
        out=None if out is None else Path(out),
        named=named_columns(options),
        given=inputs,
        lines=options["lines"],
        strict=options["strict"],
    )
    with reading_as(options["encoding"]):
        for row, answer in apply(request):
            emit(Answer(row, answer, written=out is not None))
            yield row


@dataclass(frozen=True)
class Done:
    """What `run` on the command line leaves to say: nothing where each answer was printed as it was
    made, and where the answers are where they went to a file. The exit code is 2 where no input was
    answered, as it is where none could be read."""

    out: str | None
    rows: int
    refused: int
    exit_code: int = 0

    def lines(self, as_json: bool) -> Iterator[str]:
        if as_json and self.out is not None:
            yield json_line(self)


@functools.wraps(run)
def command(*args: Any, **kwargs: Any) -> Done:
    """`run` for the command line, which prints the answers, or writes them, and keeps none."""
    bound = inspect.signature(run).bind(*args, **kwargs)
    bound.apply_defaults()
    rows = refused = 0
    for row in answers(bound.arguments):
        rows += 1
        refused += "error" in row
    out = bound.arguments["out"]
    none = rows and rows == refused
    return Done(None if out is None else str(out), rows, refused, exit_code=2 if none else 0)
