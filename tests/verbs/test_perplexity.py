"""`evaluate generate`: how surprising texts are, and how varied what is written."""

import math
from pathlib import Path

import pytest

import mainspring
import nano
from mainspring import events
from mainspring.checkpoints.bundle import load
from mainspring.errors import BadData, BadOption
from mainspring.formulations.causal import FORMULATION
from mainspring.formulations.likelihood import nats, rolling, start_id

TEXTS = [row["article"] for row in nano.pairs(9, seed=4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder") / "model"
    nano.decoder().save(folder)
    return folder


def evaluate(model: Path, data: Path, **options: object):  # type: ignore[no-untyped-def]
    chosen = {"precision": "float32", "samples": "0", **options}
    return mainspring.evaluate("generate", data, model=str(model), **chosen)


def test_bytes_that_the_tokenizer_does_not_know_cost_what_they_take(
    model: Path, tmp_path: Path
) -> None:
    """Else a text that is all unknown would look like the best predicted of all."""
    texts = [TEXTS[0], f"{TEXTS[1]} 研究", "研究结果表明"]
    tokenizer = nano.decoder().tokenizer
    assert tokenizer is not None
    seen: list[events.Event] = []
    for number, text in enumerate(texts):
        data = nano.write_jsonl([{"text": text}], tmp_path / "text.jsonl")
        out = tmp_path / str(number)
        with events.listening(seen.append):
            scores = evaluate(model, data, out=out).scores
        [row] = nano.read_jsonl(out / "predictions.jsonl")
        unknown = sum(len(c.encode()) for c in text if "\u4e00" <= c <= "\u9fff")
        assert (row["unspelt"], row["bytes"]) == (unknown, len(text.encode()))
        bits = row["nats"] / math.log(2) + 8 * unknown
        assert scores["bits_per_byte"] == pytest.approx(bits / row["bytes"], rel=1e-3)
        assert scores["loss"] == pytest.approx(row["nats"] / row["tokens"], rel=1e-3)
    warned = [e.text for e in seen if isinstance(e, events.Warn)]
    assert [text.split(" bytes")[0] for text in warned if "unknown" in text] == ["6", "18"]


def test_of_a_cut_answer_only_what_is_left_counts(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": TEXTS[0], "response": " ".join(TEXTS * 2)}]
    data = nano.write_jsonl(rows, tmp_path / "rows.jsonl")
    bundle = load(model)
    assert bundle.tokenizer is not None
    found = evaluate(model, data, out=tmp_path / "out")
    assert found.sources_cut == 1
    [row] = nano.read_jsonl(tmp_path / "out" / "predictions.jsonl")
    ids = bundle.tokenizer.encode(rows[0]["response"], special=False)
    limit = int(row["tokens"]) - 1
    assert limit < len(ids)
    assert row["bytes"] == len(bundle.tokenizer.decode(ids[:limit]).encode())


def test_the_loss_of_plain_texts(model: Path, tmp_path: Path) -> None:
    rows = [{"text": text, "bytes": "mine"} for text in TEXTS]
    data = nano.write_jsonl(rows, tmp_path / "texts.jsonl")
    found = evaluate(model, data, out=tmp_path / "out")
    bundle = nano.decoder()
    tokenizer = bundle.tokenizer
    assert tokenizer is not None
    ids = [tokenizer.encode(text, special=False) for text in TEXTS]
    windows = [w for row in ids for w in rolling(row, start_id(tokenizer), 768)]
    total, tokens = sum(nats(bundle, FORMULATION, windows)), sum(map(len, ids))
    size = sum(len(text.encode()) for text in TEXTS)
    known = [[i for i in row if i != tokenizer.unk_id] for row in ids]
    spelt = sum(len(tokenizer.decode(row).encode()) for row in known)
    per_byte = (total + (size - spelt) * math.log(256)) / size
    assert found.scores == pytest.approx(
        {
            "loss": total / tokens,
            "nats_per_byte": per_byte,
            "bits_per_byte": per_byte / math.log(2),
            "perplexity": math.exp(total / tokens),
        },
        rel=1e-3,
    )
    assert found.rows == len(TEXTS)
    for name, (low, high) in found.interval.items():
        assert low <= found.scores[name] <= high
    assert found.baseline["uniform"]["loss"] == pytest.approx(
        math.log(tokenizer.vocabulary), abs=1e-3
    )
    assert found.baseline["unigram"]["loss"] < found.baseline["uniform"]["loss"]
    rows = nano.read_jsonl(tmp_path / "out" / "predictions.jsonl")
    assert [row["text"] for row in rows] == TEXTS
    assert all(row["input_bytes"] == "mine" and row["bytes"] > 0 for row in rows)
    assert sum(row["nats"] for row in rows) == pytest.approx(total, rel=1e-3)
    assert all(row["loss"] == pytest.approx(row["nats"] / row["tokens"], abs=1e-3) for row in rows)


def test_a_text_file_is_read_in_pieces_and_nothing_is_lost(model: Path, tmp_path: Path) -> None:
    text = "\n\n".join(TEXTS * 8)
    (tmp_path / "book.txt").write_text(text)
    found = evaluate(model, tmp_path / "book.txt", out=tmp_path / "out")
    rows = nano.read_jsonl(tmp_path / "out" / "predictions.jsonl")
    assert found.rows == len(rows) > 1
    assert "".join(row["text"] for row in rows) == text
    assert sum(row["bytes"] for row in rows) == len(text.encode())


def test_only_answers_are_scored(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "Quiet river", "completion": "Early market."}, {"prompt": "x"}]
    data = nano.write_jsonl(rows, tmp_path / "pairs.jsonl")
    found = evaluate(model, data, out=tmp_path / "out")
    [row] = nano.read_jsonl(tmp_path / "out" / "predictions.jsonl")
    tokenizer = nano.decoder_tokenizer()
    assert row["tokens"] == len(tokenizer.encode("Early market.", special=False)) + 1  # and the end
    assert row["bytes"] == len(b"Early market.")
    assert (found.rows, found.skipped) == (1, 1)


def test_what_the_model_writes(model: Path, tmp_path: Path) -> None:
    data = nano.write_jsonl([{"text": text} for text in TEXTS], tmp_path / "texts.jsonl")
    heard: list[events.Event] = []
    with events.listening(heard.append):
        found = evaluate(model, data, samples="3", max_new_tokens=12, out=tmp_path / "out")
    assert found.report["samples"] == 3
    assert set(found.report) == {
        *("samples", "distinct_1", "distinct_2", "distinct_3", "repetition")
    }
    written = nano.read_jsonl(tmp_path / "out" / "samples.jsonl")
    assert len(written) == 3 and all(
        TEXTS[i].startswith(w["prompt"][:20].strip()) for i, w in enumerate(written)
    )
    again = evaluate(model, data, samples="3", max_new_tokens=12)
    assert again.report == found.report  # the seed decides
    [block] = [e for e in heard if isinstance(e, events.Block) and e.title == "Samples"]
    assert block.lines[0][0] == "variety"
    assert "nats a token" in list(found.lines(False))[-1]


def test_against_another_model(model: Path, tmp_path: Path) -> None:
    nano.decoder(seed=1).save(tmp_path / "other")
    data = nano.write_jsonl([{"text": text} for text in TEXTS], tmp_path / "texts.jsonl")
    found = evaluate(model, data, against=str(tmp_path / "other"))
    gap = found.scores["bits_per_byte"] - found.against["scores"]["bits_per_byte"]
    assert found.against["difference"]["bits_per_byte"] == pytest.approx(gap, abs=1e-3)
    assert 0 < found.against["p"]["loss"] <= 1


def test_what_cannot_be_scored(model: Path, tmp_path: Path) -> None:
    data = nano.write_jsonl([{"text": "a"}], tmp_path / "texts.jsonl")
    with pytest.raises(BadOption, match="--samples must be at least 0"):
        evaluate(model, data, samples="-1")
    with pytest.raises(BadOption, match="--limit"):
        evaluate(model, data, limit=0)
    with pytest.raises(BadData, match="no usable row"):
        evaluate(model, nano.write_jsonl([{"text": " "}], tmp_path / "blank.jsonl"))
