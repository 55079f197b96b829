"""Real summarization data that is on every machine: docstrings of the installed Python packages.

    python examples/docstrings.py FOLDER

A docstring's first line summarizes the rest (PEP 257), so each function, class or module with a
longer docstring gives a pair: the body is the text, the first line its summary. Files are parsed,
never imported. Pairs are deduplicated and split by package, so that no package is in two splits.
Writes FOLDER/train.jsonl, validation.jsonl and test.jsonl.
"""

import ast
import hashlib
import itertools
import json
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

SHORTEST_BODY, LONGEST_BODY = 120, 2000  # characters
SUMMARY_WORDS = range(4, 21)
LONGEST_FILE = 60_000  # bytes
SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
# Reading stops there, so that no package outweighs the others and the walk stays short.
MOST_PER_PACKAGE, MOST_FILES = 500, 80


def docstrings(file: Path) -> Iterator[str]:
    """All docstrings of a Python file; of a very long one none, it would take too long to parse."""
    if file.stat().st_size > LONGEST_FILE:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's invalid escapes
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return  # not Python of this version
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=True)
            if text:
                yield text


# Where the prose of a docstring ends and its tables, doctests and directives begin.
SECTION = re.compile(
    r"^\s*(>>> |:\w+|\.\. |-{3,}|={3,}|(Args|Arguments|Returns?|Raises|Examples?|Parameters|"
    r"Attributes|Yields|Notes?|References|See Also|Warnings?)\s*:?\s*$)"
)


def pair(docstring: str) -> tuple[str, str] | None:
    """(body, summary) of a docstring in the form PEP 257 asks for, else None."""
    summary, _, body = docstring.partition("\n\n")
    summary = " ".join(summary.split())
    prose = list(itertools.takewhile(lambda line: not SECTION.match(line), body.splitlines()))
    body = " ".join(" ".join(prose).split())
    fits = (
        len(summary.split()) in SUMMARY_WORDS
        and summary[-1] in ".!?"
        and SHORTEST_BODY <= len(body) <= LONGEST_BODY
        and summary.rstrip(".") not in body
        and (body + summary).isascii()
    )
    return (body, summary) if fits else None


def packages() -> Iterator[tuple[str, list[Path]]]:
    """(name, Python files) of each package in the environment and of the standard library."""
    for key in ("purelib", "stdlib"):
        root = Path(sysconfig.get_paths()[key])
        for entry in sorted(root.iterdir()):
            if entry.name in ("site-packages", "__pycache__", "test", "mainspring"):
                continue
            if entry.is_dir():
                files = sorted(entry.rglob("*.py"))
            else:
                files = [entry] if entry.suffix == ".py" else []
            if files:
                yield entry.name.removesuffix(".py"), files


def collect() -> dict[str, list[dict[str, str]]]:
    """Rows by package, no body and no summary twice in all."""
    seen: set[str] = set()
    rows: dict[str, list[dict[str, str]]] = {}
    for name, files in packages():
        texts = itertools.chain.from_iterable(map(docstrings, files[:MOST_FILES]))
        fresh = (made for made in map(pair, texts) if made and not seen.intersection(made))
        for body, summary in itertools.islice(fresh, MOST_PER_PACKAGE):
            seen.update((body, summary))
            rows.setdefault(name, []).append({"text": body, "summary": summary, "package": name})
    return rows


def split(rows: dict[str, list[dict[str, str]]]) -> dict[str, list[dict[str, str]]]:
    """Whole packages dealt out, largest first, each to the split furthest below its share."""
    parts: dict[str, list[dict[str, str]]] = {name: [] for name in SPLITS}
    total = sum(map(len, rows.values()))
    for _, found in sorted(rows.items(), key=lambda item: (-len(item[1]), item[0])):
        emptiest = max(SPLITS, key=lambda name: SPLITS[name] - len(parts[name]) / total)
        parts[emptiest] += found
    for part in parts.values():
        part.sort(key=lambda row: hashlib.sha256(row["text"].encode()).digest())
    return parts


def write(folder: Path) -> dict[str, int]:
    """Writes the three files and returns their row counts."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = split(collect())
    for name, rows in parts.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)
    return {name: len(rows) for name, rows in parts.items()}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(write(Path(sys.argv[1])))
