"""The same training by Mainspring and by transformers: the same initial weights, token ids,
batches, order, AdamW settings and learning rates, no dropout. The losses must be the same but for
rounding, in training and afterwards on rows of the test set."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks import material
from benchmarks.entry import Check, Context, Entry, Ratio, Result, Table
from benchmarks.measure import ratio, spread, turn_order
from benchmarks.training_contestants import (
    Save,
    Steps,
    Trained,
    TrainingSetup,
    falls,
    mainspring,
    plain_loop,
)
from benchmarks.turns import Contestant, playing
from mainspring.formulations import EncodedRow

SOURCE, TARGET = 96, 24  # token limits
VOCABULARY = 2000
TESTED = 1000  # rows
BLOCKS = 8
OURS, THEIRS = "Mainspring float32", "transformers float32"
OURS_NARROW, THEIRS_NARROW = "Mainspring bfloat16", "transformers bfloat16"
CONTROL = "transformers float32, eager"
PEER = ("transformers", "accelerate")
# Rounding differs between two correct implementations as between two kernels of one of them.
NOISE = 4.0


def run(context: Context) -> Result:
    """Trains each contestant in turn, a block of steps at a time; then tests the models."""
    scale = context.scale
    texts = material.corpus(context)
    tokenizer = material.tokenizer(context, texts, VOCABULARY)
    bundle = material.new_model(scale.curve.size, tokenizer, dropout=0.0)
    folder = material.saved(context, f"curve-{scale.curve.size}", bundle)
    rows = material.encode(texts.train, tokenizer, SOURCE, TARGET)

    def setup(precision: str, attention: str | None = None) -> TrainingSetup:
        return TrainingSetup(
            folder,
            rows,
            precision,  # type: ignore[arg-type]
            scale.curve.tokens,
            warmup=max(1, scale.curve.steps // 20),
            total=scale.curve.steps,
            attention=attention,
        )

    contestants = [
        Contestant(OURS, mainspring, setup("float32")),
        Contestant(THEIRS, plain_loop, setup("float32"), PEER),
        Contestant(CONTROL, plain_loop, setup("float32", "eager"), PEER),
        Contestant(OURS_NARROW, mainspring, setup("bfloat16")),
        Contestant(THEIRS_NARROW, plain_loop, setup("bfloat16"), PEER),
    ]
    done: dict[str, list[Trained]] = {}
    models: dict[str, Path] = {}
    with playing(contestants) as team:
        for block in range(BLOCKS):
            context.say(f"training, block {block + 1} of {BLOCKS}")
            for name in turn_order(team.names, block):
                reply = team.ask(name, Steps(scale.curve.steps // BLOCKS))
                done.setdefault(name, []).append(reply)
        for name in team.names:
            models[name] = context.out / "models" / f"curve-{name.replace(' ', '-')}"
            team.ask(name, Save(models[name]))
        skipped = [f"{name}: {why}" for name, why in team.skipped.items()]
    speeds = _speeds(done)
    losses = {name: [x for block in blocks for x in block.losses] for name, blocks in done.items()}
    tested = list(material.encode(texts.test[:TESTED], tokenizer, SOURCE, TARGET))
    context.say(f"testing on {len(tested)} rows")
    tests = {name: _row_losses(model, tested) for name, model in models.items()}
    return Result(
        tables=(
            *_difference_tables(losses),
            _test_table(tests, texts.name),
            _speed_table(speeds),
        ),
        ratios=_ratios(speeds),
        checks=(*_loss_checks(losses), *_test_checks(tests)),
        skipped=tuple(skipped),
        notes=(
            f"{scale.curve.size}, {tokenizer.vocabulary} tokens; {scale.curve.steps} steps of "
            f"{scale.curve.tokens} tokens of {texts.name}, sources cut at {SOURCE} tokens; so "
            "short a training makes a weak model: what counts is that it is the same one.",
        ),
        data={"losses": losses},
    )


# -- losses ----------------------------------------------------------------------------------------


def differences(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [abs(x - y) for x, y in zip(a, b, strict=True)]


PAIRS = (
    (OURS, THEIRS, "ours against theirs, float32"),
    (CONTROL, THEIRS, "theirs against theirs with other attention kernels, float32"),
    (OURS_NARROW, OURS, "our bfloat16 against our float32"),
    (THEIRS_NARROW, THEIRS, "their bfloat16 against their float32"),
    (OURS_NARROW, THEIRS_NARROW, "our bfloat16 against theirs"),
)


def spans(steps: int) -> list[range]:
    """The steps in parts that grow, counted from 0: the first, then up to a tenth, a third, all."""
    ends = sorted({1, max(1, steps // 10), max(1, steps // 3), steps})
    return [range(a, b) for a, b in zip([0, *ends], ends, strict=False)]


def _difference_tables(losses: dict[str, list[float]]) -> list[Table]:
    if THEIRS not in losses:
        return []
    parts = spans(len(losses[OURS]))
    names = [f"step {r.stop}" if len(r) == 1 else f"{r.start + 1}–{r.stop}" for r in parts]
    rows = []
    for a, b, what in PAIRS:
        found = differences(losses[a], losses[b])
        largest = (f"{max(found[i] for i in part):.1e}" for part in parts)
        rows.append((what, *largest, f"{sum(found) / len(found):.1e}"))
    curve = [
        (name, *(f"{values[part.stop - 1]:.4f}" for part in parts))
        for name, values in losses.items()
    ]
    return [
        Table(
            "Largest difference of the losses of a step, nats per token",
            ("", *(f"{name}" for name in names), "mean of all"),
            tuple(rows),
            "The second line is the yardstick: what rounding alone makes of the same training. "
            "Training amplifies rounding, so differences grow with the steps in any case.",
        ),
        Table("Losses", ("after step", *(str(part.stop) for part in parts)), tuple(curve)),
    ]


def _loss_checks(losses: dict[str, list[float]]) -> list[Check]:
    checks = [
        Check(f"the loss of {name} is finite and falls", f"{x[0]:.3f} to {x[-1]:.3f}", falls(x))
        for name, x in losses.items()
    ]
    if THEIRS not in losses:
        return checks
    mean = {(a, b): _mean(differences(losses[a], losses[b])) for a, b, _ in PAIRS}
    first = abs(losses[OURS][0] - losses[THEIRS][0]) / losses[THEIRS][0]
    ours, noise = mean[OURS, THEIRS], mean[CONTROL, THEIRS]
    ours_narrow, theirs_narrow = mean[OURS_NARROW, OURS], mean[THEIRS_NARROW, THEIRS]
    return [
        *checks,
        Check("the first loss is the same in float32", f"{first:.1e} apart", first < 1e-5),
        Check(
            f"float32 losses differ by no more than rounding does (mean within {NOISE:g} times)",
            f"{ours:.1e} against {noise:.1e}",
            ours <= NOISE * max(noise, 1e-6),
        ),
        Check(
            "our bfloat16 stays as close to float32 as theirs (within twice)",
            f"{ours_narrow:.1e} against {theirs_narrow:.1e}",
            ours_narrow <= 2 * theirs_narrow,
        ),
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# -- rows that nobody was trained on ---------------------------------------------------------------


def _row_losses(folder: Path, tested: Sequence[EncodedRow]) -> list[float]:
    """Nats per token of each row's answer, in float32 by our forward pass whoever trained it."""
    from mainspring.checkpoints.bundle import load
    from mainspring.formulations.likelihood import nats
    from mainspring.formulations.sequence_to_sequence import FORMULATION

    found = nats(load(folder), FORMULATION, tested)
    return [loss / len(row.target) for loss, row in zip(found, tested, strict=True)]


def _test_table(tests: dict[str, list[float]], corpus: str) -> Table:
    from mainspring.metrics.intervals import interval

    rows = []
    for name, losses in tests.items():
        low, high = interval(losses)
        apart = {
            other: f"{_mean(differences(losses, tests[other])):.1e}" if other != name else "–"
            for other in (OURS, THEIRS)
            if other in tests
        }
        rows.append((name, f"{_mean(losses):.4f} ({low:.4f}–{high:.4f})", *apart.values()))
    against = (f"distance from {name}" for name in (OURS, THEIRS) if name in tests)
    return Table(
        f"Loss on {len(next(iter(tests.values())))} test rows of {corpus}, nats per token",
        ("trained by", "mean of the rows (95 % interval)", *against),
        tuple(rows),
        "Distances are means over the rows of how far their losses lie apart.",
    )


def _test_checks(tests: dict[str, list[float]]) -> list[Check]:
    if THEIRS not in tests:
        return []
    far = {(a, b): _mean(differences(tests[a], tests[b])) for a, b, _ in PAIRS}
    ours, noise = far[OURS, THEIRS], far[CONTROL, THEIRS]
    ours_narrow, theirs_narrow = far[OURS_NARROW, OURS], far[THEIRS_NARROW, THEIRS]
    return [
        Check(
            f"so do the losses of test rows (mean within {NOISE:g} times)",
            f"{ours:.1e} against {noise:.1e}",
            ours <= NOISE * max(noise, 1e-6),
        ),
        Check(
            "and those in bfloat16 (within twice theirs)",
            f"{ours_narrow:.1e} against {theirs_narrow:.1e}",
            ours_narrow <= 2 * theirs_narrow,
        ),
    ]


def _speeds(done: dict[str, list[Trained]]) -> dict[str, list[float]]:
    """Real tokens per second, a by-product; the first block of each warms up."""
    return {name: [block.speed for block in blocks[1:]] for name, blocks in done.items()}


def _speed_table(speeds: dict[str, list[float]]) -> Table:
    rows = tuple((name, spread(values).shown(",.0f")) for name, values in speeds.items())
    return Table("Real tokens per second of these trainings", ("", "tokens/s"), rows)


def _ratios(speeds: dict[str, list[float]]) -> tuple[Ratio, ...]:
    pairs = ((OURS, THEIRS, 1.0), (OURS_NARROW, THEIRS_NARROW, None))
    return tuple(
        Ratio("the same batches, tokens/s", a, b, ratio(speeds[a], speeds[b]), goal)
        for a, b, goal in pairs
        if b in speeds
    )


ENTRY = Entry(
    "training_curve",
    "The same training",
    "Does Mainspring learn what transformers learns, step by step, and know the same afterwards?",
    run,
)
