"""How often `graph ask` is right on WebQuestions (Berant et al., 2013).

    python -m benchmarks.graph_questions --data FOLDER --rows 600 --encoder minilm

The graph is made of the questions' own Freebase paths, of all splits: thing, relation, answer. A
question counts where its text names the thing. Beside it stand two that know the thing and always
answer: a relation of the thing at random, and the one that is the most frequent. "several" counts
only things with more than one relation, where there is something to choose. Then the facts that are
asked for are taken out, and it is counted how often nothing, or a guess, is said.
"""

import argparse
import csv
import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mainspring.graph.asking import Asker
from mainspring.graph.encoding import encoder
from mainspring.graph.linking import Encode
from mainspring.graph.store import reading
from mainspring.graph.vocabulary import normal
from mainspring.verbs import graph

ROOT = Path(__file__).parent.parent
FILE = "graph-questions.json"
SPLITS = ("train", "validation", "devtest", "test")

Triple = tuple[str, str, str]


def rows(folder: Path, split: str) -> list[dict[str, Any]]:
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def about(row: dict[str, Any]) -> tuple[str, str] | None:
    """(the thing that a question names, the name of the relation that leads to its answers)."""
    paths = [
        p for p in row["relation_paths"] if not p[0][0].startswith(("/type/object", "/common"))
    ]
    question = normal(row["question"])
    named = [e["concept"] for e in row["entities"] if e["mid"] and normal(e["concept"]) in question]
    if not paths or not named:
        return None
    best = max(paths, key=lambda path: path[1])[0]
    relation = " ".join(part.rsplit("/", 1)[-1].replace("_", " ") for part in best)
    return max(named, key=len), relation


def triples(folder: Path) -> Iterator[Triple]:
    for split in SPLITS:
        for row in rows(folder, split):
            known = about(row)
            for answer in row["answers"] if known else ():
                yield *known, answer


@contextmanager
def asking(known: Sequence[Triple], encode: Encode | None) -> Iterator[Asker]:
    """Who answers from a graph of these triples."""
    with tempfile.TemporaryDirectory() as place:
        table = Path(place) / "kb.csv"
        with table.open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows([("head", "relation", "tail"), *known])
        graph.import_(table, store=Path(place) / "kg")
        with reading(Path(place) / "kg") as store:
            yield Asker(store, encode)


def answered(
    asked: Sequence[dict[str, Any]], known: Sequence[Triple], encode: Encode | None
) -> dict[str, int]:
    """How many questions are answered, and how many rightly; by `ask` and by those beside it."""
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    relations: dict[str, set[str]] = defaultdict(set)
    for head, relation, tail in known:
        answers[head, relation].add(normal(tail))
        relations[head].add(relation)
    often = Counter(relation for _, relation, _ in known)
    draw = random.Random(0)
    counts: Counter[str] = Counter()
    with asking(known, encode) as asker:
        for row in asked:
            thing, _ = about(row) or ("", "")
            gold = {normal(answer) for answer in row["answers"]}
            found = asker.ask(row["question"], least=0.0)
            fit = asker.ask(row["question"])
            right = bool({normal(answer.label) for answer in found.answers} & gold)
            mine = sorted(relations[thing])
            outcome = {
                "questions": True,
                "answered, least 0": bool(found.answers),
                "right, least 0": right,
                "answered": bool(fit.answers),
                "right": right and bool(fit.answers),
                "sure": fit.sure,
                "right and sure": right and fit.sure,
                "right at random": bool(answers[thing, draw.choice(mine)] & gold),
                "right by frequency": bool(answers[thing, max(mine, key=often.get)] & gold),
            }
            for name, holds in outcome.items():
                counts[name] += holds
                counts[f"{name}, several"] += holds and len(mine) > 1
    return dict(counts)


def declined(
    asked: Sequence[dict[str, Any]], known: Sequence[Triple], encode: Encode | None
) -> dict[str, int]:
    """What is said where the facts that are asked for are taken out of the graph."""
    out = {about(row) for row in asked}
    left = [triple for triple in known if triple[:2] not in out]
    counts: Counter[str] = Counter()
    with asking(left, encode) as asker:
        for row in asked:
            found = asker.ask(row["question"])
            counts["said nothing"] += not found.answers
            counts["said nothing, or that it is a guess"] += not found.sure
    return dict(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--split", default="test", choices=SPLITS)
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--encoder")
    parser.add_argument("--out", type=Path, help=f"folder for {FILE}, for the page of results")
    given = parser.parse_args()
    folder = given.data / "knowledge_graph" / "webquestions"
    known = sorted(set(triples(folder)))
    asked = [row for row in rows(folder, given.split)[: given.rows] if about(row)]
    encode = encoder(given.encoder) if given.encoder else None
    record = {
        "split": given.split,
        "rows": given.rows,
        "encoder": given.encoder,
        "triples": len(known),
        "things": len({head for head, _, _ in known}),
        "counts": answered(asked, known, encode),
        "facts taken out": declined(asked, known, encode),
    }
    print(json.dumps(record, indent=1))
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / FILE).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
