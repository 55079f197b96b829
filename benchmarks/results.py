"""What the tasks reach on real data: trained and scored by the commands a user would type.

    python -m benchmarks.results --data FOLDER                 every recipe, 30 minutes each
    python -m benchmarks.results --only entities-wnut17 --minutes 5
    python -m benchmarks.results --write                       docs/results.md from what is there

A recipe is a line of `mainspring fit` and one of `mainspring evaluate` on a published test split.
Each leaves `OUT/NAME.json`; `--write` makes the page of those that are there.
"""

import argparse
import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results.md"
SEED = 42


@dataclass(frozen=True)
class Recipe:
    """How a task is shown on a data set.

    `train` and `test` are the words behind `fit TASK` and `evaluate TASK`, with {data} for the
    folder of the data sets; `scores` are those worth a column, the first is the one that counts.
    `needs` is what has to be fetched first (`mainspring get`). `note` is what a reader should know.
    """

    name: str
    task: str
    train: str
    test: str
    scores: tuple[str, ...]
    needs: str | None = None
    note: str = ""


RECIPES = (
    Recipe(
        "summarize-debian",
        "summarize",
        "{data}/summarization/debian_synopsis_en --model starter --lora 16 --max-source 256 "
        "--max-target 32 --learning-rate 1e-3",
        "{data}/summarization/debian_synopsis_en/test.jsonl",
        ("rougeL", "rouge1", "rouge2"),
        needs="starter",
    ),
    Recipe(
        "summarize-scitldr",
        "summarize",
        "{data}/summarization/scitldr_a --model starter --lora 16 --max-source 384 --max-target 48",
        "{data}/summarization/scitldr_a/test.jsonl",
        ("rougeL", "rouge1", "rouge2"),
        needs="starter",
        note="2 of the 618 test rows are also training rows, as published.",
    ),
    Recipe(
        "summarize-csl",
        "summarize",
        "{data}/summarization/csl_zh --from-scratch t5-mini --max-source 256 --max-target 32",
        "{data}/summarization/csl_zh/test.jsonl",
        ("rougeL", "rouge1", "rouge2"),
        note="Chinese, scored by characters.",
    ),
    Recipe(
        "translate-debian-en-de",
        "translate",
        "{data}/translation/debian_en_de --from-scratch t5-mini --source-language en "
        "--target-language de --max-source 96 --max-target 128 --patience 0",
        "{data}/translation/debian_en_de/test.jsonl --source-language en --target-language de",
        ("chrf2", "bleu"),
    ),
    Recipe(
        "entities-wnut17",
        "entities",
        "{data}/ner/wnut17 --model minilm --max-source 128 --batch-tokens 1024 --patience 0",
        "{data}/ner/wnut17/test.conll",
        ("f1", "precision", "recall"),
        needs="minilm",
    ),
    Recipe(
        "entities-btc",
        "entities",
        "{data}/ner/btc --model minilm --max-source 128 --batch-tokens 1024 --patience 0",
        "{data}/ner/btc/test.conll",
        ("f1", "precision", "recall"),
        needs="minilm",
    ),
    Recipe(
        "entities-uner-zh",
        "entities",
        "{data}/ner/uner_zh_gsdsimp --from-scratch bert-mini --max-source 128 --batch-tokens 1024 "
        "--patience 0",
        "{data}/ner/uner_zh_gsdsimp/test.conll",
        ("f1", "precision", "recall"),
        note="Chinese, from nothing but these 3,997 sentences.",
    ),
    Recipe(
        "relations-semeval",
        "relations",
        "{data}/relation_extraction/semeval2010_task8 --model minilm --max-source 128 "
        "--batch-tokens 1024 --patience 0",
        "{data}/relation_extraction/semeval2010_task8/test.jsonl",
        ("macro_f1", "micro_f1"),
        needs="minilm",
        note="15 of the 2,717 test sentences are also training sentences, as published.",
    ),
    Recipe(
        "relations-finre-zh",
        "relations",
        "{data}/relation_extraction/finre_zh --from-scratch bert-mini --max-source 128 "
        "--batch-tokens 1024 --learning-rate 6e-4 --patience 0",
        "{data}/relation_extraction/finre_zh/test.jsonl",
        ("micro_f1", "macro_f1"),
        note="Chinese; 14 of the 3,727 test sentences are also training sentences, as published.",
    ),
    Recipe(
        "answer-squad",
        "answer",
        "{data}/qa/squad_v1.1/train-v1.1.json.gz --model minilm --max-source 256 "
        "--learning-rate 2e-4 --patience 0",
        "{data}/qa/squad_v1.1/dev-v1.1.json",
        ("f1", "exact"),
        needs="minilm",
    ),
    Recipe(
        "answer-drcd-zh",
        "answer",
        "{data}/qa/drcd_zh/train.json --from-scratch bert-mini --max-source 384 --vocabulary 4600 "
        "--patience 0",
        "{data}/qa/drcd_zh/dev.json",
        ("f1", "exact"),
        note="Chinese (traditional).",
    ),
    Recipe(
        "generate-shakespeare",
        "generate",
        "{data}/text_generation/tiny_shakespeare --from-scratch llama-mini --max-source 256 "
        "--tokenizer byte-bpe --vocabulary 1000",
        "{data}/text_generation/tiny_shakespeare/test.txt",
        ("bits_per_byte", "loss"),
    ),
    Recipe(
        "generate-tang",
        "generate",
        "{data}/text_generation/tang_poetry_zh --from-scratch llama-mini --max-source 128",
        "{data}/text_generation/tang_poetry_zh/test.jsonl",
        ("bits_per_byte", "loss"),
        note="Chinese.",
    ),
)


def run(recipe: Recipe, data: Path, out: Path, minutes: float, rows: int | None) -> dict[str, Any]:
    """Trains and scores; the record that is kept. RuntimeError where a command fails."""
    model = out / recipe.name
    fit = f"fit {recipe.task} {recipe.train} --minutes {minutes:g} --seed {SEED} --out {model}"
    score = f"evaluate {recipe.task} {recipe.test} --model {model}"
    if rows is not None:
        score += f" --limit {rows}"
    started = time.perf_counter()
    fitted = _mainspring(fit.format(data=data), out / f"{recipe.name}.fit.log")
    scored = _mainspring(score.format(data=data), out / f"{recipe.name}.evaluate.log")
    record = {
        "recipe": recipe.name,
        "commands": [line.format(data="DATA").replace(str(out), "runs") for line in (fit, score)],
        "minutes": minutes,
        "seconds": time.perf_counter() - started,
        "fit": fitted,
        "evaluate": scored,
        "machine": platform.processor() or platform.machine(),
    }
    (out / f"{recipe.name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False))
    return record


def _mainspring(words: str, log: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "mainspring.cli", *shlex.split(words), "--json"]
    with log.open("w", encoding="utf-8") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    if done.returncode:
        tail = log.read_text(encoding="utf-8")[-2000:]
        raise RuntimeError(f"mainspring {words}: exit {done.returncode}\n{tail}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


# -- the page --------------------------------------------------------------------------------------


def page(records: Sequence[dict[str, Any]]) -> str:
    """docs/results.md."""
    recipes = {recipe.name: recipe for recipe in RECIPES}
    lines = [
        "# Results on real data",
        "",
        "Made by `python -m benchmarks.results --data DATA` on two CPU cores, seed "
        f"{SEED}; each model trained for the minutes shown (evaluation and saving apart), then "
        "scored on the published test split. Brackets hold 95 % bootstrap intervals.",
        "",
        "| recipe | test rows | score | baseline | other scores | trained |",
        "|---|---|---|---|---|---|",
    ]
    for record in records:
        lines.append(_line(recipes[record["recipe"]], record))
    for record in records:
        recipe = recipes[record["recipe"]]
        lines += ["", f"## {recipe.name}", "", "```"]
        lines += [f"mainspring {command}" for command in record["commands"]]
        lines += ["```", "", *_details(recipe, record)]
    return "\n".join(lines) + "\n"


def _line(recipe: Recipe, record: dict[str, Any]) -> str:
    found, fit = record["evaluate"], record["fit"]
    main, *others = recipe.scores
    low, high = found["interval"].get(main, (float("nan"), float("nan")))
    base = ", ".join(f"{name} {scores[main]:.2f}" for name, scores in found["baseline"].items())
    rest = ", ".join(f"{name} {found['scores'][name]:.2f}" for name in others)
    trained = f"{fit['train_seconds'] / 60:.0f} min, {fit['steps']} steps, {fit['tokens']:,} tokens"
    return (
        f"| [{recipe.name}](#{recipe.name}) | {found['rows']} | {main} "
        f"**{found['scores'][main]:.2f}** [{low:.2f}, {high:.2f}] | {base or '-'} | {rest} | "
        f"{trained} |"
    )


def _details(recipe: Recipe, record: dict[str, Any]) -> Iterator[str]:
    found, fit = record["evaluate"], record["fit"]
    yield f"{found['signature']}; {found['rows']} rows, {found['skipped']} skipped."
    speed = fit["tokens"] / max(fit["train_seconds"], 1e-9)
    yield f"Trained at {speed:,.0f} real tokens/s; best checkpoint at step {fit['best_step']}."
    if recipe.note:
        yield recipe.note


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "results")
    parser.add_argument("--only", nargs="+", choices=[r.name for r in RECIPES], metavar="NAME")
    parser.add_argument("--minutes", type=float, default=30.0, help="training of each")
    parser.add_argument("--rows", type=int, help="score this many test rows only")
    parser.add_argument("--write", action="store_true", help="write docs/results.md and stop")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for recipe in () if given.write else RECIPES:
        if given.only and recipe.name not in given.only:
            continue
        print(f"{recipe.name} …", flush=True)
        try:
            record = run(recipe, given.data, given.out, given.minutes, given.rows)
        except RuntimeError as error:
            failed += 1
            print(f"{recipe.name}: {error}", file=sys.stderr)
        else:
            print(json.dumps(record["evaluate"]["scores"]))
    if given.write:
        order = [recipe.name for recipe in RECIPES]
        files = [given.out / f"{name}.json" for name in order]
        records = [json.loads(file.read_text()) for file in files if file.is_file()]
        PAGE.write_text(page(records), encoding="utf-8")
        print(PAGE)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
