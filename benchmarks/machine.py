"""What this machine can do at best: matrix products at the shapes that are used, memory reads."""

from collections import Counter
from collections.abc import Sequence

from benchmarks.arithmetic import Product, decoding_weights, weight_products
from benchmarks.entry import Context, Entry, Result, Table
from benchmarks.measure import spread
from benchmarks.products import DecodingProducts, Kind, Rates, Read, TrainingProducts, play
from benchmarks.turns import Contestant, playing

VOCABULARY = 32128
SOURCE, TARGET = 3776, 320  # the tokens of a step of 4,096 on short texts
TRAINING_KINDS: tuple[Kind, ...] = ("bfloat16", "float32")
ROWS = (1, 32)
PARTS = ("forward", "input_gradient", "weight_gradient", "together")
Request = TrainingProducts | DecodingProducts | Read


def run(context: Context) -> Result:
    """Products of a T5-small training step and of a decoding step, and plain reads."""
    from mainspring.compute import packed
    from mainspring.families.t5 import FAMILY

    spec = FAMILY.spec({**FAMILY.sizes["t5-small"], "vocab_size": VOCABULARY}, ())
    products = _joined(weight_products(spec, SOURCE, TARGET))
    weights = tuple(decoding_weights(spec))
    held = sum(inside * outside for inside, outside in weights)
    kinds: list[Kind] = ["float32", "bfloat16"]
    if packed.has_bfloat16():
        kinds.append("packed bfloat16")
    sizes = {"float32": 4 * held, "bfloat16": 2 * held, "packed bfloat16": 2 * held}
    training = {
        kind: [TrainingProducts((product,), kind) for product in products]
        for kind in TRAINING_KINDS
    }
    decoding = [DecodingProducts(weights, rows, kind) for kind in kinds for rows in ROWS]
    reads = [Read(4 * held), Read(2 * held), Read(held)]
    shapes = [request for asked in training.values() for request in asked]
    requests: list[Request] = [*shapes, *decoding, *reads]
    found: dict[Request, list] = {request: [] for request in requests}
    with playing([Contestant("products", play, "cpu")]) as team:
        for number in range(context.scale.product_rounds):
            context.say(f"products and reads, round {number + 1}")
            for request in requests if number % 2 == 0 else reversed(requests):
                found[request].append(team.ask("products", request))
    rows = []
    together: dict[str, list[float]] = {}
    for kind, asked in training.items():
        for request in asked:
            (p,) = request.products
            rows.append(_row(f"{p.rows} x {p.inside} x {p.outside}, {kind}", found[request]))
        step = [_step(products, rates) for rates in zip(*(found[r] for r in asked), strict=True)]
        rows.append(_row(f"all of a step, {kind}", step))
        together[kind] = [rates.together for rates in step]
    steps = []
    for request in decoding:
        seconds = spread([1e3 * s for s in found[request]])
        speed = spread([sizes[request.kind] / s / 1e9 for s in found[request]])
        steps.append((f"{request.kind}, {request.rows} rows", seconds.shown(), speed.shown(".1f")))
    plain = [
        (f"{read.bytes / 1e6:,.0f} MB", spread([v / 1e9 for v in found[read]]).shown(".1f"))
        for read in reads
    ]
    return Result(
        tables=(
            Table(
                "Matrix products of training, GFLOP/s",
                ("rows x inside x outside", "forward", "input gradient", "weight gradient", "all"),
                tuple(rows),
                f"The shapes of a T5-small step with {SOURCE} source and {TARGET} target tokens, "
                "by torch's plain products; median and quartiles.",
            ),
            Table(
                "The weights of one decoding step, one product after another",
                ("arithmetic", "ms", "GB/s"),
                tuple(steps),
                f"{held / 1e6:.0f} million weights of T5-small's decoder and head.",
            ),
            Table("Memory read", ("size", "GB/s"), tuple(plain), "A float32 sum over the memory."),
        ),
        data={"training": together},
    )


def _joined(products: list[Product]) -> tuple[Product, ...]:
    """Equal shapes as one, with their counts added."""
    counts: Counter[tuple[int, int, int]] = Counter()
    for product in products:
        counts[product.rows, product.inside, product.outside] += product.count
    return tuple(Product(*shape, count) for shape, count in counts.items())


def _step(products: Sequence[Product], rates: Sequence[Rates]) -> Rates:
    """The rates of a whole step from those of its products."""

    def all_of(part: str) -> float:
        seconds = (p.flops / getattr(r, part) for p, r in zip(products, rates, strict=True))
        return sum(p.flops for p in products) / sum(seconds)

    return Rates(*map(all_of, PARTS))


def _row(name: str, rates: Sequence[Rates]) -> tuple[str, ...]:
    cells = ([getattr(r, part) / 1e9 for r in rates] for part in PARTS)
    return (name, *(spread(values).shown(",.0f") for values in cells))


ENTRY = Entry(
    "machine",
    "What this machine can do",
    "How fast are plain matrix products and memory reads at the shapes that are used?",
    run,
)
