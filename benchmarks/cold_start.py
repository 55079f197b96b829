"""From nothing to the first summary, and to the first training step: time and memory."""

import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks import material, training_speed
from benchmarks.entry import Check, Context, Entry, Ratio, Result, Table
from benchmarks.generation_speed import taught_model
from benchmarks.measure import ratio, spread, turn_order
from benchmarks.training_contestants import Steps
from benchmarks.turns import missing, playing, waiting_as_they_like

HERE = Path(__file__).parent
NEW_TOKENS = 32
TRAINING_STEPS = 2
PRECISIONS = ("bfloat16", "float32")
OURS, THEIRS = "Mainspring", "transformers"


def run(context: Context) -> Result:
    """Processes started in turn; the first of each warms the machine's file cache."""
    texts = material.corpus(context)
    tokenizer = material.tokenizer(context, texts)
    folder = taught_model(context, texts, tokenizer)
    commands = _commands(folder, " ".join(texts.test[0][0].split()))
    skipped = []
    if missing(["transformers"]):
        commands = {key: value for key, value in commands.items() if key[0] == OURS}
        skipped.append("transformers: not installed")
    found: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in commands}
    for number in range(context.scale.cold_rounds + 1):
        context.say(f"first summaries, round {number}")
        keys = {" ".join(key): key for key in commands}
        for name in turn_order(list(keys), number):
            with waiting_as_they_like() if keys[name][0] == THEIRS else nullcontext():
                reply = _launch(commands[keys[name]])
            if number:
                found[keys[name]].append(reply)
    steps = _first_steps(context)
    return Result(
        tables=(_summary_table(found), _step_table(steps)),
        ratios=(*_summary_ratios(found), *_step_ratios(steps)),
        checks=_checks(found),
        skipped=tuple(skipped),
        notes=(
            "Ours is the command `mainspring run summarize TEXT --model FOLDER --precision P`, "
            "theirs benchmarks/cold_transformers.py; the same folder, the same text, "
            f"{NEW_TOKENS} new tokens at most. Files are in the system's cache for both.",
        ),
        data={"seconds": {" ".join(key): [r["first"] for r in all] for key, all in found.items()}},
    )


def _commands(folder: Path, text: str) -> dict[tuple[str, str], list[str]]:
    made = {}
    for kind in PRECISIONS:
        made[OURS, kind] = [
            *(sys.executable, "-m", "mainspring", "run", "summarize", text, "--quiet"),
            *("--model", str(folder), "--precision", kind, "--max-new-tokens", str(NEW_TOKENS)),
        ]
        script = str(HERE / "cold_transformers.py")
        made[THEIRS, kind] = [sys.executable, script, str(folder), kind, str(NEW_TOKENS), text]
    return made


def _launch(command: list[str]) -> dict[str, Any]:
    """The reply of `launch.py`; the command must succeed."""
    launcher = [sys.executable, "-S", "-E", str(HERE / "launch.py")]
    done = subprocess.run([*launcher, *command], capture_output=True, text=True, check=False)
    reply: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"status": done.returncode}
    if reply["status"] != 0:
        from benchmarks.turns import ContestantFailed

        raise ContestantFailed(
            f"{' '.join(command[:4])} …: exit code {reply['status']}\n{done.stderr}"
        )
    return reply


def _first_steps(context: Context) -> dict[str, list[tuple[float, int]]]:
    """(seconds until the first steps are done, peak bytes) of training processes, by name."""
    contestants, _ = training_speed.prepared(
        context, context.scale.training.size, context.scale.training.tokens
    )
    contestants = [c for c in contestants if c.name != training_speed.ALIKE]
    found: dict[str, list[tuple[float, int]]] = {}
    for number in range(max(1, context.scale.cold_rounds // 2)):
        context.say(f"first training steps, round {number + 1}")
        by_name = {c.name: c for c in contestants}
        for name in turn_order(list(by_name), number):
            started = time.perf_counter()
            with playing([by_name[name]]) as team:
                if not team.names:
                    continue
                team.ask(name, Steps(TRAINING_STEPS))
                seconds = time.perf_counter() - started
            found.setdefault(name, []).append((seconds, team.peaks[name]))
    return found


# -- what is shown ---------------------------------------------------------------------------------


def _summary_table(found: dict[tuple[str, str], list[dict[str, Any]]]) -> Table:
    rows = tuple(
        (
            " ".join(key),
            spread([reply["first"] for reply in replies]).shown(),
            spread([reply["peak"] / 1e9 for reply in replies]).shown(),
        )
        for key, replies in found.items()
    )
    return Table("From a cold process to the first summary", ("", "seconds", "peak GB"), rows)


def _step_table(steps: dict[str, list[tuple[float, int]]]) -> Table:
    rows = tuple(
        (
            name,
            spread([seconds for seconds, _ in runs]).shown(),
            spread([peak / 1e9 for _, peak in runs]).shown(),
        )
        for name, runs in steps.items()
    )
    title = f"From a cold process to the end of the first {TRAINING_STEPS} training steps"
    note = "As in the entry on training speed; the defaults' batches hold fewer tokens."
    return Table(title, ("", "seconds", "peak GB"), rows, note)


def _summary_ratios(found: dict[tuple[str, str], list[dict[str, Any]]]) -> list[Ratio]:
    made = []
    for kind in PRECISIONS:
        if (THEIRS, kind) not in found:
            continue
        ours, theirs = found[OURS, kind], found[THEIRS, kind]
        for what, key, goal in (
            ("time to the first summary", "first", 0.6),
            ("peak memory to the first summary", "peak", 1.0),
        ):
            both = ([reply[key] for reply in replies] for replies in (ours, theirs))
            names = f"{OURS} {kind}", f"{THEIRS} {kind}"
            made.append(Ratio(what, *names, ratio(*both), goal, less=True))
    return made


def _step_ratios(steps: dict[str, list[tuple[float, int]]]) -> list[Ratio]:
    ours, theirs = steps[training_speed.OURS], steps.get(training_speed.BATCHES)
    if theirs is None:
        return []
    names = training_speed.OURS, training_speed.BATCHES
    peaks = ratio([peak for _, peak in ours], [peak for _, peak in theirs])
    times = ratio([seconds for seconds, _ in ours], [seconds for seconds, _ in theirs])
    return [
        Ratio("peak memory of training", *names, peaks, 1.0, less=True),
        Ratio("time to the first training steps", *names, times, None, less=True),
    ]


def _checks(found: dict[tuple[str, str], list[dict[str, Any]]]) -> tuple[Check, ...]:
    key = (THEIRS, "float32")
    if key not in found:
        return ()
    ours, theirs = found[OURS, "float32"][0]["text"], found[key][0]["text"].strip()
    return (Check("both write the same summary in float32", repr(ours), ours == theirs),)


ENTRY = Entry(
    "cold_start",
    "Cold start and memory",
    "How long until the first summary and the first training step, and in how much memory?",
    run,
)
