"""How fast SmolLM2-135M learns by LoRA on real pairs: whole optimizer steps, real tokens only."""

from dataclasses import replace
from pathlib import Path

from benchmarks import material
from benchmarks.entry import Check, Context, Entry, Ratio, Result, Table, joined
from benchmarks.lora_contestants import ROWS, LoraSetup, mainspring, peft
from benchmarks.measure import ratio, spread, turn_order
from benchmarks.training_contestants import Steps, Trained, falls
from benchmarks.turns import Contestant, playing
from mainspring.training.rows import EncodedRows

OURS = "Mainspring, as fit --lora does it"
SIXTEEN = f"transformers + peft, batches of {ROWS}"
SAME = "transformers + peft, our batches"
PEER = ("transformers", "peft")
SOURCE, TARGET = 256, 32  # token limits, those of the recipe for Debian's descriptions


def run(context: Context) -> Result:
    """Beside one peer after the other: all at once take more memory than most machines have."""
    tokens = context.scale.lora.tokens
    folder, rows, weights = prepared(context)
    ours = Contestant(OURS, mainspring, LoraSetup(folder, rows, tokens))
    parts = []
    for name, size in ((SIXTEEN, None), (SAME, tokens)):
        theirs = Contestant(name, peft, LoraSetup(folder, rows, size), PEER)
        part = _beside(context, [ours, theirs], weights)
        parts.append(replace(part, data={name: part.data}))
    return joined(parts)


def _beside(context: Context, contestants: list[Contestant], weights: str) -> Result:
    """Blocks of steps, interleaved; the first block of each warms up."""
    scale = context.scale
    done: dict[str, list[Trained]] = {}
    with playing(contestants) as team:
        for number in range(scale.lora.rounds + 1):
            context.say(f"round {number} of {scale.lora.rounds}" if number else "warming up")
            for name in turn_order(team.names, number):
                done.setdefault(name, []).append(team.ask(name, Steps(scale.lora.steps)))
        how, skipped = dict(team.descriptions), dict(team.skipped)
    found = result(done, how, team.peaks, weights)
    return replace(found, skipped=tuple(f"{name}: {why}" for name, why in skipped.items()))


def result(
    done: dict[str, list[Trained]], how: dict[str, str], peaks: dict[str, int], weights: str
) -> Result:
    """Tables and ratios of the blocks of each contestant, the first of which warmed up."""
    speeds = {name: [block.speed for block in blocks[1:]] for name, blocks in done.items()}
    lines = tuple(
        (
            name,
            spread(speeds[name]).shown(",.0f"),
            f"{sum(b.tokens for b in blocks) / sum(len(b.losses) for b in blocks):,.0f}",
            f"{peaks[name] / 1e9:.2f}",
            how[name],
        )
        for name, blocks in done.items()
    )
    ratios = [
        Ratio("training, real tokens/s", OURS, name, ratio(speeds[OURS], speeds[name]), 3.0)
        for name in (SIXTEEN, SAME)
        if name in speeds
    ]
    ratios += [
        Ratio("peak memory", OURS, name, spread([peaks[OURS] / peaks[name]]), 1.0, less=True)
        for name in (SIXTEEN, SAME)
        if name in speeds
    ]
    losses = {name: [x for b in blocks for x in b.losses] for name, blocks in done.items()}
    return Result(
        tables=(
            Table(
                "LoRA of rank 16 on all linear layers of SmolLM2-135M, bfloat16, AdamW, clipping",
                ("", "real tokens/s", "tokens a step", "peak GB", "how"),
                lines,
                f"{weights}; prompts and answers, loss on the answers.",
            ),
        ),
        ratios=tuple(ratios),
        checks=tuple(
            Check(
                f"the loss of {name} is finite and falls",
                f"{found[0]:.2f} to {found[-1]:.2f}",
                falls(found),
            )
            for name, found in losses.items()
        ),
        data={"tokens_per_second": speeds},
    )


def prepared(context: Context) -> tuple[Path, EncodedRows, str]:
    """The model's folder, the rows to learn from, and whose weights these are."""
    from mainspring.formulations import Limits, Setup
    from mainspring.formulations.causal import FORMULATION

    texts = material.corpus(context)
    bundle, weights = material.starter(context)
    assert bundle.tokenizer is not None
    values = [{"text": text, "target": summary} for text, summary in texts.train[:2000]]
    setup = Setup(Limits(SOURCE, TARGET), prefix="Summarize: ", suffix="\n")
    rows = EncodedRows(FORMULATION.encode(values, bundle.tokenizer, setup))
    return material.saved(context, "lora-135m", bundle), rows, weights


ENTRY = Entry(
    "lora_speed",
    "LoRA training speed",
    "How many real tokens a second does a 135M decoder learn on by LoRA, beside PEFT?",
    run,
)
