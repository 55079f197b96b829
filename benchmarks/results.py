"""What the tasks reach on real data: trained and scored by the commands a user would type.

    python -m benchmarks.results --data FOLDER                 every recipe, 30 minutes each
    python -m benchmarks.results --only entities-wnut17 --minutes 5
    python -m benchmarks.results --write                       docs/results.md from what is there

A recipe (`recipes.py`) is a line of `mainspring fit` and one of `mainspring evaluate` on a
published test split. Each leaves `OUT/NAME.json`; `--write` takes these, and what
`benchmarks.example_code`, `benchmarks.retrieval` and `benchmarks.graph_questions` left in the same
folder, into `benchmarks/records`, and makes the page and its picture of all that is there.
"""

import argparse
import json
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.recipes import RECIPES, Recipe
from benchmarks.results_page import RECORDS, keep, write
from mainspring.compute.hardware import detect

ROOT = Path(__file__).parent.parent
SEED = 42


def run(
    recipe: Recipe, data: Path, out: Path, minutes: float, rows: int | None, seed: int
) -> dict[str, Any]:
    """Trains and scores; the record that is kept. RuntimeError where a command fails."""
    model, made = out / recipe.name, out / f"{recipe.name}.data"
    if recipe.prepare is not None:
        recipe.prepare(data, made)
    lines = {
        "fit": f"fit {recipe.task} {recipe.train} --out {model}",
        "evaluate": f"evaluate {recipe.task} {recipe.test} --model {model}",
    }
    body = out / f"{recipe.name}.body"
    each = minutes
    if recipe.before:
        each = minutes / 2
        lines = {"before": f"fit {recipe.before} --out {body}", **lines}
    for verb in lines.keys() - {"evaluate"}:
        lines[verb] += f" --minutes {each:g} --seed {seed}"
    if rows is not None:
        lines["evaluate"] += f" --limit {rows}"
    started = time.perf_counter()
    said = {
        verb: _mainspring(
            line.format(data=data, made=made, body=body), out / f"{recipe.name}.{verb}.log"
        )
        for verb, line in lines.items()
    }
    record = {
        "recipe": recipe.name,
        "commands": [
            line.format(data="DATA", made=f"runs/{made.name}", body=f"runs/{body.name}").replace(
                str(out), "runs"
            )
            for line in lines.values()
        ],
        "minutes": minutes,
        "seed": seed,
        "seconds": time.perf_counter() - started,
        **said,
        "cores": detect().threads,
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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "results")
    parser.add_argument("--only", nargs="+", choices=[r.name for r in RECIPES], metavar="NAME")
    parser.add_argument("--minutes", type=float, default=30.0, help="training of each")
    parser.add_argument("--rows", type=int, help="score this many test rows only")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--write", action="store_true", help="write docs/results.md and stop")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for recipe in () if given.write else RECIPES:
        if given.only and recipe.name not in given.only:
            continue
        print(f"{recipe.name} …", flush=True)
        try:
            record = run(recipe, given.data, given.out, given.minutes, given.rows, given.seed)
        except RuntimeError as error:
            failed += 1
            print(f"{recipe.name}: {error}", file=sys.stderr)
        else:
            print(json.dumps(record["evaluate"]["scores"]))
    if given.write:
        keep(given.out)
        print(write(RECORDS))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
