"""`evaluate`: scores a model with the field's standard metric, a baseline and an interval."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mainspring import registry
from mainspring.threads import wait_politely
from mainspring.verbs import check_packages, check_values
from mainspring.verbs.evaluation import Evaluation

if TYPE_CHECKING:
    from mainspring.tasks import Task


def evaluate(
    task: str,
    data: str | Path,
    /,
    *,
    model: str | None = None,
    out: str | Path | None = None,
    against: str | None = None,
    against_precision: Literal["float32", "bfloat16", "int8"] | None = None,
    text: str | None = None,
    target: str | None = None,
    columns: dict[str, str] | None = None,
    encoding: str | None = None,
    limit: int | None = None,
    max_source: int | None = None,
    max_new_tokens: int | None = None,
    num_beams: int | None = None,
    length_penalty: float | None = None,
    no_repeat_ngram_size: int | None = None,
    on_long: Literal["split", "cut"] = "split",
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    seed: int = 0,
    strict: bool = False,
    **task_options: str,
) -> Evaluation:
    """Score a model on data it has not seen.

    Parameters
    ----------
    task
        What the model does: `mainspring tasks` lists the tasks.
    data
        Rows with inputs and references; of a folder with splits, the test split.
    model
        A folder that `fit` wrote, a GGUF file, or a hub name; by default the starter.
    out
        Folder for predictions.jsonl and skipped.jsonl.
    against
        Another model, scored on the same rows and compared by a paired test.
    against_precision
        Arithmetic of the other model; alone, it compares the model with itself in that arithmetic
        (size, speed and scores of int8 against float32, say).
    text
        Column of the input text, where its name is not one of the accepted ones.
    target
        Column of the reference.
    columns
        Columns of any fields, by field: --columns.label sentiment.
    encoding
        Of text files that are not UTF-8 and have no mark of their own: gb18030, cp1252.
    limit
        Score only the first rows, this many.
    max_source
        Longest input in tokens; by default what the model was taught with.
    max_new_tokens
        Longest output in tokens.
    num_beams
        Beams of the search; 1 is greedy.
    length_penalty
        Above 0 favours long outputs of a beam search, below 0 short ones.
    no_repeat_ngram_size
        No n-gram of this size occurs twice in an output.
    on_long
        Inputs longer than the model reads: in windows, or cut.
    precision
        Arithmetic; auto is bfloat16 where the hardware has it.
    device
        Where to compute; auto is a GPU where there is one.
    seed
        Of the bootstrap and of sampling.
    strict
        Stop at the first broken row instead of counting it.
    task_options
        The task's own options: `mainspring tasks NAME` lists them.
    """
    options = locals()
    check_values(evaluate, options)
    wait_politely()
    from mainspring.data.rows import reading_as
    from mainspring.tasks.reading import named_columns
    from mainspring.verbs.opening import Use, model_for
    from mainspring.verbs.scoring import score

    generation = {
        "seed": seed,
        "max_new_tokens": max_new_tokens,
        "num_beams": num_beams,
        "length_penalty": length_penalty,
        "no_repeat_ngram_size": no_repeat_ngram_size,
    }
    found: Task = registry.find("tasks", task)
    given = found.read_options(task_options, list(inspect.signature(evaluate).parameters))
    found = found.variant(found, given)
    check_packages(found)
    inputs, own = found.apart(given)
    use = Use(
        model=model_for(found, model),
        max_source=max_source,
        generation={name: value for name, value in generation.items() if value is not None},
        on_long=on_long,
        precision=precision,
        device=device,
        options=own,
    )
    contestants = [use]
    if against or against_precision:
        contestants.append(
            replace(use, model=against or use.model, precision=against_precision or precision)
        )
    with reading_as(encoding):
        return score(
            found,
            Path(data),
            contestants=contestants,
            out=None if out is None else Path(out),
            named=named_columns(options),
            given=inputs,
            limit=limit,
            seed=seed,
            strict=strict,
        )
