"""Marian's and M2M100's tokenizers, held against those of transformers."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

import nano
from mainspring.checkpoints.numbered import LANGUAGES
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.errors import BadWeights, Mismatch, Missing

TEXTS = [
    "The quiet river.",
    "  two   spaces ",
    "Über den Fluss, 3.5 km! 猫",
    "",
    "x",
    "MORNING letters 😀😀 harbor",
    "the >>fra<< river",
]


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano.marian_tokenizer(tmp_path_factory.mktemp("marian"))


@pytest.fixture(scope="module")
def m2m(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano.m2m100_tokenizer(tmp_path_factory.mktemp("m2m"))


def theirs(kind: str, folder: Path, **options: Any) -> Any:
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sacremoses is recommended
        return getattr(transformers, kind).from_pretrained(folder, **options)


def opened(folder: Path) -> Tokenizer:
    found = Tokenizer.open(folder)
    assert found is not None
    return found


def test_marian_reads_and_writes_with_a_model_each(marian: Path) -> None:
    ours, oracle = opened(marian), theirs("MarianTokenizer", marian)
    for text in [*TEXTS, ">>deu<< the river", ">>xyz<< the river"]:
        assert ours.encode(text) == oracle(text).input_ids, text
        assert ours.writer.encode(text) == oracle(text_target=text).input_ids, text
    assert ours.encode_many(TEXTS) == oracle(TEXTS).input_ids
    differ = [t for t in TEXTS if ours.encode(t) != ours.writer.encode(t)]
    assert differ
    for text in TEXTS:
        ids = ours.writer.encode(text)
        assert ours.decode(ids).strip() == oracle.decode(ids, skip_special_tokens=True)
    assert (ours.pad_id, ours.eos_id, ours.unk_id) == (
        oracle.pad_token_id,
        oracle.eos_token_id,
        oracle.unk_token_id,
    )
    assert ours.encode("the river", special=False) == ours.encode("the river")[:-1]


def test_pieces_without_a_number_are_unknown(marian: Path) -> None:
    ours = opened(marian)
    rare = json.loads((marian / "rare.json").read_text())
    assert ours.id_of(rare) is None
    assert ours.unk_id in ours.encode(rare.replace("▁", " "))


@pytest.mark.parametrize("language", ["en", "de", "zh"])
def test_m2m100_puts_the_language_first(m2m: Path, language: str) -> None:
    ours, oracle = opened(m2m), theirs("M2M100Tokenizer", m2m, src_lang=language)
    token = ours.id_of(f"__{language}__")
    assert token == oracle.get_lang_id(language)
    for text in TEXTS:
        assert [token, *ours.encode(text)[1:]] == oracle(text).input_ids, text
        ids = oracle(text).input_ids
        assert ours.decode(ids).strip() == oracle.decode(ids, skip_special_tokens=True)
    assert opened(m2m).encode("x")[0] == ours.id_of("__en__")


def test_saved_as_read(marian: Path, m2m: Path, tmp_path: Path) -> None:
    for name, folder in (("MarianTokenizer", marian), ("M2M100Tokenizer", m2m)):
        ours = opened(folder)
        copy = tmp_path / name
        copy.mkdir()
        ours.save(copy)
        assert not (copy / "tokenizer.json").exists()
        assert opened(copy).encode(TEXTS[2]) == ours.encode(TEXTS[2])
        assert theirs(name, copy)(TEXTS[2]).input_ids == ours.encode(TEXTS[2])


def test_the_place_of_each_piece(m2m: Path) -> None:
    ours = opened(m2m)
    [(ids, places)] = ours.offsets_many(["The quiet river."])
    assert ids == ours.encode("The quiet river.", special=False)
    assert places[-1][1] == len("The quiet river.")


def test_what_is_missing_or_broken(marian: Path, m2m: Path, tmp_path: Path) -> None:
    def copy(folder: Path, name: str, **changes: bytes | None) -> Path:
        made = tmp_path / name
        made.mkdir()
        for file in folder.iterdir():
            (made / file.name).write_bytes(file.read_bytes())
        for file_name, data in changes.items():
            place = made / file_name.replace("__", ".")
            place.unlink() if data is None else place.write_bytes(data)
        return made

    with pytest.raises(Missing, match=r"no target\.spm"):
        opened(copy(marian, "a", target__spm=None))
    with pytest.raises(Missing, match=r"no vocab\.json"):
        opened(copy(marian, "b", vocab__json=None))
    with pytest.raises(BadWeights, match="not a SentencePiece model"):
        opened(copy(marian, "c", source__spm=b"no"))
    with pytest.raises(BadWeights, match="a number for each token"):
        opened(copy(m2m, "d", vocab__json=b'{"a": "b"}'))
    with pytest.raises(BadWeights, match="no token for what is unknown"):
        opened(copy(m2m, "e", vocab__json=b'{"a": 0}'))
    with pytest.raises(Mismatch, match="only one for both"):
        opened(copy(marian, "f", tokenizer_config__json=b'{"separate_vocabs": true}'))
    with pytest.raises(BadWeights, match="names no language"):
        opened(copy(m2m, "g", tokenizer_config__json=b'{"src_lang": "tlh"}'))


def test_the_languages_are_those_of_transformers() -> None:
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

    assert {name: codes.split() for name, codes in LANGUAGES.items()} == FAIRSEQ_LANGUAGE_CODES
