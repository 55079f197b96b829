"""`embed`: vectors in the order of the texts, in two formats, gone on with after a stop."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

import mainspring
import nano
from answering import config, tokenizer
from answering import rows as made_rows
from mainspring import cli, events
from mainspring.errors import BadData, BadOption, Mismatch
from mainspring.verbs import embed as verb

TEXTS = [row["context"] for row in made_rows(30)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    transformers.set_seed(3)
    transformers.BertModel(config()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [{"type": f"sentence_transformers.models.{k}", "path": p} for k, p in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [{"id": n, "text": text} for n, text in enumerate(TEXTS)]
    return nano.write_jsonl(rows, tmp_path / "texts.jsonl")


def embed(encoder: Path, *inputs: Any, **options: Any) -> verb.Vectors:
    return mainspring.embed(*inputs, **{"model": str(encoder), "precision": "float32", **options})


def test_texts_files_and_tables_give_the_same(encoder: Path, table: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text(TEXTS[0], encoding="utf-8")
    given = embed(encoder, TEXTS[0], file, table)
    assert given.vectors is not None and given.vectors.shape == (32, 32) == (given.count, 32)
    assert given.vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(given.vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(given.vectors[:2], given.vectors[2], atol=1e-5)
    assert given.places[0] == ("argument", 1) and given.places[-1] == (str(table), 30)


def test_npy_and_jsonl_hold_the_same(encoder: Path, table: Path, tmp_path: Path) -> None:
    wanted = embed(encoder, table).vectors
    made = embed(encoder, table, out=tmp_path / "v.npy")
    assert made.count == 30 and made.out == str(tmp_path / "v.npy")
    assert np.array_equal(np.load(tmp_path / "v.npy"), wanted)
    assert made.vectors is not None and made.vectors[3].shape == (32,)
    rows = nano.read_jsonl(tmp_path / "v.rows.jsonl")
    assert [(row["line"], row["id"]) for row in rows] == [(n + 1, n) for n in range(30)]
    embed(encoder, table, out=tmp_path / "v.jsonl")
    lines = nano.read_jsonl(tmp_path / "v.jsonl")
    assert [line["id"] for line in lines] == list(range(30))
    assert np.allclose([line["embedding"] for line in lines], wanted)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "texts.jsonl",
        "v.jsonl",
        "v.npy",
        "v.rows.jsonl",
    ]
    with pytest.raises(BadOption, match="already there"):
        embed(encoder, table, out=tmp_path / "v.npy")


@pytest.mark.parametrize("suffix", ["npy", "jsonl"])
def test_an_unfinished_file_is_gone_on_with(
    encoder: Path, table: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mainspring.formulations.embedding as module

    monkeypatch.setattr(module, "CHUNK", 4)
    real, seen = module._vectors, []

    def stopping(model: Any, rows: Any) -> Any:
        seen.append(len(rows))
        if sum(seen) > 14:
            raise KeyboardInterrupt
        return real(model, rows)

    out = tmp_path / f"v.{suffix}"
    monkeypatch.setattr(module, "_vectors", stopping)
    seen.append(15)
    with pytest.raises(KeyboardInterrupt):
        embed(encoder, table, out=out)
    assert not list(tmp_path.glob("v.*")), "nothing was done yet"
    seen.clear()
    with pytest.raises(KeyboardInterrupt) as stopped:
        embed(encoder, table, out=out)
    assert not out.exists()
    part = tmp_path / f"v.{suffix}.part"
    [note] = stopped.value.__notes__
    assert note.startswith(f"{part}: 12 ")
    with part.open("ab") as stream:
        stream.write(b"\x01\x02\x03")  # a vector, or a line, that was being written
    monkeypatch.setattr(module, "_vectors", real)
    said: list[events.Event] = []
    with events.listening(said.append):
        made = embed(encoder, table, out=out)
    assert any("going on after 12" in e.text for e in said if isinstance(e, events.Note))
    assert made.count == 30
    wanted = embed(encoder, table).vectors
    if suffix == "npy":
        assert np.allclose(np.load(out), wanted, atol=1e-5)
    else:
        found = [line["embedding"] for line in nano.read_jsonl(out)]
        assert np.allclose(found, wanted, atol=1e-5)


def test_an_unfinished_file_of_others_is_refused(
    encoder: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mainspring.verbs.vectors import VectorFile

    out = tmp_path / "v.npy"
    monkeypatch.setattr(VectorFile, "finish", lambda self: None)
    embed_npy = {"out": out}
    with pytest.raises(FileNotFoundError):  # it never came to its end
        embed(encoder, table, **embed_npy)
    monkeypatch.undo()
    with pytest.raises(BadData, match="made with another pool"):
        embed(encoder, table, pool="mean", **embed_npy)
    other = nano.write_jsonl([{"text": "other"}], tmp_path / "other.jsonl")
    with pytest.raises(BadData, match="belongs to other texts"):
        embed(encoder, other, **embed_npy)


def test_the_users_columns_stay_what_they_are_called(encoder: Path, tmp_path: Path) -> None:
    row = {"id": "river", "text": "river", "file": "mine", "embedding": "old"}
    file = nano.write_jsonl([row], tmp_path / "texts.jsonl")
    embed(encoder, file, out=tmp_path / "v.npy")
    [kept] = nano.read_jsonl(tmp_path / "v.rows.jsonl")
    assert (kept["id"], kept["file"], kept["input_file"]) == ("river", str(file), "mine")
    assert kept["embedding"] == "old" and "text" not in kept
    embed(encoder, file, out=tmp_path / "v.jsonl")
    [whole] = nano.read_jsonl(tmp_path / "v.jsonl")
    assert whole["input_embedding"] == "old" and len(whole["embedding"]) == 32


def test_bad_rows_are_listed_and_places_tell_the_rest(encoder: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_bytes(b'{"text": "river"}\n{"text": ""}\n{"text": "caf\xe9"}\n{"text": "bridge"}\n')
    made = embed(encoder, file, out=tmp_path / "v.npy")
    assert (made.count, made.skipped) == (2, 2)
    assert [row["line"] for row in nano.read_jsonl(tmp_path / "v.rows.jsonl")] == [1, 4]
    reasons = [row["reason"] for row in nano.read_jsonl(tmp_path / "v.skipped.jsonl")]
    assert reasons == ["empty text", "undecodable bytes"]


def test_what_is_cut_is_told(encoder: Path) -> None:
    said: list[events.Event] = []
    with events.listening(said.append):
        made = embed(encoder, "river " * 100)
    assert (made.cut, made.tokens_unread) == (1, 38)
    [warning] = [event.text for event in said if isinstance(event, events.Warn)]
    assert "1 texts longer than 64 tokens were cut (38 tokens not read)" in warning
    assert embed(encoder, "river " * 100, on_long="split").cut == 0


def test_options_that_cannot_be(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match=r"\.npy, \.jsonl"):
        embed(encoder, "a", out=tmp_path / "v.csv")
    with pytest.raises(BadOption, match="--pool"):
        embed(encoder, "a", pool="sum")
    with pytest.raises(BadOption, match="between 4 and 128"):
        embed(encoder, "a", max_source=999)
    plain = tmp_path / "plain"
    transformers.BertModel(config()).save_pretrained(plain)
    tokenizer().save_pretrained(plain)
    with pytest.raises(Mismatch, match="--pool mean"):
        embed(plain, "a")
    assert embed(plain, "a", pool="mean").count == 1


def test_the_command_prints_each_vector(encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["embed", "river", "bridge", "--model", str(encoder), "--precision", "float32"]
    for as_json in (False, True):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, *(["--json"] if as_json else [])])
        assert not ended.value.code
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        vectors = [line["embedding"] for line in lines] if as_json else lines
        wanted = embed(encoder, "river", "bridge").vectors
        assert np.allclose(vectors, wanted, atol=1e-5)
