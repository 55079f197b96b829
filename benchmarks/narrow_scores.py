"""What narrow arithmetic costs a model that has learnt its task: scores and size, by precision.

The starter is fine-tuned by `mainspring fit` (kept between runs) and scored by
`mainspring evaluate` in each precision, as a user would.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import material
from benchmarks.entry import Check, Context, Entry, Result, Table
from benchmarks.turns import ContestantFailed

LOSS = 0.3  # ROUGE that 16 and 8 bits may cost
ENOUGH = 400  # rows: a few that happen to differ move the mean of fewer by more than that
KINDS = ("float32", "bfloat16", "int8")
SCORES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
LEARNING = ("--model", "starter", "--lora", "16", "--learning-rate", "2e-3", "--max-source", "256")
LEARNING += ("--max-target", "32", "--metric-rows", "0", "--patience", "0")


def run(context: Context) -> Result:
    """One model, one set of test rows, greedy, in each precision."""
    from mainspring.checkpoints.packaged import TABLE, is_here

    if not is_here(TABLE["starter"]):
        return Result(skipped=("the starter is not on this disk: mainspring get starter",))
    texts = material.corpus(context)
    model = _taught(context, texts)
    test = texts.test[: context.scale.scored_rows]
    data = _written(context.out / "models" / "narrow-test.jsonl", test)
    found = {}
    for kind in KINDS:
        context.say(f"scoring {len(test)} test rows in {kind}")
        words = ["evaluate", "summarize", str(data), "--model", str(model), "--precision", kind]
        found[kind] = json.loads(_command([*words, "--json", "--quiet"]))
    base = found["float32"]["scores"]
    table = Table(
        f"The starter fine-tuned on {texts.name}, {len(test)} test rows, greedy",
        ("", "ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-Lsum", "MB"),
        tuple(
            (
                kind,
                *(f"{reply['scores'][name]:.2f}" for name in SCORES),
                f"{reply['megabytes']:,.0f}",
            )
            for kind, reply in found.items()
        ),
    )
    return Result(
        tables=(table,),
        checks=tuple(
            _check(kind, found[kind]["scores"], base) for kind in KINDS[1:] if len(test) >= ENOUGH
        ),
        notes=(
            f"`mainspring fit summarize … {' '.join(LEARNING)}`, {context.scale.teaching.steps} "
            f"steps of {context.scale.teaching.tokens} tokens. Fewer than {ENOUGH} rows are shown, "
            "and not checked: a few that happen to differ would decide.",
        ),
        data={"scores": {kind: reply["scores"] for kind, reply in found.items()}},
    )


def _check(kind: str, scores: dict[str, float], base: dict[str, float]) -> Check:
    worst = max((scores[name] - base[name] for name in SCORES), key=abs)
    return Check(
        f"ROUGE of {kind} is within {LOSS} of float32",
        f"ROUGE-L {scores['rougeL']:.2f} against {base['rougeL']:.2f}, largest difference of the "
        f"four {worst:+.2f}",
        abs(worst) <= LOSS,
    )


def _taught(context: Context, texts: material.Corpus) -> Path:
    """The adapter's folder."""
    run = context.scale.teaching
    folder = context.out / "kept" / f"starter-{texts.hash}-{run.steps}x{run.tokens}"
    if (folder / "adapter_config.json").is_file():
        return folder
    context.say(f"fine-tuning the starter for {run.steps} steps (kept for the next run)")
    train = _written(context.out / "models" / "narrow-train.jsonl", texts.train)
    words = ["fit", "summarize", str(train), "--out", str(folder), *LEARNING]
    words += ["--steps", str(run.steps), "--batch-tokens", str(run.tokens), "--quiet"]
    _command(words)
    return folder


def _written(file: Path, pairs: list[material.Pair]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text, "summary": summary}) for text, summary in pairs]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def _command(words: list[str]) -> str:
    """What `mainspring WORDS` prints."""
    done: Any = subprocess.run(
        [sys.executable, "-m", "mainspring", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ContestantFailed(f"mainspring {' '.join(words[:2])} …: {done.stderr.strip()}")
    return str(done.stdout)


ENTRY = Entry(
    "narrow_scores",
    "Scores in narrow arithmetic",
    "What do 16 and 8 bits cost a pretrained model that has learnt to summarize?",
    run,
)
