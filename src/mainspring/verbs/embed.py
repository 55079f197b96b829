"""`embed`: sentence vectors of texts, files, folders, tables or standard input."""

import functools
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mainspring import events
from mainspring.errors import BadOption
from mainspring.threads import wait_politely
from mainspring.verbs import check_values, given_inputs
from mainspring.verbs.output import joined, tell_skipped

if TYPE_CHECKING:
    import numpy as np

    from mainspring.data.schema import Example
    from mainspring.data.skipped import SkipLog
    from mainspring.formulations.embedding import Embedded, Embedder
    from mainspring.verbs.applying import Request

SUFFIXES = (".npy", ".jsonl")


@dataclass(frozen=True)
class Vectors:
    """What `embed` made.

    `vectors` are count x width float32 (mapped from the file where they are in a .npy, None where
    they are in a .jsonl). `places` says for each in memory where its text stood, as (file, line).
    `cut` counts texts longer than the model reads, `tokens_unread` what was cut off them.
    """

    count: int
    width: int
    vectors: "np.ndarray | None"
    places: tuple[tuple[str, int], ...]
    cut: int
    tokens_unread: int
    skipped: int
    out: str | None = None
    exit_code: int = 0

    def lines(self, as_json: bool) -> Iterator[str]:
        if self.out is None:
            return
        shown = {n: v for n, v in vars(self).items() if n not in ("vectors", "places", "exit_code")}
        yield json.dumps(shown, ensure_ascii=False) if as_json else self.out


def embed(
    *inputs: str | Path,
    model: str = "minilm",
    out: str | Path | None = None,
    text: str | None = None,
    encoding: str | None = None,
    lines: bool = False,
    pool: Literal["stored", "mean", "first", "last", "max"] = "stored",
    prompt: str | None = None,
    on_long: Literal["cut", "split"] = "cut",
    max_source: int | None = None,
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    strict: bool = False,
) -> Vectors:
    """Turn texts into vectors whose angles tell how alike they are.

    Parameters
    ----------
    inputs
        Texts, files, folders, tables; "-" or nothing reads standard input.
    model
        A sentence encoder: a folder, a hub name, or what `mainspring get` fetched.
    out
        File for the vectors: .npy (with the texts' places beside it) or .jsonl (each row with its
        vector). An unfinished one is gone on with.
    text
        Column of the text, where its name is not one of the accepted ones.
    encoding
        Of text files that are not UTF-8 and have no mark of their own: gb18030, cp1252.
    lines
        Each line of a text file or of standard input is a text of its own.
    pool
        How a text's tokens become one vector; by default as the model's folder says.
    prompt
        Text put before each; by default what the model's folder says.
    on_long
        Texts longer than the model reads: cut, or read in windows whose vectors are averaged.
    max_source
        Longest text in tokens; by default what the model's folder says.
    precision
        Arithmetic; auto is bfloat16 where the hardware has it.
    device
        Where to compute; auto is a GPU where there is one.
    strict
        Stop at the first broken row instead of counting it.
    """
    options = locals()
    import numpy as np

    kept: list[np.ndarray] = []
    places: list[tuple[str, int]] = []

    def keep(example: "Example", made: "Embedded") -> None:
        kept.append(made.vector)
        places.append((example.row.file, example.row.line))

    made = _embedded(options, keep)
    if made.out is not None:
        return made
    vectors = np.stack(kept) if kept else np.zeros((0, made.width), dtype=np.float32)
    return Vectors(**{**vars(made), "vectors": vectors, "places": tuple(places)})


@functools.wraps(embed)
def command(*args: Any, **kwargs: Any) -> Vectors:
    """`embed` for the command line, which prints each vector as it is made and keeps none."""
    bound = inspect.signature(embed).bind(*args, **kwargs)
    bound.apply_defaults()

    def tell(example: "Example", made: "Embedded") -> None:
        row = joined(example.row.values, {"embedding": made.vector.tolist()})
        events.emit(events.Answer(row, json.dumps(row["embedding"])))

    return _embedded(bound.arguments, tell)


def _embedded(options: Mapping[str, Any], keep: Any) -> Vectors:
    """Embeds everything: into the file where there is one, else each vector goes to `keep`."""
    check_values(embed, options)
    out = None if options["out"] is None else Path(options["out"])
    if out is not None and out.suffix not in SUFFIXES:
        raise BadOption(f"--out {out}: the suffix must be one of {', '.join(SUFFIXES)}")
    wait_politely()
    from mainspring.data.rows import reading_as
    from mainspring.data.skipped import SkipLog
    from mainspring.verbs.applying import Output, count_inputs, input_rows
    from mainspring.verbs.vectors import VectorFile

    listed = None if out is None else out.with_name(out.stem + ".skipped.jsonl")
    with (
        reading_as(options["encoding"]),
        SkipLog(listed, strict=options["strict"]) as skipped,
    ):
        request = _request(options)
        rows = input_rows(request, skipped)
        model = _open(options)
        pass_on = _Pass(model, options, skipped)
        total = count_inputs(request)
        shown = ("model", "pool", "prompt", "on_long", "max_source", "precision")
        made_as = {name: options[name] for name in shown}
        if out is None:
            for example, made in pass_on(rows, total):
                keep(example, made)
        elif out.suffix == ".npy":
            file = VectorFile(out, model.width, made_as)
            columns = tuple(request.named.values()) or request.task.text.accepted
            with file.writing(rows, "text", columns) as (rest, write):
                for example, made in pass_on(rest, total, file.count):
                    write(example, made.vector)
            file.finish()
            pass_on.count = file.count
        else:
            lines = Output(out, made_as)
            with lines.writing(rows) as (rest, write_row):
                for example, made in pass_on(rest, total, lines.count):
                    write_row(joined(example.row.values, {"embedding": made.vector.tolist()}))
            lines.finish()
            pass_on.count = lines.count
    return pass_on.result(out)


class _Pass:
    """Rows in, rows with their vectors out, and what there is to say at the end."""

    def __init__(self, model: "Embedder", options: Mapping[str, Any], skipped: "SkipLog"):
        self.model, self.options, self.skipped = model, options, skipped
        self.count = self.cut = self.unread = 0

    def __call__(
        self, rows: "Iterator[Example]", total: int | None, before: int = 0
    ) -> "Iterator[tuple[Example, Embedded]]":
        """`before` of the `total` rows were done by an earlier run."""
        from mainspring.formulations.embedding import embed as vectors_of

        asked, kept = tee(rows)
        texts = (example.values["text"] for example in asked)
        how = {name: self.options[name] for name in ("prompt", "on_long")}
        left = None if total is None else total - before
        show = events.counter("embed", left, "texts")
        for made in vectors_of(self.model, texts, **how, on_done=show):
            self.count += 1
            self.cut += made.unread > 0
            self.unread += made.unread
            yield next(kept), made

    def result(self, out: Path | None) -> Vectors:
        import numpy as np

        events.emit(events.Progress("embed", self.count, self.count, "texts"))
        if self.cut:
            events.warn(
                f"{self.cut} texts longer than {self.model.limit} tokens were cut ({self.unread} "
                "tokens not read); --on-long split reads them in windows"
            )
        tell_skipped(self.skipped)
        mapped = np.load(out, mmap_mode="r") if out is not None and out.suffix == ".npy" else None
        return Vectors(
            self.count,
            self.model.width,
            mapped,
            (),
            self.cut,
            self.unread,
            self.skipped.total,
            None if out is None else str(out),
        )


def _request(options: Mapping[str, Any]) -> "Request":
    """The inputs, read as `run` reads those of a task with one text."""
    from mainspring.data.schema import Field
    from mainspring.tasks import Task
    from mainspring.tasks.reading import named_columns
    from mainspring.verbs.applying import Request
    from mainspring.verbs.opening import Use

    accepted = ("text", "sentence", "content", "document", "article", "body", "context", "question")
    field = Field("text", "text", accepted, "the text")
    task = Task("embed", "sentence vectors", (field,), (), output="embedding", best="loss")
    return Request(
        task=task,
        inputs=given_inputs(options["inputs"]),
        use=Use(options["model"], None, {}, "split", options["precision"], options["device"], {}),
        out=None,
        named=named_columns(options),
        given={},
        lines=options["lines"],
        strict=options["strict"],
    )


def _open(options: Mapping[str, Any]) -> "Embedder":
    from mainspring.checkpoints.bundle import load
    from mainspring.compute.precision import ready
    from mainspring.formulations.embedding import embedder

    bundle = load(options["model"])
    pool = None if options["pool"] == "stored" else options["pool"]
    model = embedder(bundle, pool=pool, max_source=options["max_source"])
    ready(bundle.model, options["precision"], options["device"])
    events.note(f"{options['model']}: {model.width} numbers a text, reads {model.limit} tokens")
    return model
