"""The picture in docs/: ratios with their quartiles, and the loss curves of the same training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.entry import Ratio
from benchmarks.report import Record
from benchmarks.turns import missing

CURVES = ("Mainspring float32", "transformers float32", "Mainspring bfloat16")


def draw(records: Sequence[Record], file: Path) -> bool:
    """Draws what there is; False where matplotlib is not installed or there is nothing."""
    ratios = [r for made in records for r in made.result.ratios if r.goal is not None]
    losses: dict[str, list[float]] = {}
    for made in records:
        losses |= made.result.data.get("losses", {})
    if missing(["matplotlib"]) or not ratios:
        return False
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    heights = 1.0 + 0.36 * len(ratios), 4.0  # inches
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(10, sum(heights)), height_ratios=heights, layout="constrained"
    )
    _bars(above, ratios)
    _curves(below, losses)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return True


def _bars(axes: Any, ratios: Sequence[Ratio]) -> None:
    """How many times better: speeds as they are, times and memory the other way round."""
    axes.set_title("Mainspring against the peers: medians, quartiles, goals (|)")
    for place, ratio in enumerate(ratios):
        found = ratio.spread
        values = (found.low, found.median, found.high, ratio.goal or 1.0)
        low, middle, high, goal = (1 / v for v in values) if ratio.less else values
        low, high = min(low, high), max(low, high)
        colour = "tab:blue" if ratio.reached else "tab:orange"
        errors = [[middle - low], [high - middle]]
        axes.barh(place, middle, xerr=errors, color=colour, height=0.6, capsize=3)
        axes.plot([goal, goal], [place - 0.4, place + 0.4], color="black")
        axes.text(high, place, f"  {middle:.2f}", va="center", fontsize=8)
    labels = [f"{r.what}\n{r.ours} / {r.theirs}" for r in ratios]
    axes.set_yticks(range(len(ratios)), labels, fontsize=7)
    axes.set_ylim(len(ratios) - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.set_xlabel("ours / theirs; of times and memory theirs / ours: more is better")


def _curves(axes: Any, losses: dict[str, list[float]]) -> None:
    axes.set_title("The same training, step by step")
    styles = ("-", "--", ":")
    for name, style in zip(CURVES, styles, strict=True):
        if name in losses:
            steps = range(1, len(losses[name]) + 1)
            axes.plot(steps, losses[name], style, label=name, linewidth=1.2)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats per token")
    if losses:
        axes.legend()
