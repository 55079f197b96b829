"""The recipes of `benchmarks.results`: a line of `fit` and one of `evaluate` for each data set."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LESS = ("bits_per_byte", "loss")  # scores of which less is better


@dataclass(frozen=True)
class Recipe:
    """How a task is shown on a data set.

    `train` and `test` are the words behind `fit TASK` and `evaluate TASK`, with {data} for the
    folder of the data sets; `scores` are those worth a column, the first is the one that counts.
    `needs` is what has to be fetched first (`mainspring get`). `note` is what a reader should know.
    `prepare(data, folder)` writes rows of another form into a folder, which is {made} in the words.
    `before` are the words behind `fit` of a model to be trained first, in half of the minutes: it
    is {body} in `train`.
    """

    name: str
    task: str
    train: str
    test: str
    scores: tuple[str, ...]
    needs: str | None = None
    note: str = ""
    prepare: Callable[[Path, Path], None] | None = None
    before: str = ""

    @property
    def less(self) -> bool:
        """Whether less of its score is better."""
        return self.scores[0] in LESS


def triples_of_semeval(data: Path, folder: Path) -> None:
    """The sentences of SemEval-2010 task 8 in which something is related, with the triple as words
    and nothing that marks its ends."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        file = data / "relation_extraction" / "semeval2010_task8" / f"{split}.jsonl"
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as out:
            for line in file.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                name, _, order = row["relation"].partition("(")
                ends = [row["head"], row["tail"]]
                if order:  # the others are not related
                    head, tail = reversed(ends) if order == "e2,e1)" else ends
                    triple = {"head": head, "type": name, "tail": tail}
                    out.write(json.dumps({"text": row["text"], "relations": [triple]}) + "\n")


def simplified_chinese(data: Path, folder: Path) -> None:
    """The texts of the training rows that are in simplified Chinese, each once."""
    rows = (
        (data / "relation_extraction" / "finre_zh" / "train.jsonl", "text"),
        (data / "summarization" / "csl_zh" / "train.jsonl", "document"),
        (data / "summarization" / "debian_synopsis_zh" / "train.jsonl", "document"),
    )
    texts = {
        json.loads(line)[column]: None
        for file, column in rows
        for line in file.read_text(encoding="utf-8").splitlines()
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)


RECIPES = (
    Recipe(
        "summarize-debian",
        "summarize",
        "{data}/summarization/debian_synopsis_en --model starter --lora 16 --max-source 256 "
        "--max-target 32 --learning-rate 2e-3 --batch-tokens 2048 --metric-rows 0 --patience 0",
        "{data}/summarization/debian_synopsis_en/test.jsonl --num-beams 4",
        ("rougeL", "rouge1", "rouge2"),
        needs="starter",
    ),
    Recipe(
        "summarize-scitldr",
        "summarize",
        "{data}/summarization/scitldr_a --model starter --lora 16 --max-source 384 --max-target 48 "
        "--learning-rate 1e-3 --batch-tokens 2048 --metric-rows 0 --patience 0",
        "{data}/summarization/scitldr_a/test.jsonl",
        ("rougeL", "rouge1", "rouge2"),
        needs="starter",
        note="2 of the 618 test rows are also training rows, as published.",
    ),
    Recipe(
        "summarize-csl",
        "summarize",
        "{data}/summarization/csl_zh --model starter --lora 16 --max-source 640 --max-target 64 "
        "--learning-rate 1e-3 --batch-tokens 2048 --metric-rows 0 --patience 0",
        "{data}/summarization/csl_zh/test.jsonl",
        ("rougeL", "rouge1", "rouge2"),
        needs="starter",
        note="Chinese, scored by characters; 900 training rows, and a model that has seen next to "
        "no Chinese, which it reads as bytes.",
    ),
    Recipe(
        "translate-debian-en-de",
        "translate",
        "{data}/translation/debian_en_de --model starter --lora 16 --source-language en "
        "--target-language de --max-source 160 --max-target 256 --learning-rate 1e-3 "
        "--batch-tokens 2048 --metric-rows 0 --patience 0",
        "{data}/translation/debian_en_de/test.jsonl --source-language en --target-language de",
        ("chrf2", "bleu"),
    ),
    Recipe(
        "classify-debian-section",
        "classify",
        "{data}/summarization/debian_synopsis_en --columns.text document --columns.label section "
        "--model minilm --max-source 128 --batch-tokens 2048 --patience 0",
        "{data}/summarization/debian_synopsis_en/test.jsonl --columns.text document "
        "--columns.label section",
        ("accuracy", "macro_f1"),
        needs="minilm",
        note="A package's long description in, the section of the archive that its maintainers "
        "gave it out: 51 sections, some with a handful of packages.",
    ),
    Recipe(
        "entities-wnut17",
        "entities",
        "{data}/ner/wnut17 --model minilm --max-source 128 --batch-tokens 1024 --patience 0",
        "{data}/ner/wnut17/test.conll",
        ("f1", "precision", "recall"),
        needs="minilm",
    ),
    Recipe(
        "entities-btc",
        "entities",
        "{data}/ner/btc --model minilm --max-source 128 --batch-tokens 1024 --patience 0",
        "{data}/ner/btc/test.conll",
        ("f1", "precision", "recall"),
        needs="minilm",
    ),
    Recipe(
        "entities-uner-zh",
        "entities",
        "{data}/ner/uner_zh_gsdsimp --model minilm --add-characters --max-source 128 "
        "--batch-tokens 1024 --patience 0",
        "{data}/ner/uner_zh_gsdsimp/test.conll",
        ("f1", "precision", "recall"),
        needs="minilm",
        note="Chinese: MiniLM, which has read English only, learns the characters from these 3,997 "
        "sentences.",
    ),
    Recipe(
        "relations-semeval",
        "relations",
        "{data}/relation_extraction/semeval2010_task8 --model minilm --max-source 128 "
        "--batch-tokens 1024 --patience 0",
        "{data}/relation_extraction/semeval2010_task8/test.jsonl",
        ("macro_f1", "micro_f1"),
        needs="minilm",
        note="15 of the 2,717 test sentences are also training sentences, as published.",
    ),
    Recipe(
        "relations-finre-zh",
        "relations",
        "{data}/relation_extraction/finre_zh --model {body} --max-source 128 --batch-tokens 1024 "
        "--patience 0",
        "{data}/relation_extraction/finre_zh/test.jsonl",
        ("micro_f1", "macro_f1"),
        note="Chinese: a decoder that has first learnt to continue the training texts of this and "
        "two other sets. 14 of the 3,727 test sentences are also training sentences, as published.",
        prepare=simplified_chinese,
        before="generate {made} --from-scratch llama-mini --max-source 128 --batch-tokens 2048",
    ),
    Recipe(
        "relations-triples-semeval",
        "relations",
        "{made} --form triples --model starter --lora 16 --max-source 128 --max-target 48 "
        "--learning-rate 1e-3 --batch-tokens 2048 --metric-rows 0 --patience 0",
        "{made}/test.jsonl",
        ("micro_f1", "macro_f1"),
        needs="starter",
        note="Written from the bare sentence: no entity is given, and only the pair that the "
        "annotators chose counts, whole. Sentences without a relation are left out. The baseline "
        "looks up the triples of the training rows whose head and tail stand in the sentence.",
        prepare=triples_of_semeval,
    ),
    Recipe(
        "answer-squad",
        "answer",
        "{data}/qa/squad_v1.1/train-v1.1.json.gz --model minilm --max-source 256 "
        "--learning-rate 2e-4 --patience 0",
        "{data}/qa/squad_v1.1/dev-v1.1.json",
        ("f1", "exact"),
        needs="minilm",
    ),
    Recipe(
        "answer-drcd-zh",
        "answer",
        "{data}/qa/drcd_zh/train.json --model {body} --add-characters --max-source 384 "
        "--learning-rate 4e-4 --metric-rows 0 --patience 0",
        "{data}/qa/drcd_zh/dev.json",
        ("f1", "exact"),
        needs="minilm",
        note="Chinese (traditional): MiniLM, which has read English only, learns to answer from "
        "SQuAD, then the characters of DRCD.",
        before="answer {data}/qa/squad_v1.1/train-v1.1.json.gz --model minilm --max-source 256 "
        "--learning-rate 2e-4 --metric-rows 0 --patience 0",
    ),
    Recipe(
        "generate-shakespeare",
        "generate",
        "{data}/text_generation/tiny_shakespeare --from-scratch llama-mini --max-source 256 "
        "--tokenizer byte-bpe --vocabulary 1000",
        "{data}/text_generation/tiny_shakespeare/test.txt",
        ("bits_per_byte", "loss"),
    ),
    Recipe(
        "generate-tang",
        "generate",
        "{data}/text_generation/tang_poetry_zh --from-scratch llama-mini --max-source 128",
        "{data}/text_generation/tang_poetry_zh/test.jsonl",
        ("bits_per_byte", "loss"),
        note="Chinese.",
    ),
)
