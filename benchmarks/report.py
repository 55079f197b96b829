"""Results as JSON, on the terminal, and as docs/benchmarks.md."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.entry import Check, Context, Entry, Ratio, Result, Table
from benchmarks.measure import Spread

PACKAGES = ("mainspring", "torch", "transformers", "accelerate", "ctranslate2", "tokenizers")


@dataclass(frozen=True)
class Record:
    """One entry's result and the circumstances, as it is kept in OUT/NAME.json.

    `failed` is the error that ended the entry, None where it ran to its end; `options` are those
    of the command line that say how much was done.
    """

    entry: str
    title: str
    question: str
    when: str
    seconds: float
    scale: str
    threads: int
    data: str
    machine: dict[str, str]
    versions: dict[str, str]
    result: Result
    failed: str | None = None
    options: str = ""


def record(
    entry: Entry, context: Context, seconds: float, result: Result, failed: str | None
) -> Record:
    data = "real data" if context.data else "docstring pairs (no data folder found)"
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    scale, threads = context.scale.name, context.threads
    about = (entry.name, entry.title, entry.question, now, round(seconds, 1), scale, threads, data)
    return Record(*about, machine(), versions(), result, failed, context.scale.options)


def machine() -> dict[str, str]:
    """What was measured on."""
    from mainspring.compute.hardware import detect

    found = detect()
    cards = {"gpu": ", ".join(found.gpus)} if found.gpus else {}
    return {
        "cpu": found.cpu,
        "instructions": ", ".join(found.instructions),
        "cores": str(os.cpu_count()),
        "memory": f"{found.memory / 1e9:.0f} GB",
        "system": platform.system(),
        "python": sys.version.split()[0],
        **cards,
    }


def versions() -> dict[str, str]:
    """The versions of ours and of the peers, and the commit of the checkout."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    if shutil.which("git") is None:
        return found
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode == 0:
        found["commit"] = asked.stdout.strip()
    return found


def save(made: Record, folder: Path) -> Path:
    file = folder / f"{made.entry}.json"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(made), indent=1, ensure_ascii=False), encoding="utf-8")
    return file


def load(file: Path) -> Record:
    """The record that `save` wrote."""
    stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    found = stored.pop("result")
    result = Result(
        tuple(
            Table(t["title"], tuple(t["columns"]), tuple(map(tuple, t["rows"])), t["note"])
            for t in found["tables"]
        ),
        tuple(Ratio(**{**r, "spread": Spread(**r["spread"])}) for r in found["ratios"]),
        tuple(Check(**c) for c in found["checks"]),
        tuple(found["skipped"]),
        tuple(found["notes"]),
        found["data"],
    )
    return Record(**stored, result=result)


# -- text ------------------------------------------------------------------------------------------


def lines(made: Record) -> Iterator[str]:
    """An entry's result as Markdown, without its heading."""
    yield made.question
    if made.failed:
        yield f"\n**This entry failed**: {made.failed.strip().splitlines()[-1]}"
    result = made.result
    if result.ratios:
        yield ""
        yield from table_lines(_ratio_table(result.ratios))
    for table in result.tables:
        yield f"\n**{table.title}**\n"
        yield from table_lines(table)
        if table.note:
            yield f"\n{table.note}"
    if result.checks:
        yield "\n**What must hold**\n"
        yield from (
            f"- {'yes' if check.holds else '**NO**'}: {check.what} ({check.found})"
            for check in result.checks
        )
    if result.notes or result.skipped:
        yield ""
        yield from (f"- {note}" for note in result.notes)
        yield from (f"- left out: {reason}" for reason in result.skipped)


def _ratio_table(ratios: tuple[Ratio, ...]) -> Table:
    rows = []
    for ratio in ratios:
        goal = ""
        if ratio.goal is not None:
            sign, mark = ("≤" if ratio.less else "≥"), ("yes" if ratio.reached else "no")
            goal = f"{sign} {ratio.goal:g}: {mark}"
        rows.append((ratio.what, ratio.ours, ratio.theirs, ratio.spread.shown(), goal))
    return Table("", ("what", "ours", "against", "ratio (quartiles)", "goal"), tuple(rows))


def table_lines(table: Table) -> Iterator[str]:
    """A Markdown table whose columns also line up on a terminal."""
    cells = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]

    def line(row: tuple[str, ...]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    yield line(table.columns)
    yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    yield from map(line, table.rows)


def document(records: list[Record], picture: str) -> str:
    """docs/benchmarks.md."""
    first = records[0]
    body = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks --write`; how to run it and how to read it is in "
        "[benchmarks/README.md](../benchmarks/README.md). Ratios are medians over rounds in which "
        "all contestants took their turns on the same weights, data and threads; in brackets the "
        "quartiles. Speeds are ours / theirs (more is better), times and memory too (less is "
        "better).",
        "",
        *([f"![Ratios and loss curves]({picture})", ""] if picture else []),
        *table_lines(
            Table(
                "",
                ("machine", ""),
                (
                    *((name, value) for name, value in first.machine.items()),
                    ("threads", str(first.threads)),
                    ("data", first.data),
                    ("run", f"{first.scale}, {first.when}"),
                    *((name, value) for name, value in first.versions.items()),
                ),
            )
        ),
    ]
    for made in records:
        body += ["", f"## {made.title}", "", *_elsewhere(made, first), *lines(made), ""]
        body.append(
            f"`python -m benchmarks --only {made.entry}{made.options}`: {made.seconds:,.0f} s on "
            f"{made.when}, commit {made.versions.get('commit', 'unknown')}."
        )
    return "\n".join(body) + "\n"


def _elsewhere(made: Record, first: Record) -> Iterator[str]:
    """What the record was measured on, where that is not the machine of the page."""
    if made.machine == first.machine:
        return
    software = {name: value for name, value in made.versions.items() if name != "commit"}
    about = made.machine | {"threads": str(made.threads), "data": made.data} | software
    yield "Measured on another machine: " + "; ".join(f"{k} {v}" for k, v in about.items()) + "."
    yield ""
