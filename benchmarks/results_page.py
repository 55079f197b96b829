"""docs/results.md and its picture, from the records that the measurements of results left."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.graph_questions import FILE as GRAPH
from benchmarks.recipes import RECIPES, Recipe
from benchmarks.retrieval import FILE as RETRIEVAL
from benchmarks.turns import missing

ROOT = Path(__file__).parent.parent
PAGE, PICTURE = ROOT / "docs" / "results.md", ROOT / "docs" / "results.png"
BY_NAME = {recipe.name: recipe for recipe in RECIPES}
EXAMPLES = ("entities", "relations", "answer")
SIDES = {"ours": "`mainspring fit`", "theirs": "example code"}

RECORDS = ROOT / "benchmarks" / "records"
"""The records of the page, kept with the source: a measurement of one task leaves the others'."""
NAMES = (
    *(f"{recipe.name}.json" for recipe in RECIPES),
    *(f"example-{task}.json" for task in EXAMPLES),
    RETRIEVAL,
    GRAPH,
)

Record = dict[str, Any]


def keep(out: Path, records: Path = RECORDS) -> None:
    """Copies the records that are in `out` to those the page is made of, without its path."""
    records.mkdir(exist_ok=True)
    for name in NAMES:
        if (out / name).is_file():
            text = (out / name).read_text(encoding="utf-8")
            (records / name).write_text(text.replace(str(out), "runs"), encoding="utf-8")


def write(out: Path, page: Path = PAGE, picture: Path = PICTURE) -> Path:
    """Writes the page of what is in `out`, and draws the picture where matplotlib is installed."""
    records = _read(out, (f"{recipe.name}.json" for recipe in RECIPES))
    drawn = draw(records, picture)
    lines = [
        *recipe_lines(records, picture.name if drawn else None),
        *comparison_lines(_read(out, (f"example-{task}.json" for task in EXAMPLES))),
        *(line for found in _read(out, [RETRIEVAL]) for line in retrieval_lines(found)),
        *(line for found in _read(out, [GRAPH]) for line in graph_lines(found)),
    ]
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


def _read(out: Path, names: Iterable[str]) -> list[Record]:
    files = [out / name for name in names]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]


# -- recipes ---------------------------------------------------------------------------------------


def recipe_lines(records: Sequence[Record], picture: str | None) -> Iterator[str]:
    """The head of the page, the table of all recipes, and what each was."""
    seeds = sorted({seed_of(record) for record in records})
    yield from (
        "# Results on real data",
        "",
        "Made by `python -m benchmarks.results --data DATA`, seed "
        f"{', '.join(map(str, seeds)) or 42}; each model trained for the minutes shown on one or "
        "two CPU cores (evaluation and saving apart), then scored on the published test split. "
        "Brackets hold 95 % bootstrap intervals over the test rows; the margin is the score's "
        "distance from the best baseline (for bits per byte, how much less).",
        "",
        *([f"![Scores and baselines]({picture})", ""] if picture else []),
        "| recipe | test rows | score | best baseline | margin | other scores | trained |",
        "|---|---|---|---|---|---|---|",
    )
    for record in records:
        yield _line(BY_NAME[record["recipe"]], record)
    for record in records:
        recipe = BY_NAME[record["recipe"]]
        yield from ("", f"## {recipe.name}", "", "```")
        yield from (f"mainspring {command}" for command in record["commands"])
        yield from ("```", "", *_details(recipe, record))


def seed_of(record: Record) -> int:
    """The seed of a run, which its command says."""
    found = re.search(r"--seed (\d+)", record["commands"][0])
    return int(found[1]) if found else 42


def baseline(recipe: Recipe, record: Record) -> tuple[str, float] | None:
    """The name and the score of the best baseline."""
    name = recipe.scores[0]
    found = [(base, s[name]) for base, s in record["evaluate"]["baseline"].items() if name in s]
    choose = min if recipe.less else max
    return choose(found, key=lambda pair: pair[1]) if found else None


def margin(recipe: Recipe, record: Record) -> float | None:
    """How much better than the best baseline, in the score's own unit."""
    base = baseline(recipe, record)
    if base is None:
        return None
    apart: float = record["evaluate"]["scores"][recipe.scores[0]] - base[1]
    return -apart if recipe.less else apart


def _line(recipe: Recipe, record: Record) -> str:
    found = record["evaluate"]
    fits = [record[name] for name in ("before", "fit") if name in record]
    main, *others = recipe.scores
    low, high = found["interval"].get(main, (float("nan"), float("nan")))
    base, apart = baseline(recipe, record), margin(recipe, record)
    rest = ", ".join(f"{name} {found['scores'][name]:.2f}" for name in others)
    cores = "1 core" if record["cores"] == 1 else f"{record['cores']} cores"
    minutes = " + ".join(f"{fit['train_seconds'] / 60:.0f}" for fit in fits)
    steps = " + ".join(str(fit["steps"]) for fit in fits)
    tokens = sum(fit["tokens"] for fit in fits)
    trained = f"{minutes} min on {cores}, {steps} steps, {tokens:,} tokens"
    return (
        f"| [{recipe.name}](#{recipe.name}) | {found['rows']} | {main} "
        f"**{found['scores'][main]:.2f}** [{low:.2f}, {high:.2f}] | "
        f"{'-' if base is None else f'{base[0]} {base[1]:.2f}'} | "
        f"{'-' if apart is None else f'{apart:+.2f}'} | {rest} | {trained} |"
    )


def _details(recipe: Recipe, record: Record) -> Iterator[str]:
    found, fit = record["evaluate"], record["fit"]
    main = recipe.scores[0]
    yield f"{found['signature']}; {found['rows']} rows, {found['skipped']} skipped."
    speed = fit["tokens"] / max(fit["train_seconds"], 1e-9)
    yield (
        f"Seed {seed_of(record)}; trained at {speed:,.0f} real tokens/s; best checkpoint at step "
        f"{fit['best_step']}."
    )
    bases = [f"{n} {s[main]:.2f}" for n, s in found["baseline"].items() if main in s]
    if bases:
        yield f"Baselines: {', '.join(bases)}."
    if recipe.note:
        yield recipe.note


def draw(records: Sequence[Record], file: Path) -> bool:
    """Bars of the scores with their intervals, and the best baselines; False where matplotlib is
    not installed or there is nothing."""
    shares = [r for r in records if not BY_NAME[r["recipe"]].less]
    if missing(["matplotlib"]) or not shares:
        return False
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 1 + 0.42 * len(shares)), layout="constrained")
    for place, record in enumerate(shares):
        recipe, found = BY_NAME[record["recipe"]], record["evaluate"]
        main = recipe.scores[0]
        score = found["scores"][main]
        low, high = found["interval"].get(main, (score, score))
        errors = [[max(0.0, score - low)], [max(0.0, high - score)]]
        axes.barh(place - 0.2, score, xerr=errors, height=0.38, color="tab:blue", capsize=2)
        axes.text(max(score, high), place - 0.2, f"  {score:.1f} {main}", va="center", fontsize=8)
        base = baseline(recipe, record)
        if base is not None:
            axes.barh(place + 0.2, base[1], height=0.38, color="lightgrey")
            label = f"  {base[1]:.1f} {base[0]}"
            axes.text(base[1], place + 0.2, label, va="center", fontsize=8, color="grey")
    axes.set_yticks(range(len(shares)), [record["recipe"] for record in shares], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 105)
    axes.set_title("Scores on the test splits (blue), best baselines (grey)")
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return True


# -- the other measurements ------------------------------------------------------------------------


def comparison_lines(records: Sequence[Record]) -> Iterator[str]:
    """Ours beside transformers' example code."""
    if not records:
        return
    seeds = sorted({seed for record in records for seed in record["seeds"]})
    yield from (
        "",
        "## Beside transformers' example code",
        "",
        "Made by `python -m benchmarks.example_code --data DATA`: the same encoder (MiniLM), rows, "
        "optimizer steps, examples a step in the mean, AdamW, learning rate and linear schedule, "
        "the model after the last step; `fit` in the precision it chooses, the example code in its "
        f"float32. Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}. Differences with "
        "their 95 % interval by paired bootstrap over the test rows.",
        "",
        "| task | score | ours | theirs | ours - theirs | p | test rows |",
        "|---|---|---|---|---|---|---|",
    )
    for record in records:
        for name, found in record["difference"].items():
            mine, other = (record["scores"][side][name] for side in SIDES)
            yield (
                f"| {record['title']} | {name} | **{mine:.2f}** | {other:.2f} | "
                f"{found['mean']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}] | "
                f"{found['p']:.3f} | {record['rows']} |"
            )
    yield from (
        "",
        "| task | who | steps | examples a step | training | real tokens/s |",
        "|---|---|---|---|---|---|",
    )
    for record in records:
        for side, name in SIDES.items():
            made = record["contestants"][side]
            yield (
                f"| {record['title']} | {name} | {record['steps']} | {made['rows_a_step']:.1f} | "
                f"{made['seconds']:.0f} s | {made['tokens_per_second']:,.0f} |"
            )
    yield ""
    for record in records:
        main = next(iter(record["difference"]))
        yield (
            f"{record['title'][0].upper()}{record['title'][1:]}: {record['train_rows']:,} training "
            f"rows, learning rate {record['rate']:g}, {record['signature']}. {main} by seed: "
            + "; ".join(
                f"{side} " + ", ".join(f"{scores[main]:.2f}" for scores in record["by_seed"][side])
                for side in SIDES
            )
            + "."
        )
        yield from ("", "```", record["contestants"]["ours"]["how"].strip(), "```", "")


def retrieval_lines(record: Record) -> Iterator[str]:
    """How often the right paragraph is among the nearest."""
    yield from (
        "",
        "## Passages for a question",
        "",
        "Made by `python -m benchmarks.retrieval --data DATA`: "
        f"{record['questions']:,} questions of SQuAD 1.1's development set, "
        f"{record['documents']:,} paragraphs; how often one of the nearest passages holds an "
        f"answer and is of the question's own paragraph. `{record['retriever']}` as "
        "`answer --documents` uses it, "
        f"{record['passages']:,} passages, against TF-IDF over the same.",
        "",
        "| nearest | " + " | ".join(record["recall"]) + " |",
        "|---|" + "---|" * len(record["recall"]),
    )
    for count in map(str, record["nearest"]):
        shares = (f"{found[count]:.1f} %" for found in record["recall"].values())
        yield f"| {count} | " + " | ".join(shares) + " |"


def graph_lines(record: Record) -> Iterator[str]:
    """How often `graph ask` is right."""
    counts, out = record["counts"], record["facts taken out"]
    total, several = counts["questions"], counts["questions, several"]

    def share(name: str, of: int) -> str:
        return f"{100 * counts[name] / of:.0f} %"

    yield from (
        "",
        "## Questions to a graph",
        "",
        f"Made by `python -m benchmarks.graph_questions --data DATA --rows {record['rows']}"
        + (f" --encoder {record['encoder']}" if record["encoder"] else "")
        + f"`: WebQuestions' {record['split']} questions, {total} of them with a thing that the "
        f"graph of {record['triples']:,} triples names. The last two are told the thing and always "
        "answer.",
        "",
        f"| | answered | right, of all | right, of {several} with several relations |",
        "|---|---|---|---|",
    )
    for title, done, right in (
        ("`ask --least 0`", "answered, least 0", "right, least 0"),
        ("`ask`", "answered", "right"),
        ("`ask`, what it is sure of", "sure", "right and sure"),
        ("the thing's most frequent relation", "questions", "right by frequency"),
        ("a relation of the thing at random", "questions", "right at random"),
    ):
        cells = share(done, total), share(right, total), share(f"{right}, several", several)
        yield f"| {title} | " + " | ".join(cells) + " |"
    silent, unsure = out["said nothing"], out["said nothing, or that it is a guess"]
    yield from (
        "",
        f"With the facts that are asked for taken out of the graph, `ask` says nothing to "
        f"{100 * silent / total:.0f} % of the questions, and nothing or that it guesses to "
        f"{100 * unsure / total:.0f} %.",
    )
