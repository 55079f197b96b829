"""`evaluate`: scores a model with the field's standard metric, a baseline and an interval."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Evaluation:
    """How well a model does on some rows.

    `scores` are means over the rows, 0..100 for ROUGE; `interval` is the 95 % bootstrap interval
    of each; `baseline` what predictions without a model reach; `signature` says exactly what was
    computed. `hit_limit` is the share of outputs that ended at the length limit, `sources_cut`
    that of inputs longer than the model reads; `megabytes` is what the weights take in memory in
    this `precision`. `against` compares with another model's scores.
    """

    task: str
    model: str
    rows: int
    skipped: int
    scores: dict[str, float]
    interval: dict[str, tuple[float, float]]
    baseline: dict[str, dict[str, float]]
    signature: str
    hit_limit: float
    sources_cut: float
    tokens_per_second: float
    precision: str
    megabytes: float
    predictions: str | None = None
    against: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0

    def lines(self, as_json: bool) -> Iterator[str]:
        if as_json:
            shown = asdict(self)
            shown.pop("exit_code")
            yield json.dumps(shown, ensure_ascii=False)
            return
        for name, value in self.scores.items():
            low, high = self.interval[name]
            line = f"{name:10} {value:6.2f}  [{low:.2f}, {high:.2f}]"
            for base, scores in self.baseline.items():
                line += f"   {base} {scores[name]:.2f}"
            if self.against:
                other = self.against["scores"][name]
                line += f"   against {other:.2f} (p={self.against['p'][name]:.3f})"
            yield line
        if self.against:
            yield (
                f"{self.precision}: {self.megabytes:.0f} MB, {self.tokens_per_second:.0f} tokens/s"
                f" | {self.against['model']} in {self.against['precision']}: "
                f"{self.against['megabytes']:.0f} MB, "
                f"{self.against['tokens_per_second']:.0f} tokens/s"
            )
        yield (
            f"{self.rows} rows, {self.skipped} skipped | {self.signature} | "
            f"{self.hit_limit:.1%} hit the length limit | {self.sources_cut:.1%} of sources longer "
            f"than the model reads | {self.tokens_per_second:.0f} tokens/s"
        )


def evaluate(
    task: str,
    data: str | Path,
    /,
    *,
    model: str,
    out: str | Path | None = None,
    against: str | None = None,
    against_precision: Literal["float32", "bfloat16", "int8"] | None = None,
    text: str | None = None,
    target: str | None = None,
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
) -> Evaluation:
    """Score a model on data it has not seen.

    Parameters
    ----------
    task
        What the model does: summarize.
    data
        Rows with inputs and references; of a folder with splits, the test split.
    model
        A folder that `fit` wrote, or a hub name.
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
    """
    from mainspring.verbs.scoring import score

    options = {
        "max_new_tokens": max_new_tokens,
        "num_beams": num_beams,
        "length_penalty": length_penalty,
        "no_repeat_ngram_size": no_repeat_ngram_size,
    }
    other = []
    if against or against_precision:
        other = [(against or model, against_precision or precision)]
    return score(
        task,
        Path(data),
        contestants=[(model, precision), *other],
        out=None if out is None else Path(out),
        named={name: column for name, column in (("text", text), ("target", target)) if column},
        limit=limit,
        max_source=max_source,
        generation={name: value for name, value in options.items() if value is not None},
        on_long=on_long,
        device=device,
        seed=seed,
        strict=strict,
    )
