"""Tokenizers inside GGUF files, against `transformers`' reader, sentencepiece and the originals."""

import io
import json
import unicodedata
from pathlib import Path

import gguf_oracle as oracle
import pytest
import sentencepiece
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from mainspring.checkpoints.gguf_file import GGUFFile
from mainspring.checkpoints.gguf_tokenizer import SPLITS, read_tokenizer
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.errors import BadOption, BadWeights

lean = settings(max_examples=60, deadline=None, derandomize=True, database=None)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
# Texts that tell the ways to split apart: blanks, digits, cases, signs, line ends, scripts.
TEXTS = [
    "The year 2024, 3.14159 and 1,000,000: it's HE'LL they'Ve",
    "a  b   12 34\n\n  indented\tcode = f(x)[0] \r\n return None  ",
    "Straße naïve ﬁx ½ ² Ⅷ ١٢٣ 東京2020 ДОМ домик XMLHttpRequest",
    "!!! ... ?? (a+b)*c/2 -> #tag @name $5 50% “quoted” — dash…",
    "emoji 🙂🙂 🇩🇪 <|im_start|>user\nHi<|im_end|> <|nothing|>",
    "",
    " ",
    "\n",
]
texts = st.lists(
    st.sampled_from(
        ["the", " ", "  ", "\n", "12", "'s", "'LL", "ü", "東", ".", "!!", "_", "A", "<"]
    )
    | st.characters(exclude_categories=("Cs",)),
    max_size=12,
).map("".join)


def trained(name: str) -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer in the original's own words, learnt from the texts above."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = original(name)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    return backend


def original(name: str) -> pre_tokenizers.PreTokenizer:
    """How the tokenizer.json of a model of this kind splits text."""
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "gpt-2":
        return plain
    if name == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, plain])
    splits = [pre_tokenizers.Split(Regex(step), "isolated") for step in SPLITS[name]]
    end = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*splits, end])


def stored(backend: tokenizers.Tokenizer, name: str, file: Path, **more: object) -> Path:
    """The tokenizer in a GGUF file, with two rows that have no token."""
    ids = backend.get_vocab()
    tokens = [*sorted(ids, key=ids.__getitem__), "[PAD0]", "[PAD1]"]
    types = [CONTROL if t in SPECIAL else UNUSED if t[:4] == "[PAD" else 1 for t in tokens]
    pairs = json.loads(backend.to_str())["model"]["merges"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]
    values = {"pre": name, "merges": merges, "bos_token_id": 1, "eos_token_id": 2, **more}
    return oracle.with_tokenizer(file, "gpt2", tokens, types, **values)


def read(file: Path) -> Tokenizer:
    tokenizer = read_tokenizer(GGUFFile(file).metadata, file)
    assert tokenizer is not None
    return tokenizer


@pytest.mark.parametrize("name", SPLITS)
def test_byte_bpe_equals_the_original(tmp_path: Path, name: str) -> None:
    backend = trained(name)
    ours = read(stored(backend, name, tmp_path / "t.gguf", add_bos_token=False))

    @lean
    @given(texts)
    def check(text: str) -> None:
        ids = ours.encode(text)
        if name == "qwen2":  # text is composed first, as in the original files
            text = unicodedata.normalize("NFC", text)
        assert ids == backend.encode(text).ids
        assert ours.decode(ids, skip_special=False) == text

    for text in TEXTS:
        check.hypothesis.inner_test(text)
    check()
    assert ours.vocabulary == backend.get_vocab_size()  # the rows without a token are not counted
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, None)


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "qwen2", "tekken"])
def test_byte_bpe_equals_transformers_reading_of_the_file(tmp_path: Path, name: str) -> None:
    """`transformers` knows fewer ways to split, and adds neither begin nor end token here."""
    file = stored(trained(name), name, tmp_path / "t.gguf", add_bos_token=False)
    ours = read(file)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path, gguf_file=file.name)
    for text in TEXTS:
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"], text


@pytest.mark.parametrize(
    ("name", "given", "around"),
    [
        ("smollm", {}, (False, False)),
        ("llama-bpe", {}, (True, False)),
        ("llama-bpe", {"add_bos_token": False, "add_eos_token": True}, (False, True)),
        ("gpt-2", {"add_bos_token": True}, (True, False)),
    ],
)
def test_what_is_put_around_a_text(tmp_path: Path, name: str, given: dict, around: tuple) -> None:
    ours = read(stored(trained(name), name, tmp_path / "t.gguf", **given))
    plain = ours.backend.encode("the text", add_special_tokens=False).ids
    assert ours.encode("the text") == [1] * around[0] + plain + [2] * around[1]


def test_special_and_user_defined_tokens(tmp_path: Path) -> None:
    backend = trained("smollm")
    file = stored(backend, "smollm", tmp_path / "t.gguf")
    ours = read(file)
    assert ours.encode("<|im_start|>x<|im_end|>")[::2] == [1, 2]
    assert ours.decode([1, *ours.encode("x y"), 2]) == "x y"
    user = oracle.with_tokenizer(
        tmp_path / "u.gguf", "gpt2", ["a", "b", "<think>"], [1, 1, USER_DEFINED], pre="gpt-2"
    )
    assert read(user).encode("a<think>b") == [0, 2, 1]
    assert read(user).decode([0, 2, 1]) == "a<think>b"


def test_whole_entries_stay_whole_where_the_original_keeps_them(tmp_path: Path) -> None:
    """Llama 3's vocabulary has entries that no sequence of merges leads to."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    for name, ids in (("llama-bpe", [len(alphabet)]), ("qwen2", None)):
        file = oracle.with_tokenizer(
            tmp_path / f"{name}.gguf",
            "gpt2",
            [*alphabet, "the", "xy"],
            [1] * len(alphabet) + [1, 1],
            pre=name,
            merges=["x y"],
            add_bos_token=False,
        )
        assert (read(file).encode("the") == ids) is (ids is not None)


def test_the_template_and_the_ids_survive_saving(tmp_path: Path) -> None:
    file = stored(trained("smollm"), "smollm", tmp_path / "t.gguf", padding_token_id=2)
    values = {**GGUFFile(file).metadata, "tokenizer.chat_template": TEMPLATE}
    ours = read_tokenizer(values, file)
    assert ours is not None
    (tmp_path / "out").mkdir()
    ours.save(tmp_path / "out")
    again = Tokenizer.open(tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again is not None and theirs.chat_template == TEMPLATE
    for text in TEXTS:
        ids = ours.encode(text)
        assert again.encode(text) == theirs(text)["input_ids"] == ids
    assert (theirs.bos_token, theirs.eos_token, theirs.pad_token) == (*SPECIAL[1:], SPECIAL[2])


# -- SentencePiece --------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_equals_the_library(tmp_path: Path, kind: str, prefix: bool) -> None:
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([t for t in TEXTS if t.strip()] * 20),
        model_writer=made,
        model_type=kind,
        vocab_size=400,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=prefix,
        minloglevel=2,
    )
    library = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    count = library.get_piece_size()
    types = [
        2 if library.is_unknown(i) else CONTROL if library.is_control(i)
        else 6 if library.is_byte(i) else 1
        for i in range(count)
    ]  # fmt: skip
    file = oracle.with_tokenizer(
        tmp_path / "t.gguf",
        {"bpe": "llama", "unigram": "t5"}[kind],
        [library.id_to_piece(i) for i in range(count)],
        types,
        scores=[library.get_score(i) for i in range(count)],
        unknown_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        add_space_prefix=prefix,
    )
    ours = read(file)
    first, last = [[1], []] if kind == "bpe" else [[], [2]]

    @lean
    @given(texts.filter(lambda text: "\0" not in text and "<" not in text))
    def check(text: str) -> None:
        ids = ours.encode(text)
        assert ids == first + library.encode(text) + last
        assert ours.decode(ids) == library.decode(library.encode(text))

    check()


# -- what is refused ------------------------------------------------------------------------------


def test_what_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    def tiny(model: str, **more: object) -> Path:
        return oracle.with_tokenizer(tmp_path / "t.gguf", model, ["a", "b"], [1, 1], **more)

    with pytest.raises(BadOption, match=r"way to split text `smolm`; did you mean `smollm`"):
        read(tiny("gpt2", pre="smolm"))
    with pytest.raises(BadOption, match=r"kind `rwkv` are not read; known: gpt2, llama, t5"):
        read(tiny("rwkv"))
    with pytest.raises(BadWeights, match="differ in length"):
        read(tiny("llama", scores=[0.0]))
    with pytest.raises(BadWeights, match="vocabulary and its merges do not agree"):
        read(tiny("gpt2", pre="gpt-2", merges=["a c"]))
    assert read_tokenizer({"tokenizer.ggml.model": "no_vocab"}, tmp_path) is None
