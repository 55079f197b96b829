"""How fast a T5-small writes: one row, many rows, beams; and whether all write the same."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import material
from benchmarks.entry import Check, Context, Entry, Ratio, Result, Table
from benchmarks.generation_contestants import (
    GenerationSetup,
    Job,
    Made,
    ctranslate2,
    mainspring,
    transformers,
)
from benchmarks.measure import ratio, spread, turn_order
from benchmarks.training_contestants import Save, Steps, TrainingSetup
from benchmarks.training_contestants import mainspring as teacher
from benchmarks.turns import Contestant, Team, playing

if TYPE_CHECKING:
    from mainspring.checkpoints.tokenizer import Tokenizer

VOCABULARY = 32128
FIXED = 256  # tokens of the sources that are all of one length
LONGEST = 512
SHORT_ANSWER = 32
WARMING = 2  # new tokens of the round that does not count
OURS, HF, CT2 = "Mainspring", "transformers", "CTranslate2"
# (rows, beams) of a batch, and what is asked of it: against transformers in bfloat16, against
# CTranslate2 in int8.
SHAPES = {
    "1 row": (1, 1, 3.0, 1.2),
    "32 rows": (32, 1, 3.0, 1.5),
    "8 rows x 4 beams": (8, 4, 4.0, 1.5),
}
PAIRS = (  # ours, theirs, which of the goals
    (f"{OURS} bfloat16", f"{HF} bfloat16", 0),
    (f"{OURS} int8", f"{CT2} int8", 1),
    (f"{OURS} float32", f"{HF} float32", None),
    (f"{OURS} float32", f"{CT2} float32", None),
)
ROUGE_LOSS = 0.3  # what 8 bits may cost


def run(context: Context) -> Result:
    """Jobs in interleaved rounds, then the same test rows written by everyone."""
    scale = context.scale
    texts = material.corpus(context)
    tokenizer = material.tokenizer(context, texts)
    folder = taught_model(context, texts, tokenizer)
    jobs = _jobs(context, texts, tokenizer)
    tested = texts.test[: scale.rouge_rows]
    made: dict[tuple[str, str], list[Made]] = {}
    with playing(contestants(context, folder)) as team:
        for number in range(scale.writing.rounds + 1):
            context.say(f"round {number} of {scale.writing.rounds}" if number else "warming up")
            for what, job in jobs.items():
                chosen = [
                    n for n in team.names if plays(n, what, number <= scale.writing.extra_rounds)
                ]
                for name in turn_order(chosen, number):
                    if number:
                        made.setdefault((what, name), []).append(team.ask(name, job))
                    else:
                        team.ask(name, replace(job, new_tokens=WARMING))
        context.say(f"writing the answers to {len(tested)} test rows with everyone")
        answers = {name: _answers(team, name, tested, tokenizer) for name in team.names}
        names, skipped = team.names, dict(team.skipped)
        how = dict(team.descriptions)
    return Result(
        tables=(*_tables(made, jobs, names), _peak_table(team.peaks, how), *_chosen(made)),
        ratios=(*_ratios(made), *_memory_ratios(team.peaks)),
        checks=(
            *_agreement(answers, tested, tokenizer, folder),
            *_rouge_checks(answers, tested, tokenizer),
            *_same_work(made, jobs),
        ),
        skipped=tuple(f"{name}: {why}" for name, why in skipped.items()),
        notes=(
            f"{scale.training.size} shape, vocabulary of {VOCABULARY} rows, taught for "
            f"{scale.teaching.steps} steps on {texts.name}. `real`: sources of a test set as they "
            f"come, {scale.writing.new_tokens} new tokens forced; `{FIXED}`: sources of exactly "
            f"{FIXED} tokens, the same; `until done`: the model decides where a row ends, "
            f"{SHORT_ANSWER} tokens at most.",
        ),
        data={
            "tokens_per_second": {
                f"{what} | {name}": [m.speed for m in found] for (what, name), found in made.items()
            }
        },
    )


def plays(name: str, what: str, extra: bool) -> bool:
    """Who has a turn: the narrow precisions with real sources always, the rest of it (float32
    with real sources, the narrow ones with other jobs) in the first, extra rounds."""
    narrow, real = not name.endswith("float32"), what.startswith("real")
    return (narrow and real) or (extra and narrow != real)


def contestants(context: Context, folder: Path) -> list[Contestant]:
    """Everyone who can write with the model in `folder`."""

    def setup(precision: str) -> GenerationSetup:
        converted = context.out / "models" / f"ctranslate2-{precision}"
        shutil.rmtree(converted, ignore_errors=True)
        return GenerationSetup(folder, precision, context.threads, converted)  # type: ignore[arg-type]

    return [
        *(
            Contestant(f"{OURS} {kind}", mainspring, setup(kind))
            for kind in ("float32", "bfloat16", "int8")
        ),
        *(
            Contestant(f"{HF} {kind}", transformers, setup(kind), ("transformers",))
            for kind in ("float32", "bfloat16")
        ),
        *(
            Contestant(f"{CT2} {kind}", ctranslate2, setup(kind), ("ctranslate2", "transformers"))
            for kind in ("float32", "int8")
        ),
    ]


# -- the model and the work ------------------------------------------------------------------------


def taught_model(context: Context, texts: material.Corpus, tokenizer: "Tokenizer") -> Path:
    """A T5-small trained for a minute or two, so that it has opinions: kept between runs."""
    scale = context.scale
    size = scale.training.size
    name = f"taught-{size}-{texts.hash}-{scale.teaching.steps}x{scale.teaching.tokens}"
    folder = context.out / "kept" / name
    if (folder / "config.json").is_file():
        return folder
    context.say(f"teaching a {size} for {scale.teaching.steps} steps (kept for the next run)")
    bundle = material.new_model(size, tokenizer, rows=VOCABULARY)
    setup = TrainingSetup(
        material.saved(context, f"teaching-{size}", bundle),
        material.encode(texts.train, tokenizer, 256, 32),
        "bfloat16" if _fast_bfloat16() else "float32",
        scale.teaching.tokens,
        warmup=max(1, scale.teaching.steps // 20),
        total=scale.teaching.steps,
    )
    with playing([Contestant("teacher", teacher, setup)]) as team:
        team.ask("teacher", Steps(scale.teaching.steps))
        team.ask("teacher", Save(folder))
    return folder


def _fast_bfloat16() -> bool:
    from mainspring.compute.hardware import detect

    return detect().fast_bfloat16


def _jobs(context: Context, texts: material.Corpus, tokenizer: "Tokenizer") -> dict[str, Job]:
    """By name: sources x shapes x how rows end."""
    longer = material.corpus(context, material.LONG)
    real = [ids[: LONGEST - 1] for ids in source_ids(longer.test[:64], tokenizer)]
    short = source_ids(texts.test[:64], tokenizer)
    flow = [i for ids in source_ids(texts.test, tokenizer) for i in ids]
    fixed = [flow[at : at + FIXED - 1] for at in range(0, 32 * (FIXED - 1), FIXED - 1)]
    sources = {
        "real": (real, context.scale.writing.new_tokens, True),
        str(FIXED): (fixed, context.scale.writing.new_tokens, True),
        "until done": (short, SHORT_ANSWER, False),
    }
    eos = tokenizer.eos_id
    assert eos is not None
    return {
        f"{kind}, {shape}": Job(
            tuple((*row, eos) for row in rows[:count]), new_tokens, beams, forced
        )
        for kind, (rows, new_tokens, forced) in sources.items()
        for shape, (count, beams, _, _) in SHAPES.items()
    }


def source_ids(pairs: list[material.Pair], tokenizer: "Tokenizer") -> list[list[int]]:
    """Token ids of the sources, without the end token."""
    return [ids[:-1] for ids in tokenizer.encode_many([text for text, _ in pairs])]


def _answers(
    team: Team, name: str, tested: list[material.Pair], tokenizer: "Tokenizer"
) -> list[list[int]]:
    """Greedy answers in the order of the rows; rows of like length share a batch."""
    eos = tokenizer.eos_id
    assert eos is not None
    rows = [(*ids[: LONGEST - 1], eos) for ids in source_ids(tested, tokenizer)]
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    found: dict[int, list[int]] = {}
    for at in range(0, len(order), 25):
        places = order[at : at + 25]
        reply: Made = team.ask(name, Job(tuple(rows[i] for i in places), SHORT_ANSWER))
        found |= dict(zip(places, reply.rows, strict=True))
    return [found[row] for row in range(len(rows))]


# -- speed -----------------------------------------------------------------------------------------


def _tables(
    made: dict[tuple[str, str], list[Made]], jobs: dict[str, Job], names: list[str]
) -> list[Table]:
    kinds = dict.fromkeys(what.split(",")[0] for what in jobs)
    tables = []
    for kind in kinds:
        rows = [
            (name, *(_speed(made[f"{kind}, {shape}", name]) for shape in SHAPES))
            for name in names
            if (f"{kind}, 1 row", name) in made
        ]
        sources = [len(row) for row in jobs[f"{kind}, 32 rows"].rows]
        tables.append(
            Table(
                f"New tokens per second, {kind}",
                ("", *SHAPES),
                tuple(rows),
                f"Sources of {min(sources)} to {max(sources)} tokens, mean "
                f"{sum(sources) / len(sources):.0f}.",
            )
        )
    return tables


def _speed(found: list[Made]) -> str:
    return spread([m.speed for m in found]).shown(",.0f")


def _peak_table(peaks: dict[str, int], how: dict[str, str]) -> Table:
    rows = tuple((name, f"{peak / 1e9:.2f}", how[name]) for name, peak in peaks.items())
    return Table("Peak memory of each process over all jobs", ("", "GB", "how"), rows)


def _chosen(made: dict[tuple[str, str], list[Made]]) -> list[Table]:
    """The settings that the peers were run with, where there was a choice."""
    rows = tuple(
        (shape, name, found[-1].how)
        for shape in SHAPES
        for (what, name), found in made.items()
        if what == f"real, {shape}" and found[-1].how
    )
    title = "The fastest settings of the peers, by trial"
    return [Table(title, ("batch", "contestant", "settings"), rows)] if rows else []


def _ratios(made: dict[tuple[str, str], list[Made]]) -> list[Ratio]:
    found = []
    for what in dict.fromkeys(what for what, _ in made):
        kind, shape = what.split(", ")
        for ours, theirs, goal in PAIRS:
            if (what, ours) not in made or (what, theirs) not in made:
                continue
            speeds = ([m.speed for m in made[what, name]] for name in (ours, theirs))
            wanted = SHAPES[shape][2 + goal] if goal is not None and kind == "real" else None
            label = f"generation, {what}, tokens/s"
            found.append(Ratio(label, ours, theirs, ratio(*speeds), wanted))
    return found


def _memory_ratios(peaks: dict[str, int]) -> list[Ratio]:
    return [
        Ratio(
            "peak memory, generation",
            ours,
            theirs,
            spread([peaks[ours] / peaks[theirs]]),
            1.0 if theirs.startswith(HF) else None,
            less=True,
        )
        for ours, theirs, _ in PAIRS
        if ours in peaks and theirs in peaks
    ]


def _same_work(made: dict[tuple[str, str], list[Made]], jobs: dict[str, Job]) -> list[Check]:
    """Forced jobs make exactly what was asked for."""
    wrong = [
        f"{name}: {found[0].tokens} in {what}"
        for (what, name), found in made.items()
        if jobs[what].forced and found[0].tokens != len(jobs[what].rows) * jobs[what].new_tokens
    ]
    return [
        Check("forced jobs make the same number of tokens", "; ".join(wrong) or "all", not wrong)
    ]


# -- agreement -------------------------------------------------------------------------------------


def same_rows(a: list[list[int]], b: list[list[int]]) -> float:
    """The share of rows with the same tokens."""
    return sum(x == y for x, y in zip(a, b, strict=True)) / len(a)


def _agreement(
    answers: dict[str, list[list[int]]],
    tested: list[material.Pair],
    tokenizer: "Tokenizer",
    folder: Path,
) -> list[Check]:
    """float32 answers must be the same but at ties; bfloat16 ones are compared as shares."""
    wide = answers[f"{OURS} float32"]
    checks = []
    for theirs in (f"{HF} float32", f"{CT2} float32"):
        if theirs in answers:
            share = same_rows(wide, answers[theirs])
            gap = _largest_gap(wide, answers[theirs], tested, tokenizer, folder)
            checks.append(
                Check(
                    f"greedy tokens in float32 are those of {theirs}, but at ties",
                    f"{share:.1%} of the rows; the largest gap of logits at a difference is "
                    f"{gap:.1e}"
                    if share < 1
                    else "all rows",
                    gap < 1e-3,
                )
            )
    shares = {
        ours: same_rows(answers[name], answers[base])
        for ours in (OURS, HF)
        if (name := f"{ours} bfloat16") in answers and (base := f"{ours} float32") in answers
    }
    found = ", ".join(f"{who} {share:.1%}" for who, share in shares.items())
    fair = OURS in shares and (HF not in shares or shares[OURS] >= shares[HF] - 0.1)
    checks.append(
        Check("rows written alike in bfloat16 and float32, as many as the peer's", found, fair)
    )
    return checks


def _largest_gap(
    ours: list[list[int]],
    theirs: list[list[int]],
    tested: list[material.Pair],
    tokenizer: "Tokenizer",
    folder: Path,
) -> float:
    """How far apart our logits are for the two tokens where answers first differ: 0 is a tie."""
    import torch

    from mainspring.checkpoints.bundle import load

    differing = [row for row, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    if not differing:
        return 0.0
    bundle, eos = load(folder), tokenizer.eos_id
    assert eos is not None
    gaps = []
    for row in differing:
        a, b = [*ours[row], eos], [*theirs[row], eos]
        at = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
        source = [*source_ids([tested[row]], tokenizer)[0][: LONGEST - 1], eos]
        start = bundle.generation["decoder_start_token_id"]
        with torch.inference_mode():
            logits = bundle.model(
                input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[start, *a[:at]]])
            ).logits[0, -1]
        gaps.append(float((logits[a[at]] - logits[b[at]]).abs()))
    return max(gaps)


def _rouge_checks(
    answers: dict[str, list[list[int]]], tested: list[material.Pair], tokenizer: "Tokenizer"
) -> list[Check]:
    """What narrow arithmetic costs on real data."""
    from mainspring.metrics.rouge import METRIC

    wanted = [summary for _, summary in tested]
    kind = METRIC.choose_kind(wanted)

    def means(name: str) -> dict[str, float]:
        rows = METRIC.score_rows([tokenizer.decode(ids) for ids in answers[name]], wanted, kind)
        return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}

    found = {name: means(name) for name in answers}
    checks = []
    for who, kinds in ((OURS, ("bfloat16", "int8")), (HF, ("bfloat16",)), (CT2, ("int8",))):
        base = found.get(f"{who} float32")
        for narrow in kinds:
            scores = found.get(f"{who} {narrow}")
            if base is None or scores is None:
                continue
            worst = max((abs(scores[key] - base[key]) for key in base), default=math.nan)
            checks.append(
                Check(
                    f"ROUGE of {who} {narrow} is within {ROUGE_LOSS} of its float32",
                    f"ROUGE-L {scores['rougeL']:.2f} against {base['rougeL']:.2f}, largest "
                    f"difference of the four {worst:.2f}",
                    worst <= ROUGE_LOSS or who != OURS,
                )
            )
    return checks


ENTRY = Entry(
    "generation_speed",
    "Generation speed",
    "How many new tokens a second does T5-small write, and do all write the same?",
    run,
)
