"""The machine's own limits, measured by plain products and reads: no model, no library of ours
but the packed operators that inference uses.

Answers `TrainingProducts`, `DecodingProducts` and `Read`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.arithmetic import Product
from benchmarks.card import clock
from benchmarks.turns import Turns

Kind = Literal["float32", "bfloat16", "packed bfloat16"]
ENOUGH = 0.05  # seconds that a single timing lasts at least


@dataclass(frozen=True)
class TrainingProducts:
    """A request: these products forward, and the two of their backward passes."""

    products: tuple[Product, ...]
    kind: Kind


@dataclass(frozen=True)
class Rates:
    """Operations per second: forward, input gradient, weight gradient, and all of it together."""

    forward: float
    input_gradient: float
    weight_gradient: float
    together: float


@dataclass(frozen=True)
class DecodingProducts:
    """A request: `rows` activations times every weight (inside, outside), one after another."""

    weights: tuple[tuple[int, int], ...]
    rows: int
    kind: Kind


@dataclass(frozen=True)
class Read:
    """A request: read so many bytes of memory once."""

    bytes: int


def play(device: str, turns: Turns) -> None:
    """The contestant. Packed operators are the CPU's alone."""
    import torch

    held: dict[Any, Any] = {}
    turns.answer(f"torch {torch.__version__}")
    with torch.inference_mode():
        for request in turns:
            match request:
                case TrainingProducts(products, kind):
                    turns.answer(_training(products, getattr(torch, kind), device))
                case DecodingProducts():
                    if request not in held:
                        held.clear()
                        held[request] = _decoding(request, device)
                    turns.answer(_timed(held[request], device))
                case Read(size):
                    if request not in held:
                        held.clear()
                        held[request] = torch.zeros(size // 4, device=device)
                    turns.answer(size / _timed(held[request].sum, device))


def _timed(work: Callable[[], object], device: str) -> float:
    """Seconds of one call, from as many as last `ENOUGH`, after one to warm up.

    The clock waits for the device: it is read after one call, two, four ..., so that small
    products follow each other closely on a card.
    """
    work()
    calls, more, started = 0, 1, clock(device)
    while (seconds := clock(device) - started) < ENOUGH:
        for _ in range(more):
            work()
        calls, more = calls + more, 1 if device == "cpu" else 2 * more
    return seconds / calls


def _training(products: tuple[Product, ...], dtype: Any, device: str) -> Rates:
    import torch

    seconds, flops = [0.0, 0.0, 0.0], 0
    for product in products:
        x = torch.randn(product.rows, product.inside, device=device).to(dtype)
        weight = torch.randn(product.outside, product.inside, device=device).to(dtype)
        dy = torch.randn(product.rows, product.outside, device=device).to(dtype)
        works = (lambda: x @ weight.t(), lambda: dy @ weight, lambda: dy.t() @ x)  # noqa: B023
        for part, work in enumerate(works):
            seconds[part] += product.count * _timed(work, device)
        flops += product.flops
    forward, input_gradient, weight_gradient = (flops / s for s in seconds)
    return Rates(forward, input_gradient, weight_gradient, 3 * flops / sum(seconds))


def _decoding(request: DecodingProducts, device: str) -> Callable[[], object]:
    """One pass through all the weights."""
    import torch
    import torch.nn.functional as F

    from mainspring.compute import packed

    dtype = torch.float32 if request.kind == "float32" else torch.bfloat16

    def drawn(rows: int, inside: int) -> torch.Tensor:
        return torch.randn(rows, inside, device=device).to(dtype)

    weights = [drawn(outside, inside) for inside, outside in request.weights]
    inputs = {inside: drawn(request.rows, inside) for inside, _ in request.weights}
    pairs = [(inputs[inside], w) for (inside, _), w in zip(request.weights, weights, strict=True)]
    if request.kind != "packed bfloat16":
        return lambda: [F.linear(x, w) for x, w in pairs]
    ready = [(x, packed.pack_bfloat16(w)) for x, w in pairs]
    return lambda: [packed.linear_bfloat16(x, w, None) for x, w in ready]
