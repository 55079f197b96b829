"""How often `graph ask` is right on WebQuestions (Berant et al., 2013).

    python -m benchmarks.graph_questions --data FOLDER --rows 600 --encoder minilm

The graph is made of the questions' own Freebase paths, of all splits: thing, relation, answer. A
question counts where its text names the thing. Beside it stand two that know the thing and always
answer: a relation of the thing at random, and the one that is the most frequent. "several" counts
only things with more than one relation, where there is something to choose.
"""

import argparse
import csv
import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mainspring.graph.asking import Asker
from mainspring.graph.encoding import encoder
from mainspring.graph.store import reading
from mainspring.graph.vocabulary import normal
from mainspring.verbs import graph

SPLITS = ("train", "validation", "devtest", "test")


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


def triples(folder: Path) -> Iterator[tuple[str, str, str]]:
    for split in SPLITS:
        for row in rows(folder, split):
            known = about(row)
            for answer in row["answers"] if known else ():
                yield *known, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--split", default="test", choices=SPLITS)
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--encoder")
    given = parser.parse_args()
    folder = given.data / "knowledge_graph" / "webquestions"
    known = sorted(set(triples(folder)))
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    relations: dict[str, set[str]] = defaultdict(set)
    for head, relation, tail in known:
        answers[head, relation].add(normal(tail))
        relations[head].add(relation)
    often = Counter(relation for _, relation, _ in known)
    draw = random.Random(0)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        table = Path(place) / "kb.csv"
        with table.open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows([("head", "relation", "tail"), *known])
        graph.import_(table, store=Path(place) / "kg")
        with reading(Path(place) / "kg") as store:
            asker = Asker(store, encoder(given.encoder) if given.encoder else None)
            for row in rows(folder, given.split)[: given.rows]:
                if (asked := about(row)) is None:
                    continue
                gold = {normal(answer) for answer in row["answers"]}
                said = {normal(a.label) for a in asker.ask(row["question"]).answers}
                mine = sorted(relations[asked[0]])
                outcome = {
                    "questions": True,
                    "answered": bool(said),
                    "right": bool(said & gold),
                    "right at random": bool(answers[asked[0], draw.choice(mine)] & gold),
                    "right by frequency": bool(answers[asked[0], max(mine, key=often.get)] & gold),
                }
                for name, holds in outcome.items():
                    counts[name] += holds
                    counts[f"{name}, several"] += holds and len(mine) > 1
    print(json.dumps({"triples": len(known), "things": len(relations), **counts}, indent=1))


if __name__ == "__main__":
    main()
