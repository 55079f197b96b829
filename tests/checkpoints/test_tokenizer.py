"""Tokenizers: opened from the layouts of both releases, saved, learnt from texts."""

import json
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast, T5Tokenizer

from mainspring import events
from mainspring.checkpoints.tokenizer import Tokenizer, sentinels, train_tokenizer
from mainspring.checkpoints.tokenizer_training import sample
from mainspring.errors import BadData, BadOption, BadWeights
from mainspring.families.bert import FAMILY as BERT

lean = settings(max_examples=80, deadline=None, derandomize=True, database=None)


def varied(words: str, lines: int = 400) -> list[str]:
    """Lines of the words in a random order: real text does not repeat itself word for word."""
    draw = random.Random(0)
    return [" ".join(draw.choices(words.split(), k=8)) for _ in range(lines)]


@pytest.fixture(scope="module")
def unigram(texts: list[str]) -> Tokenizer:
    return train_tokenizer([*texts, *varied("the quick fox jumps over lazy dogs")], 230, "unigram")


@pytest.fixture
def opened(small_tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A folder with tokenizer.json alone."""
    small_tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    return tmp_path


def write(folder: Path, name: str, **data: object) -> None:
    (folder / name).write_text(json.dumps(data))


# -- layouts -----------------------------------------------------------------------------------


def test_a_tokenizer_json_alone_has_the_usual_special_tokens(
    opened: Path, small_tokenizer: Tokenizer
) -> None:
    ours = Tokenizer.open(opened)
    assert (ours.pad_id, ours.eos_id, ours.unk_id, ours.bos_id) == (0, 1, 2, None)
    assert ours.encode("The fox") == small_tokenizer.encode("The fox")


def test_no_tokenizer_files_no_tokenizer(tmp_path: Path) -> None:
    write(tmp_path, "tokenizer_config.json", tokenizer_class="T5Tokenizer")
    assert Tokenizer.open(tmp_path) is None


@pytest.mark.parametrize("as_object", [True, False])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_special_tokens_are_read_as_text_and_as_objects(
    opened: Path, as_object: bool, file: str
) -> None:
    token = "<extra_id_5>"
    entry = {"__type": "AddedToken", "content": token, "special": True} if as_object else token
    write(opened, file, pad_token=entry, eos_token="</s>", unk_token=None)
    ours = Tokenizer.open(opened)
    assert ours.pad_id == ours.id_of(token)
    assert ours.eos_id == 1
    assert ours.unk_id is None


def test_tokens_that_only_the_side_files_name_are_added(opened: Path) -> None:
    plain = Tokenizer.open(opened)
    at = plain.vocabulary
    entries = {
        str(at): {"content": "<first>", "special": True},
        str(at + 1): {"content": "<second>", "special": False},
        "1": {"content": "</s>", "special": True},
    }
    write(opened, "tokenizer_config.json", added_tokens_decoder=entries)
    ours = Tokenizer.open(opened)
    assert ours.vocabulary == at + 2
    assert ours.encode("a<second>b") == [*plain.encode("a")[:-1], at + 1, *plain.encode("b")]
    assert ours.decode([at, at + 1]) == "<second>"
    (opened / "tokenizer_config.json").unlink()
    write(opened, "added_tokens.json", **{"<first>": at})
    assert Tokenizer.open(opened).id_of("<first>") == at
    write(opened, "added_tokens.json", **{"<first>": at + 5})
    with pytest.raises(
        BadWeights, match=rf"'<first>' is said to have id {at + 5}, and has id {at}"
    ):
        Tokenizer.open(opened)


def test_what_stands_around_a_text_is_said_by_tokenizer_json_alone(opened: Path) -> None:
    """As `transformers` 5 reads it, which passes over the side file's keys there."""
    for begins in (True, False):
        for ends in (True, False):
            write(
                opened,
                "tokenizer_config.json",
                tokenizer_class="PreTrainedTokenizerFast",
                bos_token="<extra_id_1>",
                eos_token="</s>",
                add_bos_token=begins,
                add_eos_token=ends,
            )
            theirs = PreTrainedTokenizerFast.from_pretrained(opened)
            assert Tokenizer.open(opened).encode("a fox") == theirs("a fox").input_ids


def test_what_transformers_v5_saved_is_read_and_given_back(
    texts: list[str], tmp_path: Path
) -> None:
    theirs = T5Tokenizer(
        vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁the", -3.0)]
        + [(letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
        + [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)]
    )
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Tokenizer.open(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    ours.save(tmp_path / "ours")
    for file in (tmp_path / "theirs").iterdir():
        assert (tmp_path / "ours" / file.name).read_bytes() == file.read_bytes()
    for text in (*texts, "the <extra_id_0> fox"):
        assert ours.encode(text) == theirs(text).input_ids
    assert (ours.pad_id, ours.eos_id, ours.unk_id) == (0, 1, 2)


@pytest.mark.parametrize("name", ["BertTokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"do_lower_case": False},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"do_lower_case": False, "strip_accents": True},
    ],
)
def test_the_side_file_says_how_bert_changes_texts(
    stated: dict[str, bool], name: str, tmp_path: Path
) -> None:
    made = BertWordPieceTokenizer()
    text = "Héllo 你好 World abc"
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = ["hello World Hello Héllo 你 好 你好 world abc ABC"] * 9
    made.train_from_iterator(letters, 90, min_frequency=1, special_tokens=specials)
    made.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, "config.json", model_type="bert")
    write(tmp_path, "tokenizer_config.json", tokenizer_class=name, unk_token="[UNK]", **stated)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    wanted = theirs(text, add_special_tokens=False).input_ids
    assert Tokenizer.open(tmp_path).encode(text, special=False) == wanted


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("prefix", [True, False])
def test_the_side_file_says_whether_a_blank_comes_first(
    prefix: bool, name: str, tmp_path: Path
) -> None:
    made = ByteLevelBPETokenizer(add_prefix_space=False)
    made.train_from_iterator(["hello world"] * 9, 300, min_frequency=1)
    made.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, "config.json", model_type="gpt2")
    write(tmp_path, "tokenizer_config.json", tokenizer_class=name, add_prefix_space=prefix)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert Tokenizer.open(tmp_path).encode("world") == theirs("world").input_ids


def test_templates_may_ask_for_tools_and_for_json_of_any_form(opened: Path) -> None:
    template = (
        "{% if tools is not none or documents is not none %}TOOLS{% endif %}"
        "{{ messages|tojson(ensure_ascii=True, separators=(',', ':'), sort_keys=True) }}"
    )
    write(opened, "tokenizer_config.json", eos_token="</s>", chat_template=template)
    messages = [{"role": "user", "content": "héllo <b>"}]
    theirs = PreTrainedTokenizerFast.from_pretrained(opened)
    wanted = theirs.apply_chat_template(messages, tokenize=False)
    assert Tokenizer.open(opened).chat(messages, answer=False) == wanted


def test_truncation_and_padding_of_the_file_are_left_to_the_caller(opened: Path) -> None:
    data = json.loads((opened / "tokenizer.json").read_text())
    data["truncation"] = {
        "direction": "Right",
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (opened / "tokenizer.json").write_text(json.dumps(data))
    assert len(Tokenizer.open(opened).encode("a much longer text than four")) > 4


# -- ids and text ------------------------------------------------------------------------------


def test_many_texts_are_as_each_alone(small_tokenizer: Tokenizer, texts: list[str]) -> None:
    ids = small_tokenizer.encode_many(texts)
    assert ids == [small_tokenizer.encode(text) for text in texts]
    assert [small_tokenizer.decode(row) for row in ids] == texts
    assert small_tokenizer.encode_many([]) == []


def test_ids_that_stand_for_no_text_do_not_break_decoding(small_tokenizer: Tokenizer) -> None:
    """-100 marks ignored labels; an embedding may have more rows than there are tokens."""
    ids = small_tokenizer.encode("a fox")
    odd = [-100, *ids, small_tokenizer.vocabulary + 7, -1]
    assert small_tokenizer.decode(odd) == "a fox"
    assert small_tokenizer.decode([-100]) == ""
    assert small_tokenizer.tokens(odd[-2:-1]) == [""]
    assert small_tokenizer.decode(ids, skip_special=False) == "a fox</s>"
    assert small_tokenizer.tokens(ids)[-1] == "</s>"


# -- learning ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unigram", "byte-bpe"])
def test_the_layout_is_that_of_t5(texts: list[str], kind: str) -> None:
    lines, size = varied(" ".join(texts)), {"unigram": 200, "byte-bpe": 380}[kind]
    made = train_tokenizer(iter(lines), size, kind)
    assert made.vocabulary == size
    assert made.tokens(range(3)) == ["<pad>", "</s>", "<unk>"]
    assert made.tokens(range(size - 100, size)) == list(sentinels())
    assert made.id_of("<extra_id_0>") == size - 1
    assert (made.pad_id, made.eos_id, made.unk_id, made.bos_id) == (0, 1, 2, None)
    assert made.encode("")[-1] == 1
    assert train_tokenizer(lines, size, kind).backend.to_str() == made.backend.to_str()


@pytest.mark.parametrize("kind", ["unigram", "byte-bpe"])
def test_transformers_opens_a_learnt_tokenizer(
    texts: list[str], kind: str, unigram: Tokenizer, small_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    made = unigram if kind == "unigram" else small_tokenizer
    made.save(tmp_path)
    write(tmp_path, "config.json", model_type="t5")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    again = Tokenizer.open(tmp_path)
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == (0, 1, 2)
    for text in (*texts, "  two  spaces \n\n and <extra_id_3> here", "", "\n"):
        ids = made.encode(text)
        assert again.encode(text) == ids
        assert theirs(text).input_ids == ids
        assert theirs.decode(ids, skip_special_tokens=True) == made.decode(ids)


@lean
@given(
    st.text(max_size=30) | st.lists(st.sampled_from("a \n\tfox，结🙂"), max_size=20).map("".join)
)
def test_bytes_give_every_text_back(text: str) -> None:
    made = train_bytes()
    assert made.decode(made.encode(text)) == text


def train_bytes(found: list[Tokenizer] = []) -> Tokenizer:  # noqa: B006  (trained once)
    if not found:
        found.append(train_tokenizer(["a fox is a fox，结果。"] * 3, 400, "byte-bpe"))
    return found[0]


@lean
@given(st.lists(st.sampled_from(["fox", "dog", " ", "  ", "\n", "，", "研究", "."]), max_size=15))
def test_unigram_gives_lines_and_spaces_back(words: list[str]) -> None:
    made, text = train_pieces(), "".join(words)
    assert made.decode(made.encode(text)) == text


def train_pieces(found: list[Tokenizer] = []) -> Tokenizer:  # noqa: B006  (trained once)
    if not found:
        lines = varied("the quick fox and a dog , ， 研究，结果。 .", 200)
        found.append(train_tokenizer(lines, 150, "unigram"))
    return found[0]


ODD = ("<0x41>", "<", "0x", "fox ", "研究", "魃魈", "\n", "🙂")


@lean
@given(
    st.text(st.characters(blacklist_categories=("Cs",)), max_size=30)
    | st.lists(st.sampled_from(ODD)).map("".join)
)
def test_unigram_spells_what_it_has_not_seen(text: str) -> None:
    """From 2,000 pieces on nothing is unknown; what looks like a byte's name stays what it is."""
    made, text = train_spelling(), unicodedata.normalize("NFC", text)
    ids = made.encode(text)
    assert made.unk_id not in ids
    assert made.decode(ids) == text


def train_spelling(found: list[Tokenizer] = []) -> Tokenizer:  # noqa: B006  (trained once)
    if not found:
        lines = varied("the quick fox and a dog , ， 研究，结果。 .", 200)
        found.append(train_tokenizer(lines, 2400, "unigram", BERT.tokens))
    return found[0]


def test_a_spelling_tokenizer_is_that_of_transformers(tmp_path: Path) -> None:
    made = train_spelling()
    made.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("研究 <0x41> 魃魈 🙂", "Ünknown\n fox", ""):
        ids = made.encode(text)
        assert theirs(text).input_ids == Tokenizer.open(tmp_path).encode(text) == ids
        assert theirs.decode(ids, skip_special_tokens=True) == made.decode(ids)


def test_chinese_characters_stand_alone_where_the_layout_says_so() -> None:
    """As in BERT's vocabularies: a name of two characters begins and ends between tokens."""
    text = "研究结果表明，北京大学fox"
    words = varied("研究结果 表明 ， 北京大学 北京 fox")
    lines = [line.replace(" ", "") for line in words]
    apart = train_tokenizer(lines, 300, "unigram", BERT.tokens)
    [(_, places)] = apart.offsets_many([text])
    han = [n for n, character in enumerate(text) if "\u4e00" <= character <= "\u9fff"]
    assert [(n, n + 1) for n in han] == [place for place in places if place[0] in han and place[1]]
    [(ids, _)] = train_tokenizer(lines, 300, "unigram").offsets_many([text])
    assert len(ids) < len(places)


def test_unigram_finds_whole_words() -> None:
    """Also those that always stand alone: the trainer of `tokenizers` cuts them ("▁tha" "t")."""
    made = train_tokenizer(varied("this library provides that which tools need"), 140, "unigram")
    for word in ("▁this", "▁library", "▁provides", "▁that"):
        assert made.id_of(word) is not None


@pytest.mark.parametrize("kind", ["unigram", "byte-bpe"])
def test_chinese_punctuation_stays_chinese(kind: str) -> None:
    lines = varied("结果 表明 方法 ， 。 （ ） ： 优于 ； 研究 ｆｏｘ")
    made = train_tokenizer([line.replace(" ", "") for line in lines], 400, kind)
    text = "研究结果（方法）：优于；研究，ｆｏｘ。"
    assert made.decode(made.encode(text)) == text
    assert made.unk_id not in made.encode(text)


@pytest.mark.parametrize("kind", ["unigram", "byte-bpe"])
def test_too_few_texts_give_fewer_ids_and_a_warning(texts: list[str], kind: str) -> None:
    heard: list[object] = []
    with events.listening(heard.append):
        made = train_tokenizer(texts, 30_000, kind)
    assert made.vocabulary < 2000
    assert made.id_of("<extra_id_0>") == made.vocabulary - 1
    assert heard == [
        events.Warn(f"tokenizer: the texts are too few for 30000 ids; it has {made.vocabulary}")
    ]


def test_what_cannot_be_learnt_is_said() -> None:
    for kind in ("unigram", "byte-bpe"):
        for nothing in ([], ["", "  \n"]):
            with pytest.raises(BadData, match="no text to train a tokenizer on"):
                train_tokenizer(nothing, 500, kind)
        with pytest.raises(BadOption, match=r"larger|more than"):
            train_tokenizer(["结果表明该方法优于现有的方法"] * 9, 110, kind)
    with pytest.raises(BadOption, match="did you mean `byte-bpe`"):
        train_tokenizer(["a"], 500, "byte_bpe")


def test_long_lines_are_not_left_out() -> None:
    """The trainer itself would skip a line of more than four thousand bytes."""
    words = "a fox is where zebra stands"
    made = train_tokenizer([" ".join(varied(words, 3000)), "fox"], 150, "unigram")
    assert made.id_of("▁zebra") is not None


@given(st.lists(st.text(max_size=9), min_size=1, max_size=60), st.integers(1, 99))
def test_of_too_many_texts_some_are_drawn_and_that_is_said(texts: list[str], most: int) -> None:
    seen: list[events.Event] = []
    with events.listening(seen.append):
        kept = sample(iter(texts), "lines", most)
    size = sum(map(len, texts))
    rest = iter(texts)
    assert all(text in rest for text in kept)  # in their order, each once
    assert sum(map(len, kept)) <= most or len(kept) == 1
    if size <= most:
        assert kept == texts and not seen
    elif len(texts) > 1:
        told = f"the tokenizer learns from {len(kept)} of {len(texts)} lines, drawn at random"
        assert seen == [events.Note(told)]


def test_a_sample_holds_of_all_kinds_alike() -> None:
    texts = [text for pair in zip(["en"] * 20_000, ["de"] * 20_000, strict=True) for text in pair]
    kept = sample(texts, "texts", 8000)
    assert 2000 < len(kept) <= 4000
    assert 0.4 < kept.count("de") / len(kept) < 0.6


@pytest.mark.parametrize("kind", ["unigram", "byte-bpe"])
def test_an_error_of_the_texts_comes_through(kind: str) -> None:
    def texts() -> Iterator[str]:
        yield "a fox"
        raise BadData("no text here", file="x.csv", line=3)

    with pytest.raises(BadData, match=r"x\.csv:3: no text here"):
        train_tokenizer(texts(), 500, kind)
