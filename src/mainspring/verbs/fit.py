"""`fit`: trains or fine-tunes on the user's data. Pre-flight first, result last, resumable."""

import inspect
import json
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mainspring import events, registry
from mainspring.errors import BadOption, Mismatch, Missing
from mainspring.extras import TENSORBOARD
from mainspring.locks import in_use
from mainspring.threads import wait_politely
from mainspring.training import LOCK_FILE, RUN_FILE, SKIPPED_FILE, SPLITS_FILE
from mainspring.verbs import check_packages, check_values
from mainspring.verbs.output import json_line, make_folder

if TYPE_CHECKING:
    from mainspring.tasks import Task
    from mainspring.training.fitting import Outcome


@dataclass(frozen=True)
class FitResult:
    """What a training run came to.

    `seconds` is all of it, `train_seconds` leaves evaluation and saving out; `tokens` are the real
    source and target tokens trained on. `best` is the score that picked the best checkpoint,
    `scores` all its scores on the validation rows. `ended` says why the run ended.
    """

    out: str
    task: str
    steps: int
    seconds: float
    train_seconds: float
    tokens: int
    best: float | None
    best_step: int
    scores: dict[str, float] = field(default_factory=dict)
    ended: str = "steps"
    resume: str | None = None
    exit_code: int = 0

    def lines(self, as_json: bool) -> Iterator[str]:
        if as_json:
            yield json_line(self)
        elif self.resume:
            yield self.resume
        else:
            yield self.out


def fit(
    task: str,
    data: str | Path,
    /,
    *,
    out: str | Path,
    model: str | None = None,
    from_scratch: str | None = None,
    text: str | None = None,
    target: str | None = None,
    columns: dict[str, str] | None = None,
    encoding: str | None = None,
    valid: str | Path | None = None,
    epochs: int = 3,
    steps: int | None = None,
    minutes: float | None = None,
    batch_tokens: int = 4096,
    accumulate: int = 1,
    pack: bool = False,
    lora: int | None = None,
    lora_alpha: float | None = None,
    learning_rate: float | None = None,
    warmup: float = 0.03,
    schedule: Literal["linear", "cosine", "constant"] = "linear",
    optimizer: Literal["adamw", "adafactor"] = "adamw",
    weight_decay: float = 0.01,
    clip: float = 1.0,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    gradient_checkpointing: bool = False,
    max_source: int | None = None,
    max_target: int | None = None,
    prefix: str | None = None,
    vocabulary: int = 8000,
    tokenizer: Literal["unigram", "byte-bpe"] = "unigram",
    add_characters: bool = False,
    evaluate_every: int | None = None,
    metric_rows: int = 200,
    patience: int | None = 3,
    seed: int = 42,
    strict: bool = False,
    tensorboard: bool = False,
    resume: bool = False,
    **task_options: str,
) -> FitResult:
    """Train or fine-tune a model on your data.

    Parameters
    ----------
    task
        What to learn: `mainspring tasks` lists them.
    data
        CSV, TSV, JSON, JSONL, Parquet, text, or a folder of them; a Hugging Face data set folder.
    out
        Folder for the model, the log and the state to resume from; one run at a time works in it.
    model
        Checkpoint to start from: a folder, a GGUF file or a hub name; by default the starter
        (`mainspring get starter`) for the tasks it can learn.
    from_scratch
        Size of a new model instead: t5-tiny, bert-mini, llama-tiny; `mainspring models` lists all.
    text
        Column of the input text, where its name is not one of the accepted ones.
    target
        Column of the text to learn.
    columns
        Columns of any fields, by field: --columns.label sentiment.
    encoding
        Of text files that are not UTF-8 and have no mark of their own: gb18030, cp1252.
    valid
        Validation data; without it the data's own split, or about 5 % of the rows.
    epochs
        Passes over the data.
    steps
        Optimizer steps, instead of epochs.
    minutes
        Training time, instead of epochs: the learning rate falls by the clock, so that it is down
        when the time is up. Evaluation and saving are not counted.
    batch_tokens
        Source and target tokens of one step, padding included.
    accumulate
        Micro-batches each step is split into: less memory, the same gradient.
    pack
        Put several short pairs into one row, each blind to the others: long and short ones mix in
        a batch without padding.
    lora
        Rank of a LoRA adapter: only it learns (and a new head), the model's weights stay, and what
        is saved is the adapter, in PEFT's format.
    lora_alpha
        Weight of the adapter; by default twice its rank.
    learning_rate
        Peak of the schedule; by default 3e-4 to fine-tune, 1e-3 with --lora or from scratch.
    warmup
        Share of the steps over which the learning rate rises, 0 to 1.
    schedule
        How the learning rate falls after warm-up.
    optimizer
        AdamW, or Adafactor in less memory.
    weight_decay
        Decay of the weight matrices.
    clip
        Largest gradient norm; 0 for no clipping.
    precision
        Arithmetic of the forward and backward pass; weights stay float32.
    device
        Where to compute; auto is a GPU where there is one.
    gradient_checkpointing
        Compute the layers' activations again in the backward pass: much less memory, about a third
        more time.
    max_source
        Longest input in tokens.
    max_target
        Longest target in tokens.
    prefix
        Text put before each input; by default what the checkpoint's config asks for.
    vocabulary
        Size of the new tokenizer, from scratch only.
    tokenizer
        Kind of the new tokenizer, from scratch only.
    add_characters
        Give the checkpoint's tokenizer the characters of your data that it does not know, such as
        those of another script: each becomes a token, which is learnt with the task.
    evaluate_every
        Steps between evaluations; by default about eight in a run.
    metric_rows
        Validation rows that are generated and scored at each evaluation, to pick the best
        checkpoint. The scores of few rows differ by chance: with 0 the validation loss picks it.
    patience
        Evaluations without a better score that end the run; 0 for never.
    seed
        Every random number follows from it.
    strict
        Stop at the first broken row instead of listing it.
    tensorboard
        Write TensorBoard files too.
    resume
        Go on with the run in --out, to the same bits; other options come from it.
    task_options
        The task's own options: `mainspring tasks NAME` lists them.
    """
    options = {name: _plain(value) for name, value in locals().items()}
    folder = Path(out)
    with _held(folder):
        if resume:
            options = resumed_options(folder, options)
        else:
            check_folder(folder)
        check(options)
        started = time.perf_counter()
        wait_politely()
        from mainspring.data.rows import reading_as
        from mainspring.training.fitting import run_fit

        with reading_as(options["encoding"]):
            try:
                outcome = run_fit(options, command_line(options), folder, resume=resume)
            except KeyboardInterrupt as error:  # not in a step, or for the second time
                if (folder / RUN_FILE).is_file():
                    error.add_note(f"go on with: {resume_command(options)}")
                raise
    return result(outcome, options, time.perf_counter() - started)


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """A run's folder, made where there is none, for this process alone; what was made goes again
    where nothing came of it. BadOption."""
    if out.exists() and not out.is_dir():
        raise BadOption(f"--out {out} is a file; name a folder")
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_folder(out, out)
    otherwise = "wait for it to end or name another folder"
    try:
        with in_use(out / LOCK_FILE, "fitting", otherwise, passing=True):
            yield
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def check_folder(out: Path) -> None:
    """BadOption where a new run would write over something: another run, a model, any files."""
    if (out / RUN_FILE).exists():
        raise BadOption(
            f"--out {out} already holds a run; go on with it (--resume) or name another folder"
        )
    # What a run leaves that ended before its first step is no loss.
    known = (SKIPPED_FILE, SPLITS_FILE, LOCK_FILE)
    other = [file.name for file in out.iterdir() if file.name not in known]
    if other:
        raise BadOption(
            f"--out {out} is not empty (it holds {other[0]}); name a new folder, nothing is "
            "written over"
        )


def resumed_options(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The options the run in `folder` was started with; those given anew must agree.

    Data may have moved (what counts is that its rows are the same, which is checked when it is
    read), and there may be more minutes.
    """
    file = folder / RUN_FILE
    if not file.is_file():
        raise Missing(f"{folder}: no {RUN_FILE}, so no run to resume; leave --resume out")
    recorded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["options"]
    defaults = {n: p.default for n, p in inspect.signature(fit).parameters.items()}
    for name, value in given.items():
        if name in ("out", "resume") or value == defaults[name] or name not in recorded:
            continue
        if name == "task_options" and not value:
            continue
        if name in ("data", "valid", "minutes"):
            recorded[name] = value
        elif value != recorded[name]:
            raise BadOption(
                f"{_flag(name)} {value} differs from the run's own {recorded[name]}; a resumed "
                "run keeps its options"
            )
    # What this release has and the run's own did not know.
    added = {name: defaults[name] for name in given if name not in recorded}
    return {**added, **recorded, "out": given["out"], "resume": True}


def _flag(name: str) -> str:
    return name if name in ("task", "data") else "--" + name.replace("_", "-")


def check(options: dict[str, Any]) -> None:
    """BadOption where a value is out of its range or two options exclude each other."""
    check_values(fit, options)
    task: Task = registry.find("tasks", options["task"])
    if not any(formulation.trains for formulation in task.formulations):
        raise Mismatch(
            f"`{task.name}` cannot be fitted in this release; `run` and `evaluate` use models that "
            "can do it"
        )
    stated = task.read_options(options["task_options"], list(inspect.signature(fit).parameters))
    for option in task.options:
        if option.name in stated and not option.learnt:
            flag = _flag(option.name)
            raise BadOption(f"{flag} is for `run` and `evaluate`; `fit` has no use for it")
    if options["model"] and options["from_scratch"]:
        raise BadOption("--model and --from-scratch exclude each other: name one of them")
    if not options["model"] and not options["from_scratch"]:
        if task.model is None:
            raise BadOption("name a checkpoint to start from (--model) or a size (--from-scratch)")
        events.note(f"no --model and no --from-scratch: starting from `{task.model}`")
        options["model"] = task.model
    if options["lora"] is None and options["lora_alpha"] is not None:
        raise BadOption("--lora-alpha has no meaning without --lora")
    if options["lora"] is not None and options["from_scratch"]:
        raise BadOption("--lora adapts a model that is there (--model), not one --from-scratch")
    if options["add_characters"] and options["from_scratch"]:
        raise BadOption(
            "--add-characters is for a tokenizer that is there (--model), not a new one"
        )
    if options["add_characters"] and options["lora"] is not None:
        raise BadOption("--add-characters: an adapter cannot hold new tokens; leave --lora out")
    if options["tensorboard"]:
        TENSORBOARD.check()
    if options["metric_rows"]:
        check_packages(task)
    if options["model"]:
        ignored = [name for name in ("vocabulary", "tokenizer") if options[name] != _default(name)]
        for name in ignored:
            events.warn(f"{_flag(name)} has no effect with --model, which has its own tokenizer")


def _default(name: str) -> Any:
    return inspect.signature(fit).parameters[name].default


def command_line(options: dict[str, Any]) -> str:
    """The words that start this run again, options at their defaults left out."""
    words = ["mainspring", "fit", options["task"], options["data"]]
    for name, parameter in inspect.signature(fit).parameters.items():
        value = options.get(name)
        if name in ("task", "data", "resume") or value == parameter.default:
            continue
        if isinstance(value, dict):  # columns by field, the task's own options
            before = f"{_flag(name)}." if name == "columns" else "--"
            for key, item in value.items():
                words += [before + key.replace("_", "-"), str(item)]
        else:
            words += [_flag(name)] if value is True else [_flag(name), str(value)]
    return shlex.join(words)


def resume_command(options: dict[str, Any]) -> str:
    """The words that go on with this run."""
    words = ["mainspring", "fit", options["task"], options["data"], "--out", options["out"]]
    return shlex.join([*words, "--resume"])


def result(outcome: "Outcome", options: dict[str, Any], seconds: float) -> FitResult:
    record = outcome.record
    stopped = record.ended.startswith("SIG")
    return FitResult(
        out=str(options["out"]),
        task=options["task"],
        steps=record.step,
        seconds=round(seconds, 3),
        train_seconds=round(record.train_seconds, 3),
        tokens=record.tokens,
        best=record.best_score,
        best_step=record.best_step,
        scores=record.best_scores,
        ended=record.ended,
        resume=resume_command(options) if stopped else None,
        exit_code=128 + signal.Signals[record.ended] if stopped else 0,
    )
