"""How fast T5 and a decoder alone write on a card, beside transformers: a part of `gpu_speed`."""

from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

from benchmarks import chat_speed, material
from benchmarks.card import Peak
from benchmarks.chat_speed import in_common
from benchmarks.entry import Check, Context, Ratio, Result, Table
from benchmarks.generation_contestants import GenerationSetup, Job, Made, mainspring, transformers
from benchmarks.generation_speed import HF, LONGEST, OURS, VOCABULARY, same_rows, source_ids
from benchmarks.measure import ratio, spread, turn_order
from benchmarks.training_contestants import Save, Steps, TrainingSetup
from benchmarks.training_contestants import mainspring as teacher
from benchmarks.turns import Contestant, playing

SIZE, TEACHING_TOKENS = "t5-small", 16_384
SHAPES = {  # (rows, beams) of a batch
    "1 row": (1, 1),
    "32 rows": (32, 1),
    "8 rows x 4 beams": (8, 4),
    "256 rows": (256, 1),
}
CHAT_SHAPES = {"1 row": (1, 1), "32 rows": (32, 1)}
COMPARED = "32 rows"  # the job whose tokens are compared
NARROW: Literal["bfloat16"] = "bfloat16"
WIDE: Literal["float32"] = "float32"
KINDS: tuple[Literal["bfloat16", "float32"], ...] = (NARROW, WIDE)
SAME = 0.95  # the share of rows that must be written alike in float32
NEAR = 0.1  # by how much the peer may stay nearer to its float32 than we to ours


@dataclass
class Rounds:
    """What was measured, round by round, by (job, contestant); the first round warmed up. `wide`
    are the rows that everyone wrote in float32."""

    made: dict[tuple[str, str], list[Made]] = field(default_factory=dict)
    peaks: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    wide: dict[str, list[list[int]]] = field(default_factory=dict)
    how: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def measure_t5(context: Context, device: str, size: str = SIZE) -> Result:
    """A T5-small that was taught on the card, on real texts."""
    scale = context.scale
    texts, longer = material.corpus(context), material.corpus(context, material.LONG)
    tokenizer = material.tokenizer(context, texts)
    folder = _taught(context, texts, size, device)
    sources = source_ids(longer.test[: max(rows for rows, _ in SHAPES.values())], tokenizer)
    assert tokenizer.eos_id is not None
    rows = tuple((*ids[: LONGEST - 1], tokenizer.eos_id) for ids in sources)
    jobs = _jobs(context, SHAPES, rows)
    lengths = [len(row) for row in rows]
    about = (
        f"Taught for {scale.gpu.teaching_steps} steps on {texts.name}, vocabulary of {VOCABULARY} "
        f"rows; sources of {min(lengths)} to {max(lengths)} tokens, mean "
        f"{sum(lengths) / len(lengths):.0f}."
    )
    return measure(context, size, folder, jobs, device, about)


def measure_chat(context: Context, device: str) -> Result:
    """The shape of SmolLM2-135M."""
    folder, weights = material.chat_model(context)
    most = max(rows for rows, _ in CHAT_SHAPES.values())
    jobs = _jobs(context, CHAT_SHAPES, chat_speed.prompts(context, folder, most))
    about = f"{weights}; prompts of {chat_speed.PROMPT} tokens of real texts."
    return measure(context, "SmolLM2-135M", folder, jobs, device, about)


def _jobs(
    context: Context, shapes: dict[str, tuple[int, int]], rows: tuple[tuple[int, ...], ...]
) -> dict[str, Job]:
    """By name, all of forced length. Rows come again where there are too few."""
    scale = context.scale
    return {
        what: Job(
            tuple(islice(cycle(rows), count)),
            scale.gpu.new_tokens,
            beams,
            forced=True,
            static=what in scale.gpu.static,
        )
        for what, (count, beams) in shapes.items()
    }


def _taught(context: Context, texts: material.Corpus, size: str, device: str) -> Path:
    """A T5 that has opinions: kept between runs."""
    scale = context.scale
    tokenizer = material.tokenizer(context, texts)
    tokens = min(TEACHING_TOKENS, scale.gpu.tokens)
    steps = scale.gpu.teaching_steps
    folder = context.out / "kept" / f"taught-{device}-{size}-{texts.hash}-{steps}x{tokens}"
    if (folder / "config.json").is_file():
        return folder
    context.say(f"teaching a {size} for {steps} steps (kept for the next run)")
    bundle = material.new_model(size, tokenizer, rows=VOCABULARY)
    setup = TrainingSetup(
        material.saved(context, f"teaching-{size}", bundle),
        material.encode(texts.train, tokenizer, 256, 32),
        NARROW,
        tokens,
        warmup=max(1, steps // 20),
        total=steps,
        device=device,
    )
    with playing([Contestant("teacher", teacher, setup)]) as team:
        team.ask("teacher", Steps(steps))
        team.ask("teacher", Save(folder))
    return folder


def measure(
    context: Context, model: str, folder: Path, jobs: dict[str, Job], device: str, about: str
) -> Result:
    """Jobs in bfloat16 in interleaved rounds; in float32 one job, once, for its tokens."""
    rounds = Rounds()
    with playing(_contestants(context, folder, device)) as team:
        narrow = [name for name in team.names if name.endswith(NARROW)]
        for number in range(context.scale.gpu.rounds + 1):
            context.say(
                f"writing with {model}, round {number} of {context.scale.gpu.rounds}"
                if number
                else f"writing with {model}, warming up"
            )
            for what, job in jobs.items():
                for name in turn_order(narrow, number):
                    rounds.made.setdefault((what, name), []).append(team.ask(name, job))
                    rounds.peaks.setdefault((what, name), []).append(team.ask(name, Peak()))
        for name in team.names:
            if name.endswith(WIDE):
                made: Made = team.ask(name, replace(jobs[COMPARED], static=False))
                rounds.wide[name] = made.rows
        rounds.how, rounds.skipped = dict(team.descriptions), dict(team.skipped)
    return result(model, jobs, rounds, about)


def _contestants(context: Context, folder: Path, device: str) -> list[Contestant]:
    found = []
    for kind in KINDS:
        setup = GenerationSetup(folder, kind, context.threads, device=device)
        found.append(Contestant(f"{OURS} {kind}", mainspring, setup))
        found.append(Contestant(f"{HF} {kind}", transformers, setup, ("transformers",)))
    return found


def result(model: str, jobs: dict[str, Job], rounds: Rounds, about: str) -> Result:
    """Tables, ratios and checks of the rounds that count."""
    names = list(dict.fromkeys(name for _, name in rounds.made))
    speeds = {key: [one.speed for one in found[1:]] for key, found in rounds.made.items()}
    peaks = {key: max(found[1:]) for key, found in rounds.peaks.items()}
    new = next(iter(jobs.values())).new_tokens
    speed_rows = tuple(
        (name, *(spread(speeds[what, name]).shown(",.0f") for what in jobs)) for name in names
    )
    peak_rows = tuple(
        (name, *(f"{peaks[what, name] / 1e9:.2f}" for what in jobs), rounds.how[name])
        for name in names
    )
    chosen = tuple(
        (what, name, found[-1].how) for (what, name), found in rounds.made.items() if found[-1].how
    )
    settings = Table(
        f"The fastest settings of transformers for {model} on a card, by trial",
        ("batch", "contestant", "settings"),
        chosen,
    )
    return Result(
        tables=(
            Table(
                f"New tokens per second, {model} on a card, {new} new ones forced",
                ("", *jobs),
                speed_rows,
                about,
            ),
            Table(f"Peak memory of the card, {model}, GB", ("", *jobs, "how"), peak_rows),
            *((settings,) if chosen else ()),
        ),
        ratios=_ratios(model, jobs, speeds, peaks),
        checks=(*_agreement(model, rounds, new), _same_work(model, jobs, rounds)),
        skipped=tuple(f"{model}, {name}: {why}" for name, why in rounds.skipped.items()),
        data={
            f"writing {model}": {
                "tokens_per_second": {f"{w} | {name}": v for (w, name), v in speeds.items()},
                "peak_bytes": {f"{w} | {name}": v for (w, name), v in peaks.items()},
            }
        },
    )


def _ratios(
    model: str,
    jobs: dict[str, Job],
    speeds: dict[tuple[str, str], list[float]],
    peaks: dict[tuple[str, str], int],
) -> tuple[Ratio, ...]:
    ours, theirs = f"{OURS} {NARROW}", f"{HF} {NARROW}"
    found = []
    for what in jobs:
        if (what, theirs) in speeds:
            label = f"writing on a card, {model}, {what}"
            faster = ratio(speeds[what, ours], speeds[what, theirs])
            share = spread([peaks[what, ours] / peaks[what, theirs]])
            found.append(Ratio(f"{label}, tokens/s", ours, theirs, faster))
            found.append(Ratio(f"{label}, peak memory", ours, theirs, share, less=True))
    return tuple(found)


def _agreement(model: str, rounds: Rounds, new: int) -> list[Check]:
    """float32 rows are the same but at rare ties; bfloat16 strays no farther than the peer's."""
    checks = []
    ours, theirs = f"{OURS} {WIDE}", f"{HF} {WIDE}"
    if theirs in rounds.wide:
        share = same_rows(rounds.wide[ours], rounds.wide[theirs])
        what = f"{model}: greedy rows in float32 are those of {theirs}, {SAME:.0%} at least"
        checks.append(Check(what, f"{share:.1%}", share >= SAME))
    alike, shown = {}, []
    for who in (OURS, HF):
        wide, name = f"{who} {WIDE}", f"{who} {NARROW}"
        if wide in rounds.wide and (COMPARED, name) in rounds.made:
            pairs = rounds.wide[wide], rounds.made[COMPARED, name][0].rows
            common = [in_common(a, b) / new for a, b in zip(*pairs, strict=True)]
            alike[who] = sum(common) / len(common)
            shown.append(f"{who} {alike[who]:.1%}, whole rows {same_rows(*pairs):.1%}")
    checks.append(
        Check(
            f"{model}: tokens alike from the first on in bfloat16 and float32, as the peer's",
            "; ".join(shown),
            HF not in alike or alike[OURS] >= alike[HF] - NEAR,
        )
    )
    return checks


def _same_work(model: str, jobs: dict[str, Job], rounds: Rounds) -> Check:
    """Everyone makes exactly what was asked for."""
    wrong = [
        f"{name}: {one.tokens} in {what}"
        for (what, name), found in rounds.made.items()
        for one in found
        if one.tokens != len(jobs[what].rows) * jobs[what].new_tokens
    ]
    what = f"{model}: everyone makes the same number of tokens"
    return Check(what, "; ".join(wrong) or "all", not wrong)
