"""`make demo`: the main job on real input, from a small pretrained model to one of your own.

It fetches the starter (SmolLM2-135M-Instruct, 98 MB, once), lets it summarize a text at once, then
collects docstrings of the installed Python packages (body -> its first line), fine-tunes the
starter on them with LoRA for about three minutes, and shows score and examples before and after.
Where the starter cannot be had (no network) it trains a small T5 from scratch instead.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import docstrings
import mainspring
from mainspring.errors import MainspringError

EXAMPLES, SCORED = 5, 100
STARTER = ["--max-source", 224, "--max-target", 32]
SCRATCH = ["--from-scratch", "t5-tiny", "--vocabulary", 4000, "--max-source", 192]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, default=Path(".demo"))
    arguments.add_argument("--minutes", type=float, default=3.0, help="of training")
    arguments.add_argument("--from-scratch", action="store_true", help="leave the starter out")
    chosen = arguments.parse_args()
    data, out = chosen.folder / "docstrings", chosen.folder / "model"
    shutil.rmtree(chosen.folder, ignore_errors=True)

    say("1. Data: docstrings of the Python packages installed here, body -> first line")
    counts = docstrings.write(data)
    print(", ".join(f"{name} {count}" for name, count in counts.items()), "(split by package)")
    test = data / "test.jsonl"
    lines = test.read_text(encoding="utf-8").splitlines()[:EXAMPLES]
    examples = [json.loads(line) for line in lines]

    before = None
    if not chosen.from_scratch and has_starter():
        before = "starter"
        say("2. A pretrained model reads one of them at once, without any training")
        run(["run", "summarize", examples[0]["text"], "--model", "starter"])
        say(f"3. What it scores on {SCORED} texts of packages kept apart")
        score(test, "starter")
    start = ["--model", "starter", "--lora", 16, *STARTER] if before else SCRATCH
    say(f"4. Training for {chosen.minutes:g} minutes")
    often = ["--metric-rows", 32, "--patience", 0, "--evaluate-every", 10_000]
    run(["fit", "summarize", data, "--out", out, *start, "--minutes", chosen.minutes, *often])

    say("5. What it scores now")
    score(test, out)

    say(f"6. {EXAMPLES} of them")
    models = {"before": before, "after": str(out)}
    made = {name: answers(examples, model) for name, model in models.items() if model}
    for number, row in enumerate(examples):
        print(f"\ntext       {row['text'][:240]}")
        print(f"reference  {row['summary']}")
        for name, texts in made.items():
            print(f"{name:9}  {texts[number]}")

    say("7. The saved folder, from the command line")
    run(["run", "summarize", examples[0]["text"], "--model", out])
    print(
        "\nThe same on your own data:\n"
        "  mainspring fit summarize YOUR.csv --model starter --lora 16 --out runs/mine"
        if before
        else "\nA few minutes from nothing are a demonstration: the model has learnt the form of a "
        "summary line\nand little more. For real use start from a pretrained model:\n"
        "  mainspring fit summarize YOUR.csv --model google-t5/t5-small --out runs/mine"
    )


def has_starter() -> bool:
    """Whether the starter is here, or could be fetched."""
    say("   The starter: a small pretrained model")
    try:
        with mainspring.show_progress():
            mainspring.get("starter")
    except MainspringError as error:
        print(f"The starter cannot be had ({error});\na small T5 is trained from scratch instead.")
        return False
    return True


def score(test: Path, model: Any) -> None:
    run(["evaluate", "summarize", test, "--model", model, "--limit", SCORED])


def answers(rows: list[dict[str, Any]], model: str) -> list[str]:
    made = mainspring.run("summarize", *(row["text"] for row in rows), model=model)
    return [row["summary"] for row in made]


def say(title: str) -> None:
    print(f"\n== {title}", flush=True)


def run(words: list[Any]) -> None:
    """Runs a `mainspring` command in the way a user would, and shows it."""
    words = [str(word) for word in words]
    shown = " ".join(word if " " not in word else f"'{word[:50]}…'" for word in words)
    print(f"$ mainspring {shown}", flush=True)
    subprocess.run([sys.executable, "-m", "mainspring", *words], check=True)


if __name__ == "__main__":
    main()
