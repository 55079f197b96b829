"""`python -m benchmarks`: ours and the peers in turn, on the same weights, data and threads."""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.entry import FULL, QUICK, Context, Entry, Result
from benchmarks.material import ROOT, find_data
from benchmarks.turns import ContestantFailed
from mainspring.threads import wait_politely

# In the order in which they run.
ENTRIES = (
    "machine",
    "training_curve",
    "training_speed",
    "lora_speed",
    "generation_speed",
    "chat_speed",
    "narrow_scores",
    "cold_start",
    "gpu_speed",
)


def entry(name: str) -> Entry:
    return importlib.import_module(f"benchmarks.{name}").ENTRY


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    made.add_argument("--quick", action="store_true", help="smaller and fewer: is it all right?")
    made.add_argument("--rounds", type=int, metavar="N", help="turns that each contestant takes")
    made.add_argument("--only", nargs="+", choices=ENTRIES, default=ENTRIES, metavar="NAME")
    made.add_argument("--list", action="store_true", help="name the entries and end")
    made.add_argument(
        "--data",
        type=Path,
        help="folder of the real data sets; else MAINSPRING_DATA, else ../shared/data; without "
        "any, pairs from the docstrings of the installed packages",
    )
    made.add_argument("--threads", type=int, default=2, help="threads of each contestant")
    made.add_argument("--out", type=Path, default=ROOT / ".bench", help="folder of the results")
    made.add_argument(
        "--write",
        action="store_true",
        help="write docs/benchmarks.md and its plot from the results in --out, and stop",
    )
    return made


def settle(threads: int) -> None:
    """The environment of all contestants: threads that wait politely, and no network.

    MKL's own variable stays as it is: set, it would outvote a contestant that asks for fewer
    threads (CTranslate2 with one writes twice as fast then as with MKL's two).
    """
    wait_politely()
    os.environ |= {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


def main(words: Sequence[str] | None = None) -> int:
    made = parser()
    given = made.parse_args(words)
    if given.list:
        for name in ENTRIES:
            print(f"{name:<18} {entry(name).question}")
        return 0
    if given.write:
        _write(given.out)
        return 0
    settle(given.threads)
    from benchmarks import report

    data = find_data(given.data)
    if data is None:
        print("no folder of real data sets found: using docstring pairs (see --data)")
    scale = QUICK if given.quick else FULL
    if given.rounds is not None:
        if given.rounds < 1:
            made.error("--rounds must be at least 1")
        scale = scale.in_rounds(given.rounds)
    context = Context(scale, given.threads, data, given.out.resolve(), _say)
    failed = []
    for name in [name for name in ENTRIES if name in given.only]:
        chosen = entry(name)
        print(f"\n== {chosen.title} ({name}) ==", flush=True)
        started, result, error = time.perf_counter(), Result(), None
        try:
            result = chosen.run(context)
        except ContestantFailed as problem:
            error = str(problem)
            failed.append(name)
            print(f"FAILED: {error}", file=sys.stderr)
        kept = report.record(chosen, context, time.perf_counter() - started, result, error)
        if left_out(result) and (context.out / f"{name}.json").is_file():
            print(f"not possible here: the record that is in {context.out} stays")
        else:
            report.save(kept, context.out)
        print("\n".join(report.lines(kept)))
        failed += [f"{name}: {check.what}" for check in result.checks if not check.holds]
        print(f"\n{kept.seconds:,.0f} s", flush=True)
    for what in failed:
        print(f"does not hold: {what}", file=sys.stderr)
    return 1 if failed else 0


def left_out(result: Result) -> bool:
    """Whether an entry found nothing because it cannot run on this machine."""
    return bool(result.skipped) and not result.tables


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


def _write(out: Path) -> None:
    """The page and its picture, from the results that are there."""
    from benchmarks import plot, report

    files = [out / f"{name}.json" for name in ENTRIES]
    records = [report.load(file) for file in files if file.is_file()]
    page, picture = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.png"
    drawn = plot.draw(records, picture)
    page.write_text(report.document(records, picture.name if drawn else ""), encoding="utf-8")
    print(f"wrote {page}")


if __name__ == "__main__":
    sys.exit(main())
