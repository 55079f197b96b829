"""How fast T5 trains on a card, beside transformers' Trainer: a part of `gpu_speed`."""

from dataclasses import dataclass, field

from benchmarks.arithmetic import Product, training_flops
from benchmarks.card import Peak
from benchmarks.entry import Check, Context, Ratio, Result, Table
from benchmarks.measure import ratio, spread, turn_order
from benchmarks.products import Rates, TrainingProducts, play
from benchmarks.training_contestants import Steps, Trained, falls
from benchmarks.training_speed import (
    BATCHES,
    DEFAULTS,
    OURS,
    PRODUCTS,
    VOCABULARY,
    mean_products,
    prepared,
    product_rate,
)
from benchmarks.turns import Contestant, Team, playing
from mainspring.spec import Model

LARGE = 8192  # rows and columns of both factors of the product that tells the card's rate


@dataclass
class Rounds:
    """What was measured, round by round; the first round warmed up. `large` and `own` are rates of
    matrix products, in operations a second: of a large one, and at the shapes of our step."""

    done: dict[str, list[Trained]] = field(default_factory=dict)
    peaks: dict[str, list[int]] = field(default_factory=dict)
    large: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    how: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def measure(context: Context, size: str, device: str, large: int = LARGE) -> Result:
    """Blocks of steps of all contestants, interleaved, and matrix products in each round."""
    scale, rounds = context.scale, Rounds()
    contestants, spec = prepared(context, size, scale.gpu.tokens, device)
    with playing([*contestants, Contestant(PRODUCTS, play, device)]) as team:
        for number in range(scale.gpu.rounds + 1):
            context.say(
                f"training {size}, round {number} of {scale.gpu.rounds}"
                if number
                else f"training {size}, warming up"
            )
            for name in turn_order([n for n in team.names if n != PRODUCTS], number):
                rounds.done.setdefault(name, []).append(team.ask(name, Steps(scale.gpu.steps)))
                rounds.peaks.setdefault(name, []).append(team.ask(name, Peak()))
            rounds.large.append(_large_rate(team, large))
            rounds.own.append(product_rate(team, mean_products(spec, rounds.done[OURS][-1])))
        rounds.how, rounds.skipped = dict(team.descriptions), dict(team.skipped)
    return result(size, spec, rounds)


def _large_rate(team: Team, large: int) -> float:
    """Operations a second of one large product in bfloat16."""
    product = Product(large, large, large)
    rates: Rates = team.ask(PRODUCTS, TrainingProducts((product,), "bfloat16"))
    return rates.forward


def result(size: str, spec: Model, rounds: Rounds) -> Result:
    """Table, ratios and checks of the rounds that count."""
    large, own = rounds.large[1:], rounds.own[1:]
    counted = {name: blocks[1:] for name, blocks in rounds.done.items()}
    speeds = {name: [block.speed for block in blocks] for name, blocks in counted.items()}
    reached = {
        name: [training_flops(spec, block.lengths) / block.seconds for block in blocks]
        for name, blocks in counted.items()
    }
    peaks = {name: max(found[1:]) for name, found in rounds.peaks.items()}
    rows = tuple(
        (
            name,
            spread(speeds[name]).shown(",.0f"),
            f"{sum(b.tokens for b in blocks) / sum(len(b.losses) for b in blocks):,.0f}",
            spread([block.seconds / len(block.losses) for block in blocks]).shown(".4f"),
            f"{spread(reached[name]).median / 1e12:,.1f}",
            f"{ratio(reached[name], large).median:.1%}",
            f"{ratio(reached[name], own).median:.1%}",
            f"{peaks[name] / 1e9:.2f}",
            rounds.how[name],
        )
        for name, blocks in counted.items()
    )
    columns = ("", "real tokens/s", "tokens a step", "s a step", "TFLOP/s", "MFU")
    table = Table(
        f"Training {size} in bfloat16 on a card (float32 weights, dropout 0.1, AdamW, clipping)",
        (*columns, "of our products", "peak GB", "how"),
        rows,
        f"Vocabulary of {VOCABULARY} rows, fresh weights. MFU: operations of the model (6 x "
        "weights x real tokens, and attention) against one large bfloat16 product on this card "
        f"({spread([rate / 1e12 for rate in large]).shown(',.0f')} TFLOP/s); `of our products`: "
        "against the products alone at the shapes of our step, forward and both gradients "
        f"({spread([rate / 1e12 for rate in own]).shown(',.0f')} TFLOP/s). Peak: memory of the "
        "card that tensors took.",
    )
    losses = {name: [x for b in blocks for x in b.losses] for name, blocks in rounds.done.items()}
    return Result(
        tables=(table,),
        ratios=_ratios(size, speeds, peaks),
        checks=tuple(
            Check(
                f"{size}: the loss of {name} is finite and falls",
                f"{found[0]:.2f} to {found[-1]:.2f}",
                falls(found),
            )
            for name, found in losses.items()
        ),
        skipped=tuple(f"{size}, {name}: {why}" for name, why in rounds.skipped.items()),
        data={
            f"training {size}": {
                "tokens_per_second": speeds,
                "flops": reached,
                "large_product_flops": large,
                "product_flops": own,
                "peak_bytes": peaks,
            }
        },
    )


def _ratios(size: str, speeds: dict[str, list[float]], peaks: dict[str, int]) -> tuple[Ratio, ...]:
    found = []
    for name in (DEFAULTS, BATCHES):
        if name in speeds:
            against = ratio(speeds[OURS], speeds[name])
            found.append(Ratio(f"training {size} on a card, real tokens/s", OURS, name, against))
    if BATCHES in speeds:
        share = spread([peaks[OURS] / peaks[BATCHES]])
        what = f"training {size} on a card, peak memory"
        found.append(Ratio(what, OURS, BATCHES, share, less=True))
    return tuple(found)
