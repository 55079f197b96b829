"""`make demo`: the main job on real input, from nothing to a running summarizer in a few minutes.

It collects docstrings of the installed Python packages (body -> its first line), trains a small T5
from scratch for about two minutes, scores it against the first sentence of each text, shows
examples, and runs the saved folder from the command line.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import docstrings
import mainspring

EXAMPLES = 5


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, default=Path(".demo"))
    arguments.add_argument("--minutes", type=float, default=2.0)
    chosen = arguments.parse_args()
    data, out = chosen.folder / "docstrings", chosen.folder / "model"
    shutil.rmtree(chosen.folder, ignore_errors=True)

    say("1. Data: docstrings of the Python packages installed here, body -> first line")
    counts = docstrings.write(data)
    print(", ".join(f"{name} {count}" for name, count in counts.items()), "(split by package)")

    say(f"2. Training a T5 from scratch for {chosen.minutes:g} minutes")
    scratch = ["--from-scratch", "t5-tiny", "--vocabulary", 4000]
    limits = ["--max-source", 192, "--max-target", 32, "--minutes", chosen.minutes]
    scoring = ["--metric-rows", 40, "--patience", 0]
    command(["fit", "summarize", data, "--out", out, *scratch, *limits, *scoring])

    say("3. Scores on packages it has never seen, beside the first sentence of each text")
    command(["evaluate", "summarize", data / "test.jsonl", "--model", out, "--limit", 150])

    say(f"4. {EXAMPLES} of them")
    rows = (data / "test.jsonl").read_text(encoding="utf-8").splitlines()[:EXAMPLES]
    texts = [json.loads(row) for row in rows]
    made = mainspring.run("summarize", *(row["text"] for row in texts), model=str(out))
    for row, answer in zip(texts, made, strict=True):
        print(f"\ntext       {row['text'][:240]}")
        print(f"reference  {row['summary']}")
        print(f"model      {answer['summary']}")

    say("5. The saved folder, from the command line")
    command(["run", "summarize", texts[0]["text"], "--model", out, "--num-beams", 4])

    print(
        "\nTwo minutes from nothing are a demonstration: the model has learnt the form of a "
        "summary line\nand little more. For real use start from a pretrained model:\n"
        "  mainspring fit summarize YOUR.csv --model google-t5/t5-small --out runs/mine"
    )


def say(title: str) -> None:
    print(f"\n== {title}", flush=True)


def command(words: list) -> None:
    """Runs a `mainspring` command in the way a user would, and shows it."""
    words = [str(word) for word in words]
    shown = " ".join(word if " " not in word else f"'{word[:50]}…'" for word in words)
    print(f"$ mainspring {shown}", flush=True)
    subprocess.run([sys.executable, "-m", "mainspring", *words], check=True)


if __name__ == "__main__":
    main()
