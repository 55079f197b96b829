"""The confusion matrix of single labels: a table as CSV, and a picture."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mainspring import events
from mainspring.extras import PLOT

WRITTEN_IN = 25  # labels up to which the counts stand in the picture's cells
NAMED, LARGEST = 100, 40.0  # labels up to which the axes name them; inches of a side at most
# Families that have more than Latin letters, as they are called on the systems that have them.
WIDE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei"),
    *("Arial Unicode MS", "Droid Sans Fallback"),
)


def write_confusion(counts: Counter[tuple[str, str]], labels: Sequence[str], out: Path) -> None:
    """How often each (true, predicted) came: `confusion.csv` (a row for each true label, a column
    for each predicted one) and, where matplotlib is installed, `confusion.png`, whose rows are
    coloured by their shares."""
    matrix = [[counts[true, predicted] for predicted in labels] for true in labels]
    with (out / "confusion.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["true \\ predicted", *labels])
        writer.writerows([label, *row] for label, row in zip(labels, matrix, strict=True))
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        events.note(f"no picture of the confusion matrix: it needs {PLOT.command}")
    else:
        _draw(matrix, labels, out / "confusion.png")


def _draw(matrix: Sequence[Sequence[int]], labels: Sequence[str], file: Path) -> None:
    import numpy as np
    from matplotlib.figure import Figure

    table = np.array(matrix, dtype=np.float64)
    shares = table / np.maximum(1, table.sum(1, keepdims=True))
    side = min(max(4.0, 1.5 + 0.35 * len(labels)), LARGEST)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(labels))
    if len(labels) <= NAMED:
        names, font = _drawable(labels)
        axes.set_xticks(places, names, rotation=90, fontfamily=font)
        axes.set_yticks(places, names, fontfamily=font)
    else:
        events.note(f"confusion.png counts its {len(labels)} labels as confusion.csv orders them")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(labels) <= WRITTEN_IN:
        for row in places:
            for column in places:
                if table[row, column]:
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    count = f"{table[row, column]:.0f}"
                    axes.text(column, row, count, ha="center", va="center", color=colour)
    figure.savefig(file, dpi=150)


def _drawable(labels: Sequence[str]) -> tuple[list[str], str]:
    """The labels and a font that has all of their letters; numbers in the order of `confusion.csv`
    where no font here has."""
    from matplotlib import font_manager

    letters = {ord(letter) for label in labels for letter in label}
    default = "DejaVu Sans"
    here: dict[str, Any] = {font.name: font.fname for font in font_manager.fontManager.ttflist}
    for name in (default, *WIDE_FONTS):
        if name in here:
            font = font_manager.get_font(here[name])
            if all(font.get_char_index(letter) for letter in letters):
                return [label.replace("$", r"\$") for label in labels], name
    events.note("no font here has the labels' letters: confusion.png numbers them instead")
    return [str(number) for number in range(1, len(labels) + 1)], default
