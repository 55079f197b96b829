"""Translation: the languages told in each model's way, lines kept, terms forced."""

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import nano
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.checkpoints.multilingual import language_tokens, sides, target_prefix
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.data.terms import Term, read_terms, terms_in
from mainspring.errors import BadData, BadOption, Mismatch, Missing
from mainspring.formulations import Inference, Limits, Prediction, Setup
from mainspring.formulations.prediction import generation_options
from mainspring.formulations.translation import (
    PROMPTS,
    cut_up,
    encode,
    phrase_ids,
    predict,
    told,
)
from mainspring.text import LINE_END

SENTENCES = ["The quiet river.", "Early market window garden.", "painter", "Winter, harbor!"]
SMALL = {
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
}


def inference(bundle: Bundle, limits: Limits, on_long: Any = "split", **given: Any) -> Inference:
    return Inference(generation_options(bundle.generation, limits, given), on_long)


def setup(source: str | None = "en", target: str | None = "de", **options: Any) -> Setup:
    languages = {"source_language": source, "target_language": target}
    known = {name: code for name, code in languages.items() if code is not None}
    return Setup(Limits(60, 12), options={**known, **options})


def translated(
    bundle: Bundle, texts: list[str], chosen: Setup, on_long: Any = "split", **given: Any
) -> list[Prediction]:
    how = inference(bundle, chosen.limits, on_long, **given)
    return list(predict(bundle, ({"text": text} for text in texts), chosen, how))


# -- held against transformers ---------------------------------------------------------------------


# Kind -> its classes of transformers, and how it names English and German.
KINDS = {
    "marian": ("MarianTokenizer", "MarianMTModel", None, None),
    "m2m100": ("M2M100Tokenizer", "M2M100ForConditionalGeneration", "en", "de"),
    "nllb": ("NllbTokenizer", "M2M100ForConditionalGeneration", "eng_Latn", "deu_Latn"),
    "mbart": ("MBartTokenizer", "MBartForConditionalGeneration", "en_XX", "de_DE"),
    "mbart50": ("MBart50Tokenizer", "MBartForConditionalGeneration", "en_XX", "de_DE"),
}


def tokenizer_of_theirs(kind: str, folder: Path) -> Any:
    import transformers

    name, _, source, target = KINDS[kind]
    told = {} if source is None else {"src_lang": source, "tgt_lang": target}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sacremoses is recommended
        return getattr(transformers, name).from_pretrained(folder, **told)


def checkpoint(kind: str, folder: Path) -> Any:
    """A tiny random checkpoint with its tokenizer; the model of transformers."""
    import transformers

    torch.manual_seed(0)
    if kind == "marian":
        nano.marian_tokenizer(folder)
        size = len(json.loads((folder / "vocab.json").read_text()))
        config = transformers.MarianConfig(
            **SMALL,
            vocab_size=size,
            eos_token_id=0,
            pad_token_id=size - 1,
            decoder_start_token_id=size - 1,
            forced_eos_token_id=0,
            activation_function="swish",
        )
        model = transformers.MarianMTModel(config)
        model.generation_config.bad_words_ids = [[size - 1]]
        model.generation_config.num_beams = 3
    else:
        if kind == "m2m100":
            nano.m2m100_tokenizer(folder)
        else:
            nano.language_tokenizer(folder, KINDS[kind][0])
        like_mbart = kind.startswith("mbart")
        made = transformers.MBartConfig if like_mbart else transformers.M2M100Config
        size = len(tokenizer_of_theirs(kind, folder))
        model = getattr(transformers, KINDS[kind][1])(
            made(**SMALL, vocab_size=size, decoder_start_token_id=2)
        )
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, parameter.shape[-1] ** -0.5)
    model.get_input_embeddings().weight.data.normal_(0, 1)  # large tables make sharp choices
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
        return type(model).from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Bundle, Path]]:
    made: dict[str, tuple[Any, Bundle, Path]] = {}

    def get(kind: str) -> tuple[Any, Bundle, Path]:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            theirs = checkpoint(kind, folder)
            made[kind] = theirs, load(folder), folder
        return made[kind]

    return get


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("marian", {}),
        ("marian", {"num_beams": 1}),
        *(
            (kind, {"num_beams": beams, "no_repeat_ngram_size": 1})
            for kind in ("m2m100", "nllb", "mbart", "mbart50")
            for beams in (1, 3)
        ),
    ],
)
def test_translations_are_those_of_transformers(
    models: Any, kind: str, options: dict[str, int]
) -> None:
    theirs, bundle, folder = models(kind)
    tokenizer = tokenizer_of_theirs(kind, folder)
    _, _, source, target = KINDS[kind]
    inputs, forced = tokenizer(SENTENCES, return_tensors="pt", padding=True), {}
    if kind == "mbart":  # of 25 languages: the language is where the decoder starts
        forced = {"decoder_start_token_id": tokenizer.convert_tokens_to_ids(target)}
    elif target is not None:
        asked = {"return_tensors": "pt", "src_lang": source, "tgt_lang": target}
        told = tokenizer._build_translation_inputs(SENTENCES[:1], **asked)
        forced = {"forced_bos_token_id": told["forced_bos_token_id"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ids = theirs.generate(**inputs, max_new_tokens=12, **forced, **options)
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    chosen = setup(*(code and code[:2] for code in (source, target)))
    ours = translated(bundle, SENTENCES, chosen, **options)
    assert [p.value for p in ours] == [" ".join(text.split()) for text in texts]
    assert len({p.value for p in ours}) > 1
    assert [p.source_tokens for p in ours] == inputs.attention_mask.sum(1).tolist()


@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_training_pairs_are_those_of_transformers(models: Any, kind: str) -> None:
    _, bundle, folder = models(kind)
    tokenizer = tokenizer_of_theirs(kind, folder)
    assert bundle.tokenizer is not None
    chosen = setup("en", None if kind == "marian" else "de")
    languages = (None, None) if kind == "marian" else ("en", "de")
    read, written = sides(bundle.tokenizer, *languages)
    for text in SENTENCES:
        wanted = tokenizer(text, text_target=text[::-1])
        assert read.encode_many([text]) == [wanted.input_ids]
        assert written.encode_many([text[::-1]]) == [wanted.labels]
    if kind == "mbart":
        return  # not fine-tuned, see below
    rows = [{"text": text, "target": text[::-1]} for text in SENTENCES]
    for row, found in zip(rows, encode(rows, bundle.tokenizer, chosen), strict=True):
        wanted = tokenizer(row["text"], text_target=row["target"])
        assert list(found.source) == wanted.input_ids
        longest = 12 - 1  # a cut target still ends
        assert list(found.target) == [*wanted.labels[:-1][:longest], wanted.labels[-1]]


# -- how the languages are told --------------------------------------------------------------------


def with_languages(codes: list[str], template: Any, config: dict[str, Any] | None = None) -> Any:
    """A plain tokenizer with a token for each language, around texts as `template` says."""
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(nano.tokenizer().backend.to_str())
    backend.add_special_tokens(codes)
    files = {"tokenizer_config.json": json.dumps(config or {}).encode()}
    tokenizer = Tokenizer(backend, nano.tokenizer().special, files)
    special = [(token, backend.token_to_id(token)) for token in template if token != "$A"]
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=template, special_tokens=special
    )
    return tokenizer


def test_where_the_language_stands() -> None:
    codes = ["en_XX", "de_DE", "zh_CN"]
    first = with_languages(codes, ["en_XX", "$A", "</s>"])
    read, written = sides(first, "de", "zh")
    [ids] = read.encode_many(["river"])
    assert first.tokens(ids)[0] == "de_DE" and first.tokens(ids)[-1] == "</s>"
    assert written.language == first.id_of("zh_CN") and not written.last
    last = with_languages(codes, ["$A", "</s>", "en_XX"])
    read, written = sides(last, "en", "de_DE")
    [ids] = read.encode_many(["river"])
    assert last.tokens(ids)[-2:] == ["</s>", "en_XX"] and written.last
    with pytest.raises(Mismatch, match="25 languages"):
        encode([{"text": "a", "target": "b"}], last, setup())


def test_nllb_is_told_before_the_text_unless_its_config_says_otherwise() -> None:
    codes = ["eng_Latn", "deu_Latn", "zho_Hans", "zho_Hant"]
    new = with_languages(codes, ["$A", "</s>", "eng_Latn"])
    assert language_tokens(new).keys() == set(codes)
    read, written = sides(new, "en", "zh-TW")
    assert not read.last and written.language == new.id_of("zho_Hant")
    old = with_languages(codes, ["$A", "</s>", "eng_Latn"], {"legacy_behaviour": True})
    assert sides(old, "en", "de")[0].last


def test_a_language_that_is_not_told_or_not_known() -> None:
    tokenizer = with_languages(["eng_Latn", "deu_Latn"], ["$A", "</s>"])
    with pytest.raises(BadOption, match="must be told which: give --target-language"):
        sides(tokenizer, "en", None)
    with pytest.raises(BadOption, match="--source-language: language `fr`"):
        sides(tokenizer, "fr", "de")
    # A model without such tokens needs to be told nothing.
    assert sides(nano.tokenizer(), None, None)[0].language is None


def test_prefixes_name_the_languages() -> None:
    asked = replace(setup("en", "de"), prefix="translate {source} to {target}: ", suffix="{target}")
    filled = told(asked, nano.tokenizer())
    assert (filled.prefix, filled.suffix) == ("translate English to German: ", "German")
    reverse = replace(setup("de", "en"), prefix=asked.prefix)
    assert told(reverse, nano.tokenizer()).prefix == "translate German to English: "
    with pytest.raises(BadOption, match="in words: give --source-language and --target-language"):
        told(replace(setup(None, "de"), prefix=asked.prefix), nano.tokenizer())


def test_marian_models_of_many_targets_read_a_code(tmp_path: Path) -> None:
    tokenizer = Tokenizer.open(nano.marian_tokenizer(tmp_path))
    assert tokenizer is not None
    assert target_prefix(tokenizer, "de") == target_prefix(tokenizer, "deu") == ">>deu<< "
    assert target_prefix(tokenizer, None) == target_prefix(nano.tokenizer(), "de") == ""
    with pytest.raises(BadOption, match="--target-language: language `zh`"):
        target_prefix(tokenizer, "zh")
    [row] = encode([{"text": "river", "target": "revir"}], tokenizer, setup("en", "fr"))
    assert tokenizer.tokens(row.source)[0] == ">>fra<<"


def test_prompts_of_decoder_only_models_name_the_languages() -> None:
    asked = replace(setup("en", "zh"), prefix="From {source} to {target}: ", suffix=" =")
    rows = [{"text": "river", "target": "letter"}]
    [row] = PROMPTS.encode(rows, nano.tokenizer(), asked)
    wanted = nano.tokenizer().encode("From English to Chinese: river =", special=True)[:-1]
    assert list(row.source[: len(wanted)]) == wanted


# -- lines -----------------------------------------------------------------------------------------


def plain(texts: Any) -> list[list[int]]:
    """One token a character, and an end."""
    return [[*map(ord, text), 1] for text in texts]


def unchanged(pieces: tuple[str, ...]) -> list[Prediction]:
    return [Prediction(piece, "eos", 1, 1) for piece in pieces]


texts_ = st.text(st.sampled_from("ab .。猫\n \t\r"), max_size=40)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(texts_, st.integers(4, 60), st.booleans())
@example("One.\n\n  Two. Three!\n", 6, False)
@example("\n\n", 10, True)
def test_lines_and_blanks_are_kept(text: str, limit: int, by_sentence: bool) -> None:
    how = Inference(None, "split")
    document = cut_up(text, limit, how, plain, by_sentence)
    assert all(piece.strip() == piece for piece in document.pieces)
    assert all(len(ids) <= limit for ids in plain(document.pieces))
    joined = document.joined(unchanged(document.pieces)).value
    assert LINE_END.findall(joined) == LINE_END.findall(text)
    lines, kept = LINE_END.split(joined), LINE_END.split(text)
    for ours, theirs in zip(lines, kept, strict=True):
        assert "".join(ours.split()) == "".join(theirs.split())  # no character is lost
        if not theirs.strip():
            assert ours == theirs
        else:
            indent = theirs[: len(theirs) - len(theirs.lstrip())]
            assert ours[: len(ours) - len(ours.lstrip())] == indent


def test_long_lines_are_read_in_windows_and_sentences_apart() -> None:
    how = Inference(None, "split")
    line = "First sentence here. Second sentence here. Third."
    assert cut_up(line, 99, how, plain).pieces == (line,)
    windows = cut_up(line, 30, how, plain)
    assert windows.pieces == ("First sentence here.", "Second sentence here. Third.")
    assert windows.joined(unchanged(windows.pieces)).windows == 2
    assert cut_up(line, 99, how, plain, True).pieces == (
        "First sentence here.",
        "Second sentence here.",
        "Third.",
    )
    assert cut_up(line, 30, replace(how, on_long="cut"), plain).pieces == (line,)
    chinese = cut_up("他来了。她走了。", 6, how, plain)
    assert chinese.joined(unchanged(chinese.pieces)).value == "他来了。她走了。"  # no blank


def test_a_document_is_translated_line_by_line(models: Any) -> None:
    _, bundle, _ = models("marian")
    apart = [p.value for p in translated(bundle, SENTENCES[:3], setup(), num_beams=1)]
    text = f"{SENTENCES[0]}\n\n  {SENTENCES[1]}\n{SENTENCES[2]}\n"
    heard: list[str] = []
    how = inference(bundle, Limits(60, 12), num_beams=1)
    done: list[int] = []
    [whole] = predict(bundle, iter([{"text": text}]), setup(), how, done.append, heard.append)
    assert whole.value == f"{apart[0]}\n\n  {apart[1]}\n{apart[2]}\n"
    assert "".join(heard).split() == whole.value.split()
    assert "".join(heard).count("\n") == whole.value.count("\n") and done[-1] == 1
    [refused] = translated(bundle, ["river " * 70], setup(), "refuse")
    assert refused.error is not None and refused.value == ""


# -- terms -----------------------------------------------------------------------------------------


def test_terms_are_written_as_asked(models: Any, tmp_path: Path) -> None:
    _, bundle, _ = models("m2m100")
    file = tmp_path / "terms.tsv"
    file.write_text("river\tgnisser\n# a note\n\nmarket\tenigne rotcod\n", encoding="utf-8")
    chosen = setup(terms=str(file))
    free = translated(bundle, SENTENCES, setup(), num_beams=2)
    forced = translated(bundle, SENTENCES, chosen, num_beams=2)
    assert "gnisser" in forced[0].value and "gnisser" not in free[0].value
    assert "enigne rotcod" in forced[1].value
    assert [p.value for p in forced[2:]] == [p.value for p in free[2:]]  # no term in them
    tight = replace(chosen, limits=Limits(60, 4))
    with pytest.raises(BadOption, match="only 2 may be written"):
        translated(bundle, SENTENCES[:2], tight)


def test_terms_are_looked_for_as_words() -> None:
    term = Term("window", "Fenster")
    assert terms_in("The Window is open", [term]) == [term] and not terms_in("windows", [term])
    for one, text in ((Term("猫", "cat"), "黑猫来了"), (Term("C++", "C++"), "in C++, say")):
        assert terms_in(text, [one]) == [one]
    assert Term("Rome", "Rom").is_written("in Rom.") and Term("a", "猫").is_written("黑猫来了")
    assert not Term("Rome", "Rom").is_written("in Rome") and not term.is_written("das fenster")


def test_a_term_within_a_longer_one_does_not_count() -> None:
    york, city = Term("York", "Jork"), Term("New York", "Neu York")
    assert terms_in("I see New York.", [york, city]) == [city]
    assert terms_in("From York to New York.", [york, city]) == [york, city]
    assert terms_in("York", [york, city]) == [york]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a b\n", "one tab between"),
        ("a\tb\n\ta\n", "one tab between"),
        ("", "no terms in it"),
        ("a\tb\nA\tc\n", "two targets"),
        ("a\tb\0\n", "NUL"),
    ],
)
def test_lists_of_terms_that_are_none(tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "terms.tsv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(BadData, match=problem):
        read_terms(file)
    file.write_bytes(b"a\t\xff\n")
    with pytest.raises(BadData, match=r"terms\.tsv:1: undecodable bytes"):
        read_terms(file)
    with pytest.raises(Missing, match="no such file"):
        read_terms(tmp_path / "other.tsv")


def test_a_phrase_within_a_text_is_spelled_as_there() -> None:
    tokenizer = nano.tokenizer()
    assert tokenizer.decode(phrase_ids(tokenizer, "quiet river")).strip() == "quiet river"
    with pytest.raises(BadOption, match="vocabulary cannot write '猫'"):
        phrase_ids(tokenizer, "猫")
