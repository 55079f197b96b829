"""How fast a T5-small trains on real short texts: whole optimizer steps, real tokens only."""

from dataclasses import replace

from benchmarks import material
from benchmarks.arithmetic import Product, training_flops, weight_products
from benchmarks.entry import Check, Context, Entry, Ratio, Result, Table
from benchmarks.measure import ratio, spread, turn_order
from benchmarks.products import Rates, TrainingProducts, play
from benchmarks.training_contestants import (
    Steps,
    Trained,
    TrainingSetup,
    falls,
    mainspring,
    trainer,
)
from benchmarks.turns import Contestant, Team, playing
from mainspring.spec import Model

VOCABULARY = 32128
SOURCE, TARGET = 512, 128  # token limits, those of `fit`
OURS = "Mainspring, as fit does it"
DEFAULTS = "Trainer, its defaults"
ALIKE = "Trainer, rows of like lengths"
BATCHES = "Trainer, our batches"
PRODUCTS = "matrix products alone"
PEER = ("transformers", "accelerate")


def run(context: Context) -> Result:
    """Blocks of steps, interleaved; the first block of each warms up."""
    scale = context.scale
    contestants, spec = prepared(context, scale.training.size, scale.training.tokens)
    done: dict[str, list[Trained]] = {}
    rates: list[float] = []
    with playing([*contestants, Contestant(PRODUCTS, play, "cpu")]) as team:
        for number in range(scale.training.rounds + 1):
            context.say(f"round {number} of {scale.training.rounds}" if number else "warming up")
            for name in turn_order([n for n in team.names if n != PRODUCTS], number):
                done.setdefault(name, []).append(team.ask(name, Steps(scale.training.steps)))
            rates.append(product_rate(team, mean_products(spec, done[OURS][-1])))
        how, skipped = dict(team.descriptions), dict(team.skipped)
    peaks = team.peaks
    counted = {name: blocks[1:] for name, blocks in done.items()}
    speeds = {name: [block.speed for block in blocks] for name, blocks in counted.items()}
    reached = {
        name: [training_flops(spec, block.lengths) / block.seconds for block in blocks]
        for name, blocks in counted.items()
    }
    return Result(
        tables=(_table(scale.training.size, counted, reached, peaks, how),),
        ratios=_ratios(speeds, reached[OURS], rates[1:], peaks),
        checks=tuple(
            Check(
                f"the loss of {name} is finite and falls",
                f"{losses[0]:.2f} to {losses[-1]:.2f}",
                falls(losses),
            )
            for name, losses in (
                (name, [x for block in blocks for x in block.losses])
                for name, blocks in done.items()
            )
        ),
        skipped=tuple(f"{name}: {why}" for name, why in skipped.items()),
        notes=(
            "Operations are 6 x weights in matrix products x real tokens, and attention over whole "
            "rows (benchmarks/arithmetic.py); padding, norms, softmax and the optimizer count "
            "nothing. The rate of matrix products alone was measured in each round on the shapes "
            "of our step, forward and both gradients, by torch's plain products "
            f"({spread([rate / 1e9 for rate in rates[1:]]).shown(',.0f')} GFLOP/s).",
        ),
        data={"tokens_per_second": speeds, "flops": reached, "product_flops": rates[1:]},
    )


def prepared(
    context: Context, size: str, tokens: int, device: str = "cpu"
) -> tuple[list[Contestant], Model]:
    """Those who train, from the same fresh T5 of a size, and its spec. `tokens` are those of a
    step of our batches."""
    texts = material.corpus(context)
    tokenizer = material.tokenizer(context, texts)
    bundle = material.new_model(size, tokenizer, rows=VOCABULARY)
    folder = material.saved(context, f"training-{size}", bundle)
    rows = material.encode(texts.train, tokenizer, SOURCE, TARGET)

    alike = max(1, round(tokens / rows.token_counts.sum(1).mean()))  # as many tokens as ours

    plain = TrainingSetup(folder, rows, "bfloat16", None, device=device)
    ours = replace(plain, batch_tokens=tokens)
    contestants = [
        Contestant(OURS, mainspring, ours),
        Contestant(DEFAULTS, trainer, plain, PEER),
        Contestant(ALIKE, trainer, replace(plain, alike=alike), PEER),
        Contestant(BATCHES, trainer, ours, PEER),
    ]
    return contestants, bundle.spec


def mean_products(spec: Model, block: Trained) -> tuple[Product, ...]:
    """The products of a step of the block, on average."""
    source, target = (sum(side) for side in zip(*block.lengths, strict=True))
    steps = len(block.losses)
    return tuple(weight_products(spec, source // steps, target // steps))


def product_rate(team: Team, products: tuple[Product, ...]) -> float:
    rates: Rates = team.ask(PRODUCTS, TrainingProducts(products, "bfloat16"))
    return rates.together


def _table(
    size: str,
    done: dict[str, list[Trained]],
    reached: dict[str, list[float]],
    peaks: dict[str, int],
    how: dict[str, str],
) -> Table:
    rows = []
    for name, blocks in done.items():
        speed = spread([block.speed for block in blocks])
        per_step = spread([block.seconds / len(block.losses) for block in blocks])
        tokens = sum(b.tokens for b in blocks) / sum(len(b.losses) for b in blocks)
        rows.append(
            (
                name,
                speed.shown(",.0f"),
                f"{tokens:,.0f}",
                per_step.shown(),
                f"{spread(reached[name]).median / 1e9:,.0f}",
                f"{peaks[name] / 1e9:.2f}",
                how[name],
            )
        )
    columns = ("", "real tokens/s", "tokens a step", "s a step", "GFLOP/s", "peak GB", "how")
    return Table(
        f"Training {size} in bfloat16 (float32 weights, dropout 0.1, AdamW, clipping)",
        columns,
        tuple(rows),
        f"Vocabulary of {VOCABULARY} rows, fresh weights.",
    )


def _ratios(
    speeds: dict[str, list[float]],
    reached: list[float],
    rates: list[float],
    peaks: dict[str, int],
) -> tuple[Ratio, ...]:
    found = []
    what = "training, real tokens/s"
    for name, goal in ((DEFAULTS, 5.0), (ALIKE, 3.0), (BATCHES, 3.0)):
        if name in speeds:
            found.append(Ratio(what, OURS, name, ratio(speeds[OURS], speeds[name]), goal))
    for name in (ALIKE, BATCHES):
        if name in speeds:
            share = spread([peaks[OURS] / peaks[name]])
            found.append(Ratio("peak memory", OURS, name, share, 1.0, less=True))
    share = ratio(reached, rates)
    return (*found, Ratio("share of the matrix-product rate", OURS, PRODUCTS, share, 0.5))


ENTRY = Entry(
    "training_speed",
    "Training speed",
    "How many real tokens a second does T5-small train on, and how near is that to the machine?",
    run,
)
