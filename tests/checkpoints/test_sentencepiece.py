"""SentencePiece files: the same ids as the `sentencepiece` library and as `transformers`."""

import io
import json
from pathlib import Path

import pytest
import sentencepiece
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, T5Tokenizer

from mainspring.checkpoints.piece_layouts import NLLB, PLAIN, layout_of
from mainspring.checkpoints.sentencepiece import build_tokenizer, parse_model
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.errors import BadOption, BadWeights, Mismatch

lean = settings(max_examples=80, deadline=None, derandomize=True, database=None)

ENGLISH = (
    "It was the best of times, it was the worst of times; it was the age of wisdom, it was the "
    "age of foolishness. In 1859 the naïve reader paid £3.50 — or 4 francs — for a café crème, "
    'and said: "How much is x² + y² ≤ 10 µm?" E-mail me@example.org, or see https://example.org/.'
)
CHINESE = (
    "本文研究了深度学习在自然语言处理中的应用，并在三个数据集上给出了实验结果。"
    "结果表明：该方法优于现有的方法（见表２），但训练时间较长。春眠不觉晓，处处闻啼鸟。"
)
OTHER = "Emoji 🙂🎉 and flags 🇩🇪, ﬁne ligatures, ｆｕｌｌ　ｗｉｄｔｈ, tabs\tand\nlines, ½ Ⅷ ㎏ …"
CORPUS = [part for text in (ENGLISH, CHINESE, OTHER) for part in (text, *text.split(". "))] * 8


def train(**options: object) -> bytes:
    """A `.model` file in T5's layout."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=written,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,  # else sums are rounded in any order, and other pieces come out
        **options,
    )
    return written.getvalue()


MODELS = {
    "unigram": {"vocab_size": 400, "character_coverage": 0.99},
    "unigram, bytes": {"vocab_size": 600, "character_coverage": 0.98, "byte_fallback": True},
    "unigram, pieces over spaces": {"vocab_size": 400, "split_by_whitespace": False},
    "unigram, spaces kept": {"vocab_size": 400, "remove_extra_whitespaces": False},
    "unigram, no space before": {"vocab_size": 400, "add_dummy_prefix": False},
    "unigram, text as it is": {"vocab_size": 400, "normalization_rule_name": "identity"},
    "bpe": {"vocab_size": 500, "model_type": "bpe", "character_coverage": 0.99},
    "bpe, bytes": {
        "vocab_size": 700,
        "model_type": "bpe",
        "character_coverage": 0.98,
        "byte_fallback": True,
    },
}
WORDS = st.sampled_from([*ENGLISH.split(), *CHINESE, *OTHER.split(), " ", "  ", "qzx", "龘", "🦊"])
SENTENCES = st.lists(WORDS, max_size=12).map(" ".join)


@pytest.fixture(scope="module")
def trained() -> dict[str, bytes]:
    return {name: train(**options) for name, options in MODELS.items()}


@pytest.mark.parametrize("name", MODELS)
def test_ids_are_those_of_the_sentencepiece_library(trained: dict[str, bytes], name: str) -> None:
    reference = sentencepiece.SentencePieceProcessor(model_proto=trained[name])
    ours = build_tokenizer(parse_model(trained[name]))
    assert ours.get_vocab_size() == reference.get_piece_size()

    @lean
    @given(SENTENCES)
    def check(text: str) -> None:
        wanted = reference.encode(text)
        assert ours.encode(text).ids == wanted, text
        if reference.unk_id() not in wanted:
            assert ours.decode(wanted) == reference.decode(wanted)

    check()
    for text in CORPUS[:12]:
        assert ours.encode(text).ids == reference.encode(text)


def test_real_texts(shared_data: Path) -> None:
    """English, Chinese and emoji names, with a model trained on part of them."""
    texts = []
    for file in (
        "summarization/scitldr_a/test.jsonl",
        "summarization/csl_zh/test.jsonl",
        "summarization/debian_synopsis_en/validation.jsonl",
        "translation/debian_en_fr/validation.jsonl",
    ):
        with (shared_data / file).open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line, _ in zip(lines, range(120), strict=False)]
        texts += [value for row in rows for value in row.values() if isinstance(value, str)]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts[::3]),
        model_writer=written,
        vocab_size=3000,
        character_coverage=0.9995,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    reference = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    ours = build_tokenizer(parse_model(written.getvalue()))
    for text, encoding in zip(texts, ours.encode_batch_fast(texts), strict=True):
        assert encoding.ids == reference.encode(text), text


def test_a_t5_folder_with_spiece_model_only(trained: dict[str, bytes], tmp_path: Path) -> None:
    """100 sentinels after the pieces and </s> after the text, as `transformers` has it; and what
    is saved opens there with the same ids."""
    (tmp_path / "spiece.model").write_bytes(trained["unigram"])
    ours = Tokenizer.open(tmp_path)
    assert ours is not None
    theirs = T5Tokenizer.from_pretrained(tmp_path)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=trained["unigram"]).get_piece_size()
    assert ours.vocabulary == pieces + 100
    assert ours.id_of("<extra_id_0>") == pieces + 99
    assert (ours.pad_id, ours.eos_id, ours.unk_id, ours.bos_id) == (0, 1, 2, None)
    saved = tmp_path / "saved"
    saved.mkdir()
    ours.save(saved)
    assert (saved / "spiece.model").read_bytes() == trained["unigram"]
    (saved / "config.json").write_text('{"model_type": "t5"}')
    reopened = [Tokenizer.open(saved), AutoTokenizer.from_pretrained(saved)]
    for text in [*CORPUS[:12], "", "fill <extra_id_0> and<extra_id_12> in", "end</s>", "a <pad> b"]:
        ids = ours.encode(text)
        assert ids == theirs(text).input_ids, text
        assert [reopened[0].encode(text), reopened[1](text).input_ids] == [ids, ids]
        for skip in (True, False):
            wanted = theirs.decode(ids, skip_special_tokens=skip)
            assert ours.decode(ids, skip) == wanted
            assert reopened[1].decode(ids, skip_special_tokens=skip) == wanted


def test_extra_ids_of_the_side_files(trained: dict[str, bytes], tmp_path: Path) -> None:
    """mT5 has none, other checkpoints another number."""
    (tmp_path / "spiece.model").write_bytes(trained["unigram"])
    for count in (0, 7):
        config = {"tokenizer_class": "T5Tokenizer", "extra_ids": count, "eos_token": "</s>"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        ours = Tokenizer.open(tmp_path)
        assert ours is not None
        assert (ours.id_of("<extra_id_0>") is None) is (count == 0)
        reference = sentencepiece.SentencePieceProcessor(model_proto=trained["unigram"])
        assert ours.vocabulary == reference.get_piece_size() + count
        assert ours.encode(ENGLISH) == [*reference.encode(ENGLISH), 1]


def test_a_cut_or_foreign_file_is_refused(trained: dict[str, bytes], tmp_path: Path) -> None:
    file = tmp_path / "spiece.model"
    for data in (trained["unigram"][:-100], trained["bpe"][:37], b"", b"plain text", b"\xff" * 50):
        file.write_bytes(data)
        with pytest.raises(BadWeights, match=r"spiece\.model: not a SentencePiece model"):
            Tokenizer.open(tmp_path)
    file.write_bytes(train(vocab_size=300, model_type="word"))
    with pytest.raises(BadWeights, match="only Unigram and BPE"):
        Tokenizer.open(tmp_path)


# -- classes that number the pieces their own way ------------------------------------------------

FAIRSEQ = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
PEGASUS = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
GEMMA = {
    "pad_id": 0,
    "eos_id": 1,
    "bos_id": 2,
    "unk_id": 3,
    "eos_piece": "<eos>",
    "bos_piece": "<bos>",
    "add_dummy_prefix": False,
}
BYTES = {
    "byte_fallback": True,
    "character_coverage": 0.98,
    "vocab_size": 700,
    "model_type": "bpe",
    "remove_extra_whitespaces": False,
}
CLASSES = {
    "XLMRobertaTokenizer": ("xlm-roberta", "sentencepiece.bpe.model", FAIRSEQ),
    "CamembertTokenizer": ("camembert", "sentencepiece.bpe.model", FAIRSEQ),
    "MBartTokenizer": ("mbart", "sentencepiece.bpe.model", FAIRSEQ),
    "MBart50Tokenizer": ("mbart", "sentencepiece.bpe.model", FAIRSEQ),
    "NllbTokenizer": ("m2m_100", "sentencepiece.bpe.model", {**FAIRSEQ, "model_type": "bpe"}),
    "PegasusTokenizer": ("pegasus", "spiece.model", PEGASUS),
    "LlamaTokenizer": ("llama", "tokenizer.model", {**FAIRSEQ, **BYTES}),
    "GemmaTokenizer": ("gemma", "tokenizer.model", {**GEMMA, **BYTES}),
}
ASKED = ["It was the age of wisdom", "本文研究了深度学习", " two  blanks", "🙂 qzx", "a <mask>."]


def laid(folder: Path, name: str, **more: object) -> Path:
    model_type, file, options = CLASSES[name]
    merged = {"vocab_size": 400, **options}
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=written,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
        **merged,
    )
    folder.mkdir()
    (folder / file).write_bytes(written.getvalue())
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **more}))
    return folder


def name_nllb_languages(folder: Path, **more: object) -> None:
    """Numbers the languages and then the mask as NLLB's published files do: `transformers` makes
    no tokens of them of itself."""
    file = folder / "sentencepiece.bpe.model"
    at = sentencepiece.SentencePieceProcessor(model_file=str(file)).get_piece_size() + 1
    tokens = [*NLLB.split(), "<mask>"]
    added = {
        str(at + place): {"content": token, "special": True, "lstrip": token == "<mask>"}
        for place, token in enumerate(tokens)
    }
    config = {"tokenizer_class": "NllbTokenizer", "added_tokens_decoder": added, **more}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_the_languages_of_nllb_are_numbered_as_published(tmp_path: Path) -> None:
    """The published file has 256,000 pieces; English is 256047 there, French 256057, Romanian
    256145, and the mask 256203 (`transformers` tests for these)."""
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    layout = layout_of("NllbTokenizer")
    first = len(layout.front) + 256_000 - layout.skipped
    numbers = {token: first + place for place, token in enumerate(layout.back)}
    assert [numbers[f"{code}_Latn"] for code in ("eng", "fra", "ron")] == [256047, 256057, 256145]
    assert numbers["<mask>"] == 256203
    assert NLLB.split() == FAIRSEQ_LANGUAGE_CODES
    folder = laid(tmp_path / "folder", "NllbTokenizer", src_lang="fra_Latn")
    bare = Tokenizer.open(folder)
    name_nllb_languages(folder, src_lang="fra_Latn")
    theirs = transformers.NllbTokenizer.from_pretrained(folder)
    assert bare is not None
    for text in ASKED:
        assert bare.encode(text) == theirs(text).input_ids, text
    name_nllb_languages(folder, src_lang="fra_Latn", legacy_behaviour=True)
    theirs, ours = transformers.NllbTokenizer.from_pretrained(folder), Tokenizer.open(folder)
    assert ours is not None
    for text in ASKED:
        assert ours.encode(text) == theirs(text).input_ids, text


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_numbers_the_pieces_as_transformers_does(name: str, tmp_path: Path) -> None:
    stated: dict[str, object] = {"src_lang": "de_DE"} if name.startswith("MBart") else {}
    if name in PLAIN:  # as `transformers` documents them; its release 5 wants to be told
        stated = {"add_bos_token": True}
    folder = laid(tmp_path / "folder", name, **stated)
    if name == "NllbTokenizer":
        name_nllb_languages(folder)
    theirs = getattr(transformers, name).from_pretrained(folder)
    ours = Tokenizer.open(folder)
    assert ours is not None
    # Of those that take the file's numbers, the tests above hold blanks to the library itself.
    asked = [text for text in ASKED if name not in PLAIN or ("  " not in text and "<" not in text)]
    for text in asked:
        ids = theirs(text).input_ids
        assert ours.encode(text) == ids, text
        assert ours.decode(ids).strip() == theirs.decode(ids, skip_special_tokens=True).strip()
        pair = ours.backend.encode(text, "of wisdom")
        assert pair.ids == theirs(text, "of wisdom").input_ids, text
    assert name in PLAIN or ours.vocabulary == len(theirs)
    for part in ("eos", "unk", *(() if name in PLAIN else ("pad", "mask"))):
        assert ours.special.get(part) == getattr(theirs, f"{part}_token")
    (tmp_path / "saved").mkdir()
    ours.save(tmp_path / "saved")
    again = Tokenizer.open(tmp_path / "saved")
    assert again is not None
    assert [again.encode(text) for text in ASKED] == [ours.encode(text) for text in ASKED]


@pytest.mark.parametrize("legacy", [None, False, True])
def test_behind_special_tokens_a_blank_is_put_in_legacy_folders(
    legacy: bool | None, tmp_path: Path
) -> None:
    stated = {} if legacy is None else {"legacy": legacy}
    folder = laid(tmp_path / "folder", "LlamaTokenizer", add_bos_token=True, **stated)
    theirs, ours = transformers.LlamaTokenizer.from_pretrained(folder), Tokenizer.open(folder)
    assert ours is not None
    for text in ("wisdom</s>wisdom", "<s>It was</s><s>the age", "of wisdom"):
        assert ours.encode(text) == theirs(text).input_ids, text


def test_a_class_is_named_by_the_model_or_refused_but_not_guessed(tmp_path: Path) -> None:
    folder = laid(tmp_path / "folder", "XLMRobertaTokenizer")
    stated = Tokenizer.open(folder)
    (folder / "tokenizer_config.json").unlink()
    found = Tokenizer.open(folder)
    assert stated is not None and found is not None
    assert [found.encode(text) for text in ASKED] == [stated.encode(text) for text in ASKED]
    (folder / "config.json").write_text('{"model_type": "m2m_100"}')
    with pytest.raises(Mismatch, match=r"of the class m2m_100.*writes a tokenizer\.json"):
        Tokenizer.open(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "XGLMTokenizer"}')
    with pytest.raises(Mismatch, match="XGLMTokenizer"):
        Tokenizer.open(folder)
    laid(tmp_path / "other", "MBartTokenizer", src_lang="xx_XX")
    with pytest.raises(BadOption, match="src_lang"):
        Tokenizer.open(tmp_path / "other")
