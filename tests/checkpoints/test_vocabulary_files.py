"""Plain vocabulary files without a tokenizer.json, held against the classes of transformers."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from mainspring.checkpoints.locate import WANTED
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.errors import BadOption, BadWeights, Mismatch, Missing

lean = settings(max_examples=60, deadline=None, derandomize=True, database=None)

LINES = [
    "The naïve Reader said: how much is a café crème? It's 3.50, isn't it!",
    "Él comió rápidamente; ÄÖÜ äöü ß straße, Ünder the Bridge we'll wait.",
    "本文研究了深度学习在自然语言处理中的应用，结果表明该方法优于现有的方法。",
    "emoji 🙂🎉 and 🇩🇪 flags, tabs\tand\nlines,  two  blanks, ﬁne ½ Ⅷ x² # ## ### 2024 100 000",
]
WORDS = st.sampled_from(
    [
        *" ".join(LINES).split(),
        *("深", "度", "龘", "，", "。", "🙂", "🦊", "e\u0301", "ǅ", "\u00a0", "\u200d", "\x00"),
        *(" ", "  ", "\n", "\t", "[MASK]", "<mask>", "[SEP]", "</s>", "<|endoftext|>"),
        *("<new>", "New", "<extra>"),
    ]
)
TEXTS = st.lists(WORDS, max_size=10).map(" ".join) | st.lists(WORDS, max_size=6).map("".join)
BERT = {
    "lower case": {},
    "as written": {"do_lower_case": False},
    "lower case with accents": {"do_lower_case": True, "strip_accents": False},
    "as written without accents": {"do_lower_case": False, "strip_accents": True},
    "Chinese words kept together": {"tokenize_chinese_chars": False},
    "other special tokens": {"unk_token": "<unk>", "mask_token": "<mask>"},
}
BPE = {
    "GPT2Tokenizer": {},
    "GPT2Tokenizer, blank before": {"add_prefix_space": True},
    "GPT2Tokenizer, framed": {"add_bos_token": True, "pad_token": "<pad>"},
    "RobertaTokenizer": {},
    "RobertaTokenizer, offsets as they are": {"trim_offsets": False, "add_prefix_space": True},
    "RobertaTokenizer, mask takes the blank": {
        "mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True}
    },
    "BartTokenizer": {},
    "Qwen2Tokenizer": {},
}


def wordpiece(folder: Path) -> Path:
    """A folder with `vocab.txt` alone, of both cases."""
    made = tokenizers.BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    lines = [*LINES, *(line.lower() for line in LINES)] * 3
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<unk>", "<mask>"]
    made.train_from_iterator(lines, 420, min_frequency=1, special_tokens=special)
    ids = made.get_vocab()
    folder.mkdir()
    listed = "".join(f"{token}\n" for token in sorted(ids, key=ids.__getitem__))
    (folder / "vocab.txt").write_text(listed, encoding="utf-8")
    return folder


def byte_bpe(folder: Path) -> Path:
    """A folder with `vocab.json` and `merges.txt` alone."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(LINES * 3, trainer)
    folder.mkdir()
    made.model.save(str(folder))
    assert "\n# #\n" in (folder / "merges.txt").read_text(encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wordpiece(tmp_path_factory.mktemp("wordpiece") / "folder")


@pytest.fixture(scope="module")
def merges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_bpe(tmp_path_factory.mktemp("bpe") / "folder")


def copy(folder: Path, to: Path, **files: Any) -> Path:
    """The folder with JSON files of these names beside it."""
    shutil.copytree(folder, to)
    for name, data in files.items():
        (to / f"{name}.json").write_text(json.dumps(data))
    return to


def opened(folder: Path) -> Tokenizer:
    found = Tokenizer.open(folder)
    assert found is not None
    return found


def check_same(ours: Tokenizer, theirs: Any) -> None:
    """The same ids, places, text, pairs and special tokens, whatever the text."""
    for part in ("pad", "eos", "bos", "unk", "cls", "sep", "mask"):
        stated = getattr(theirs, f"{part}_token")
        assert stated is None or ours.special[part] == stated
    assert ours.vocabulary == len(theirs)

    @lean
    @given(TEXTS, TEXTS.filter(bool))  # `transformers` takes an empty second text for none
    def check(text: str, other: str) -> None:
        assert ours.encode(text) == theirs(text).input_ids, text
        bare = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        assert ours.offsets_many([text]) == [(bare.input_ids, bare.offset_mapping)], text
        pair, wanted = ours.backend.encode(text, other), theirs(text, other)
        assert pair.ids == wanted.input_ids
        if "token_type_ids" in wanted:
            assert pair.type_ids == wanted.token_type_ids
        for skip in (True, False):
            said = theirs.decode(
                pair.ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False
            )
            assert ours.decode(pair.ids, skip) == said

    check()


@pytest.mark.parametrize("options", BERT.values(), ids=BERT)
def test_vocab_txt(pieces: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    stated = {"tokenizer_class": "BertTokenizer", **options}
    folder = copy(pieces, tmp_path / "folder", tokenizer_config=stated)
    check_same(opened(folder), transformers.BertTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("name", BPE)
def test_vocab_json_and_merges(merges: Path, tmp_path: Path, name: str) -> None:
    kind = name.split(",")[0]
    stated = {"tokenizer_class": kind, **BPE[name]}
    folder = copy(merges, tmp_path / "folder", tokenizer_config=stated)
    check_same(opened(folder), getattr(transformers, kind).from_pretrained(folder))


def folders(pieces: Path, merges: Path) -> Iterator[tuple[Path, str, str]]:
    for model_type, kind in (("bert", "BertTokenizer"), ("distilbert", "DistilBertTokenizer")):
        yield pieces, model_type, kind
    for model_type, kind in (("gpt2", "GPT2"), ("roberta", "Roberta"), ("bart", "Bart")):
        yield merges, model_type, f"{kind}Tokenizer"


def test_the_model_names_the_class_and_what_is_saved_is_the_same(
    pieces: Path, merges: Path, tmp_path: Path
) -> None:
    """Also with tokens that only `added_tokens.json` has."""
    for source, model_type, kind in folders(pieces, merges):
        size = opened(copy(source, tmp_path / f"{kind}, bare", config={"model_type": model_type}))
        folder = copy(
            source,
            tmp_path / kind,
            config={"model_type": model_type},
            added_tokens={"<new>": size.vocabulary, "New": size.vocabulary + 1},
            tokenizer_config={"extra_special_tokens": ["<new>"]},
        )
        ours = opened(folder)
        check_same(ours, getattr(transformers, kind).from_pretrained(folder))
        saved = copy(folder, tmp_path / f"{kind}, saved")
        ours.save(saved)
        for name in ("vocab.txt", "vocab.json", "merges.txt"):
            assert (saved / name).exists() is (source / name).exists()
        assert opened(saved).backend.to_str() == ours.backend.to_str()
        check_same(opened(saved), AutoTokenizer.from_pretrained(saved))


def test_special_tokens_map_names_tokens(pieces: Path, tmp_path: Path) -> None:
    named = {"mask_token": "<mask>", "unk_token": {"content": "<unk>", "lstrip": False}}
    folder = copy(pieces, tmp_path / "folder", special_tokens_map=named)
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    assert opened(folder).special["mask"] == theirs.mask_token == "<mask>"
    check_same(opened(folder), theirs)


def test_what_is_not_known_is_refused_by_name(pieces: Path, merges: Path, tmp_path: Path) -> None:
    def refused(source: Path, kind: type[Exception], match: str, **files: Any) -> None:
        folder = copy(source, tmp_path / str(len(list(tmp_path.iterdir()))), **files)
        for name in [file.stem for file in folder.iterdir() if file.read_text() == "null"]:
            next(folder.glob(f"{name}.*")).unlink()
        with pytest.raises(kind, match=match):
            Tokenizer.open(folder)

    japanese = {"tokenizer_class": "BertJapaneseTokenizer"}
    refused(pieces, Mismatch, r"vocab\.txt .*BertJapaneseTokenizer", tokenizer_config=japanese)
    refused(merges, Mismatch, r"vocab\.json and merges\.txt .* no file names")
    refused(merges, Mismatch, "class whisper", config={"model_type": "whisper"})
    gpt2 = {"model_type": "gpt2"}
    refused(pieces, Missing, r"no vocab\.json, which a GPT2Tokenizer", config=gpt2)
    refused(merges, BadWeights, "not the vocabulary of a GPT2", config=gpt2, vocab=["a"])
    sep = {"sep_token": "<s3p>"}
    refused(pieces, BadWeights, r"lacks the token '<s3p>'.*sep_token", tokenizer_config=sep)
    for key, value in (("do_basic_tokenize", False), ("never_split", ["New"])):
        refused(pieces, BadOption, f"`{key}`", tokenizer_config={key: value})


def test_the_files_are_downloaded() -> None:
    assert {"vocab.txt", "vocab.json", "merges.txt"} <= set(WANTED)
