"""How fast a 135M chat model writes: one row and eight, beside transformers and llama.cpp."""

from pathlib import Path

from benchmarks import material
from benchmarks.chat_contestants import LlamaSetup, llama_cpp
from benchmarks.entry import Check, Context, Entry, Ratio, Result, Table
from benchmarks.generation_contestants import (
    GenerationSetup,
    Job,
    Made,
    mainspring,
    transformers,
)
from benchmarks.measure import ratio, spread, turn_order
from benchmarks.turns import Contestant, missing, playing

PROMPT = 64  # tokens
OURS, HF, LLAMA = "Mainspring", "transformers", "llama.cpp"
ROWS = (1, 8)
NEEDED = ("xllamacpp", "gguf")  # for llama.cpp
PAIRS = (  # ours, theirs, the rows, the goal
    (f"{OURS} bfloat16", f"{HF} bfloat16", 1, 3.0),
    (f"{OURS} int8", f"{HF} bfloat16", 1, 4.0),
    (f"{OURS} int8", f"{LLAMA} int8", 1, None),
    (f"{OURS} bfloat16", f"{HF} bfloat16", 8, None),
    (f"{OURS} int8", f"{HF} bfloat16", 8, None),
    (f"{OURS} int8", f"{LLAMA} int8", 8, 1.0),
)


def run(context: Context) -> Result:
    """Interleaved rounds of jobs with forced lengths; the first round warms up."""
    writing = context.scale.writing
    folder, weights = material.chat_model(context)
    jobs = _jobs(context, folder)
    made: dict[tuple[int, str], list[Made]] = {}
    with playing(_contestants(context, folder)) as team:
        for number in range(writing.rounds + 1):
            context.say(f"round {number} of {writing.rounds}" if number else "warming up")
            for rows, job in jobs.items():
                for name in turn_order(team.names, number):
                    made.setdefault((rows, name), []).append(team.ask(name, job))
        names, how, skipped = team.names, dict(team.descriptions), dict(team.skipped)
    peaks = team.peaks
    counted = {key: found[1:] for key, found in made.items()}
    speeds = {key: [one.speed for one in found] for key, found in counted.items()}
    table = Table(
        f"New tokens per second, prompts of {PROMPT} tokens, {writing.chat_tokens} new ones",
        ("", *(f"{rows} row" + "s" * (rows > 1) for rows in ROWS), "peak GB", "how"),
        tuple(
            (
                name,
                *(spread(speeds[rows, name]).shown(",.0f") for rows in ROWS),
                f"{peaks[name] / 1e9:.2f}",
                "; ".join(filter(None, (how[name], counted[ROWS[0], name][-1].how))),
            )
            for name in names
        ),
        f"{weights}; reading the prompts is part of the time.",
    )
    return Result(
        tables=(table,),
        ratios=tuple(
            Ratio(
                f"writing, {rows} row" + "s" * (rows > 1) + ", tokens/s",
                ours,
                theirs,
                ratio(speeds[rows, ours], speeds[rows, theirs]),
                goal,
            )
            for ours, theirs, rows, goal in PAIRS
            if (rows, ours) in speeds and (rows, theirs) in speeds
        ),
        checks=_checks(context, counted, names),
        skipped=tuple(f"{name}: {why}" for name, why in skipped.items()),
        data={
            "tokens_per_second": {
                f"{rows} | {name}": found for (rows, name), found in speeds.items()
            }
        },
    )


def _contestants(context: Context, folder: Path) -> list[Contestant]:
    from mainspring.checkpoints.bundle import load

    def setup(precision: str) -> GenerationSetup:
        return GenerationSetup(folder, precision, context.threads)  # type: ignore[arg-type]

    file = context.out / "models" / "chat-q8_0.gguf"
    if not missing(NEEDED):
        load(folder).save_gguf(file, "q8_0")
    longest = PROMPT + context.scale.writing.chat_tokens
    gguf = LlamaSetup(file, context.threads, max(ROWS), longest)
    return [
        Contestant(f"{OURS} bfloat16", mainspring, setup("bfloat16")),
        Contestant(f"{OURS} int8", mainspring, setup("int8")),
        Contestant(f"{HF} bfloat16", transformers, setup("bfloat16"), ("transformers",)),
        Contestant(f"{LLAMA} int8", llama_cpp, gguf, NEEDED),
    ]


def _jobs(context: Context, folder: Path) -> dict[int, Job]:
    """By the number of rows."""
    rows = prompts(context, folder, max(ROWS))
    return {
        count: Job(rows[:count], context.scale.writing.chat_tokens, forced=True) for count in ROWS
    }


def prompts(context: Context, folder: Path, count: int) -> tuple[tuple[int, ...], ...]:
    """Stretches of real text, all of one length, by the tokenizer of the model in `folder`."""
    from mainspring.checkpoints.tokenizer import Tokenizer

    tokenizer = Tokenizer.open(folder)
    assert tokenizer is not None
    texts = material.corpus(context)
    ends = {tokenizer.eos_id, tokenizer.bos_id}
    flow = [i for text, _ in texts.test[:64] for i in tokenizer.encode(text) if i not in ends]
    return tuple(tuple(flow[at : at + PROMPT]) for at in range(0, count * PROMPT, PROMPT))


def _checks(
    context: Context, made: dict[tuple[int, str], list[Made]], names: list[str]
) -> tuple[Check, ...]:
    """Everyone makes as many tokens; what 16 and 8 bits change of the text is shown."""
    new_tokens = context.scale.writing.chat_tokens
    wrong = [
        f"{name}: {found[0].tokens} for {rows} rows"
        for (rows, name), found in made.items()
        if found[0].tokens != rows * new_tokens
    ]
    base = made[8, f"{OURS} bfloat16"][0].rows
    alike = {
        name: sum(in_common(a, b) for a, b in zip(base, made[8, name][0].rows, strict=True)) / 8
        for name in names
    }
    return (
        Check("everyone makes the same number of tokens", "; ".join(wrong) or "all", not wrong),
        Check(
            f"tokens alike from the first on, of {new_tokens}, as {OURS} bfloat16",
            ", ".join(f"{name} {count:.0f}" for name, count in alike.items()),
            all(count > 0 for count in alike.values()),
        ),
    )


def in_common(a: list[int], b: list[int]) -> int:
    """How many tokens two rows have in common before they part."""
    pairs = zip(a, b, strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


ENTRY = Entry(
    "chat_speed",
    "Chat speed",
    "How fast does a 135M chat model write, beside transformers and llama.cpp?",
    run,
)
