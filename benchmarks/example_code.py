"""Our `fit` beside transformers' example code: the same encoder, rows, steps, examples a step.

    python -m benchmarks.example_code --data DATA                   all three, about 25 minutes
    python -m benchmarks.example_code --only answer --steps 400 --seeds 42 43
    python -m benchmarks.example_code --write                       docs/results.md of what there is

For each task and seed both train, each in a process of its own, then both answer the same test
rows and are scored by the same scorer. What is done is kept in OUT/examples, so that a run which
was stopped goes on with the next part; OUT/example-TASK.json is the comparison.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.example_contestants import (
    CLIP,
    DECAY,
    WARMUP,
    ExampleSetup,
    Learn,
    Lengths,
    Predict,
    example,
    read_rows,
)
from benchmarks.example_tasks import COMPARISONS, Comparison, Row, drawn
from benchmarks.turns import Contestant, playing
from mainspring.data.batches import plan_batches
from mainspring.metrics import Statistics
from mainspring.metrics.intervals import compare_scores

ROOT = Path(__file__).parent.parent
OURS, THEIRS = "ours", "theirs"
KEPT = "examples"  # the folder in OUT for finished parts
VALID = 64  # rows that ours looks at once, at its end; nothing depends on them


# -- the parts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One comparison with one seed: where its files are and what both sides are told."""

    comparison: Comparison
    seed: int
    threads: int
    model: Path
    out: Path
    material: Path

    @property
    def settings(self) -> dict[str, Any]:
        """What a finished part must have been made with to be kept."""
        c = self.comparison
        sizes = [c.steps, c.rows, c.rate, c.longest, c.stride, c.train_rows, c.test_rows]
        return {
            "sizes": sizes,
            "seed": self.seed,
            "threads": self.threads,
            "model": str(self.model),
        }

    def part(self, who: str) -> Path:
        return self.out / KEPT / f"{self.comparison.task}-{self.seed}-{who}"


def material(comparison: Comparison, data: Path, out: Path) -> Path:
    """The rows that both sides read, as JSONL; written once for each size."""
    sizes = f"{comparison.train_rows or 'all'}-{comparison.test_rows or 'all'}"
    folder = out / KEPT / f"{comparison.task}-rows-{sizes}"
    if not (folder / "test.jsonl").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        train, valid, test = comparison.splits(data)
        parts = {
            "train": drawn(train, comparison.train_rows),
            "valid": drawn(valid, VALID),
            "test": drawn(test, comparison.test_rows),
        }
        for name, rows in parts.items():
            lines = (json.dumps(row, ensure_ascii=False) for row in rows)
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def theirs(job: Job, say: Callable[[str], None]) -> dict[str, Any]:
    """Trains and predicts by the example code."""
    c = job.comparison
    setup = ExampleSetup(
        task=c.task,
        folder=job.model,
        train=job.material / "train.jsonl",
        steps=c.steps,
        rows=c.rows,
        rate=c.rate,
        longest=c.longest,
        stride=c.stride,
        seed=job.seed,
        threads=job.threads,
    )
    contestant = Contestant(THEIRS, example, setup)
    with playing([contestant]) as team:
        lengths = team.ask(THEIRS, Lengths())
        learned = team.ask(THEIRS, Learn())
        say(f"trained {learned.tokens / learned.seconds:,.0f} tokens/s")
        said = team.ask(THEIRS, Predict(job.material / "test.jsonl"))
        how = team.descriptions[THEIRS]
    return {
        "how": how,
        "seconds": learned.seconds,
        "tokens": learned.tokens,
        "rows_a_step": learned.rows / c.steps,
        "losses": learned.losses,
        "lengths": lengths,
        "said": said,
    }


def ours(job: Job, lengths: Sequence[int], say: Callable[[str], None]) -> dict[str, Any]:
    """Trains by `mainspring fit`, predicts by `mainspring evaluate`, whose own scores are kept."""
    c, folder = job.comparison, job.part(OURS)
    tokens, _ = batch_tokens(lengths, c.rows, job.seed)
    model, scored = folder / "model", folder / "scored"
    fit = (
        f"fit {c.task} {job.material / 'train.jsonl'} --valid {job.material / 'valid.jsonl'} "
        f"--model {job.model} --out {model} --steps {c.steps} --batch-tokens {tokens} "
        f"--learning-rate {c.rate:g} --warmup {WARMUP:g} --weight-decay {DECAY:g} --clip {CLIP:g} "
        f"--max-source {c.longest} --evaluate-every {c.steps} --patience 0 --seed {job.seed} "
        f"{c.options}"
    )
    score = f"evaluate {c.task} {job.material / 'test.jsonl'} --model {model} --out {scored}"
    fitted = _mainspring(fit, job.threads)
    say(f"trained {fitted['tokens'] / fitted['train_seconds']:,.0f} tokens/s")
    found = _mainspring(score, job.threads)
    said = [row[f"predicted_{c.task}"] for row in read_rows(scored / "predictions.jsonl")]
    shutil.rmtree(model)
    return {
        "how": f"mainspring {fit}",
        "seconds": fitted["train_seconds"],
        "tokens": fitted["tokens"],
        "rows_a_step": fitted["tokens"] / c.steps / (sum(lengths) / len(lengths)),
        "batch_tokens": tokens,
        "evaluated": found["scores"],
        "said": said,
    }


def batch_tokens(lengths: Sequence[int], rows: int, seed: int) -> tuple[int, float]:
    """(tokens of a batch, rows it holds in the mean) such that the rows come nearest to `rows`."""
    pairs = [(length, 0) for length in lengths]

    def mean(tokens: int) -> float:
        return len(lengths) / len(plan_batches(pairs, tokens=tokens, seed=seed, epoch=0).batches)

    low, high = 32, max(64, 2 * rows * max(lengths))
    while high - low > 8:
        middle = (low + high) // 2
        low, high = (low, middle) if mean(middle) >= rows else (middle, high)
    found = min((low, high), key=lambda tokens: abs(mean(tokens) - rows))
    return found, mean(found)


def _mainspring(words: str, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "mainspring.cli", *words.split(), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"mainspring {words}: exit {done.returncode}\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def part(job: Job, who: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A part that is finished, or made now; one that was broken off begins again."""
    file = job.part(who) / "part.json"
    if file.is_file():
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if kept["settings"] == job.settings:
            return kept
    shutil.rmtree(file.parent, ignore_errors=True)
    file.parent.mkdir(parents=True)
    made = {"settings": job.settings, **make()}
    file.write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
    return made


# -- scores ----------------------------------------------------------------------------------------


def compared(c: Comparison, test: Sequence[Row], parts: dict[str, list[Any]]) -> dict[str, Any]:
    """Both sides' scores and their differences. Of several seeds the counts of each row are
    averaged first, so that the rows, not the seeds, are what is drawn in the bootstrap."""
    wanted = [c.wanted(row) for row in test]
    kind = c.metric.choose_kind(wanted)
    rows: dict[str, list[list[Statistics]]] = {}
    for who, made in parts.items():
        for one in made:
            said = one["said"]
            if len(said) != len(test):
                raise RuntimeError(f"{who} answered {len(said)} of {len(test)} rows")
            if who == THEIRS:
                said = [c.theirs(*pair) for pair in zip(test, said, strict=True)]
            rows.setdefault(who, []).append(c.metric.score_rows(said, wanted, kind))
    mean = {who: [_mean(of) for of in zip(*found, strict=True)] for who, found in rows.items()}
    tests = compare_scores(mean[OURS], mean[THEIRS], c.metric.combine)
    return {
        "scores": {who: _shown(c, c.metric.scores(found)) for who, found in mean.items()},
        "by_seed": {
            who: [_shown(c, c.metric.scores(one)) for one in found] for who, found in rows.items()
        },
        "difference": {name: asdict(tests[name]) for name in c.scores},
        "signature": c.metric.signature(kind),
        "rows": len(test),
    }


def _mean(rows: Sequence[Statistics]) -> Statistics:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: sum(row.get(name, 0.0) for row in rows) / len(rows) for name in names}


def _shown(c: Comparison, scores: Statistics) -> dict[str, float]:
    return {name: scores[name] for name in c.scores}


def _told(job: Job, made: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How a side trained, in the mean of its seeds."""
    how = made[0]["how"].replace(str(job.out), "OUT").replace(str(job.model), job.model.name)
    seconds, tokens, rows = (
        math.fsum(one[name] for one in made) / len(made)
        for name in ("seconds", "tokens", "rows_a_step")
    )
    speed = {"tokens": tokens, "tokens_per_second": tokens / seconds}
    return {"how": how, "seconds": seconds, "rows_a_step": rows, **speed}


def run(
    c: Comparison, data: Path, model: Path, out: Path, seeds: Sequence[int], threads: int
) -> None:
    """One task with all its seeds; writes OUT/example-TASK.json after each seed."""
    folder = material(c, data, out)
    test = read_rows(folder / "test.jsonl")
    parts: dict[str, list[Any]] = {OURS: [], THEIRS: []}
    for at, seed in enumerate(seeds):
        job = Job(c, seed, threads, model, out, folder)

        def say(what: str, seed: int = seed) -> None:
            print(f"{c.task}, seed {seed}: {what}", flush=True)

        say("the example code …")
        other = part(job, THEIRS, partial(theirs, job, say))
        say("ours …")
        mine = part(job, OURS, partial(ours, job, other["lengths"], say))
        parts[THEIRS].append(other)
        parts[OURS].append(mine)
        record = {
            "task": c.task,
            "title": c.title,
            "steps": c.steps,
            "rate": c.rate,
            "train_rows": len(read_rows(folder / "train.jsonl")),
            "seeds": list(seeds[: at + 1]),
            "threads": threads,
            **compared(c, test, parts),
            "contestants": {who: _told(job, made) for who, made in parts.items()},
        }
        (out / f"example-{c.task}.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        for name, test_ in record["difference"].items():
            a, b = (record["scores"][who][name] for who in (OURS, THEIRS))
            say(
                f"{name} {a:.2f} against {b:.2f}: {test_['mean']:+.2f} "
                f"[{test_['low']:+.2f}, {test_['high']:+.2f}]"
            )


def main() -> int:
    tasks = [c.task for c in COMPARISONS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.example_code", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "results")
    parser.add_argument("--only", nargs="+", choices=tasks, metavar="TASK", default=tasks)
    parser.add_argument("--model", default="minilm", help="the encoder (minilm)")
    parser.add_argument("--steps", type=int, help="optimizer steps of each task")
    parser.add_argument("--batch", type=int, help="examples a step (16)")
    parser.add_argument("--rows", type=int, help="test rows that are scored")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write docs/results.md and stop")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.write:
        from benchmarks.results_page import RECORDS, keep, write

        keep(given.out)
        print(write(RECORDS))
        return 0
    from mainspring.checkpoints.locate import locate

    model = locate(given.model)
    for c in COMPARISONS:
        if c.task in given.only:
            told = replace(
                c,
                steps=given.steps or c.steps,
                rows=given.batch or c.rows,
                test_rows=given.rows or c.test_rows,
            )
            run(told, given.data, model, given.out, given.seeds, given.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
