"""How fast T5 trains and models write on a card, ours beside transformers; all in bfloat16."""

import os
from collections.abc import Callable
from functools import partial

from benchmarks import gpu_generation, gpu_training
from benchmarks.entry import Check, Context, Entry, Result, joined
from benchmarks.turns import ContestantFailed

DEVICE = "cuda"


def run(context: Context) -> Result:
    """Every part on the first card; a part that fails leaves the others their results."""
    import torch

    if not torch.cuda.is_available():
        return Result(skipped=("no CUDA device: nothing was measured",))
    # One card for everyone: the Trainer would spread its batches over all that it sees.
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[0]
    parts: dict[str, Callable[[], Result]] = {
        f"training {size}": partial(gpu_training.measure, context, size, DEVICE)
        for size in context.scale.gpu.sizes
    }
    parts["writing with T5"] = partial(gpu_generation.measure_t5, context, DEVICE)
    parts["writing with a decoder alone"] = partial(gpu_generation.measure_chat, context, DEVICE)
    card = Result(
        notes=(
            f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, CUDA "
            f"{torch.version.cuda}. Clocks wait for the card. Peaks are of tensors on the card.",
        )
    )
    return joined([*(_tried(name, part) for name, part in parts.items()), card])


def _tried(name: str, part: Callable[[], Result]) -> Result:
    """A part's result, or that it failed."""
    try:
        return part()
    except ContestantFailed as problem:
        last = str(problem).strip().splitlines()[-1]
        return Result(checks=(Check(f"{name} runs to its end", last, False),))


ENTRY = Entry(
    "gpu_speed",
    "On a graphics card",
    "How fast does T5 train on a card, and how fast do models write there, beside transformers?",
    run,
)
