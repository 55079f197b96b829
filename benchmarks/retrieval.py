"""How often the passage that answers a question is found, as `answer --documents` looks for it.

    python -m benchmarks.retrieval --data FOLDER --rows 1000

The documents are the paragraphs of SQuAD 1.1's development set. A passage is right where it is of
the question's own paragraph and holds one of its answers. Beside the sentence encoder stands TF-IDF
(scikit-learn) over the same passages, the words as they are.
"""

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.formulations import Inference, Limits, Setup
from mainspring.formulations.retrieval import Retriever, open_retriever

ROOT = Path(__file__).parent.parent
FILE = "retrieval-squad.json"
NEAREST = (1, 5, 20)
SEED = 0

Asked = tuple[str, str, Sequence[str]]  # question, its paragraph's document, its answers


def paragraphs(file: Path, folder: Path) -> list[Asked]:
    """Writes each paragraph as a text file; the questions with the names of their documents."""
    folder.mkdir(parents=True, exist_ok=True)
    articles = json.loads(file.read_text(encoding="utf-8"))["data"]
    every = [paragraph for article in articles for paragraph in article["paragraphs"]]
    found: list[Asked] = []
    for number, paragraph in enumerate(every):
        name = f"{number:05}.txt"
        (folder / name).write_text(paragraph["context"], encoding="utf-8")
        for asked in paragraph["qas"]:
            answers = [answer["text"] for answer in asked["answers"]]
            found.append((asked["question"], name, answers))
    return found


def recall(ranked: Sequence[Sequence[tuple[str, str]]], asked: Sequence[Asked]) -> dict[str, float]:
    """For each number of `NEAREST` the share (0..100) of questions with a right passage among so
    many; `ranked` are (document, text) of the passages for each question, the nearest first."""
    places = []
    for row, (_, name, answers) in zip(ranked, asked, strict=True):
        right = (
            at
            for at, (document, text) in enumerate(row)
            if Path(document).name == name and any(answer in text for answer in answers)
        )
        places.append(next(right, None))
    return {
        str(count): 100 * sum(p is not None and p < count for p in places) / len(places)
        for count in NEAREST
    }


def by_encoder(retriever: Retriever, questions: Sequence[str]) -> list[list[tuple[str, str]]]:
    return [
        [(hit.passage.document, hit.passage.text) for hit in row]
        for row in retriever.find(questions)
    ]


def by_words(passages: Sequence[tuple[str, str]], questions: Sequence[str]) -> list[Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(sublinear_tf=True)
    known = vectors.fit_transform([text for _, text in passages])
    near = np.asarray((vectors.transform(questions) @ known.T).todense())
    best = np.argsort(-near, axis=1, kind="stable")[:, : max(NEAREST)]
    return [[passages[number] for number in row] for row in best.tolist()]


def measured(
    documents: Path, asked: Sequence[Asked], retriever: str, index: Path
) -> Mapping[str, Any]:
    options = {
        "documents": str(documents),
        "retriever": retriever,
        "passages": max(NEAREST),
        "index": str(index),
    }
    started = time.perf_counter()
    opened = open_retriever(Setup(Limits(256, 2), options=options), Inference(None))
    seconds = time.perf_counter() - started
    numbers = range(len(opened.index.vectors))
    passages = [(p.document, p.text) for p in map(opened.index.passage, numbers)]
    questions = [question for question, _, _ in asked]
    return {
        "questions": len(asked),
        "documents": len(opened.index.documents),
        "passages": len(passages),
        "retriever": retriever,
        "nearest": NEAREST,
        "index_seconds": seconds,
        "recall": {
            retriever: recall(by_encoder(opened, questions), asked),
            "TF-IDF": recall(by_words(passages, questions), asked),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "results")
    parser.add_argument("--retriever", default="minilm")
    parser.add_argument("--rows", type=int, default=1000, help="questions, drawn at random")
    given = parser.parse_args()
    documents = given.out / "retrieval" / "paragraphs"
    asked = paragraphs(given.data / "qa" / "squad_v1.1" / "dev-v1.1.json", documents)
    drawn = random.Random(SEED).sample(asked, min(given.rows, len(asked)))
    record = measured(documents, drawn, given.retriever, given.out / "retrieval" / "index")
    (given.out / FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
