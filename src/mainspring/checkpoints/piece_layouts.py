"""How tokenizers number the pieces of a SentencePiece file, by their classes in `transformers`.

Few take the file's own numbers. Those that fairseq trained have four tokens of their own in front
(Ott et al., 2019); Pegasus keeps 103 for what its pre-training hides (Zhang et al., 2020); mBART
has its languages behind (Liu et al., 2020; Tang et al., 2020).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mainspring.checkpoints.sentencepiece import (
    CONTROL,
    UNKNOWN,
    UNUSED,
    SentencePieceModel,
)
from mainspring.errors import BadOption, Mismatch

MBART = (
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT "
    "lv_LV my_MM ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN"
)
MBART_50 = (
    f"{MBART} af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL "
    "ps_AF pt_XX sv_SE sw_KE ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI"
)
FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")
HIDDEN = ("<mask_1>", "<mask_2>", *(f"<unk_{i}>" for i in range(2, 103)))
LANGUAGE = "{language}"  # in a frame: the token of `src_lang`


@dataclass(frozen=True)
class Layout:
    """`front` and `back` stand around the file's pieces without its first `skipped` ones; `around`
    are the tokens before and behind a text, `between` those between two. `unknown` is the part of
    `front` that unknown characters become; None is the file's own. `named` are the parts that
    tokens play where the files beside name none, `language` the one that is read unless they say.
    """

    front: tuple[str, ...] = ()
    skipped: int = 0
    back: tuple[str, ...] = ()
    around: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    between: tuple[str, ...] = ()
    unknown: int | None = None
    named: tuple[tuple[str, str], ...] = ()
    language: str | None = None


_PARTS = (("bos_token", "<s>"), ("cls_token", "<s>"), ("sep_token", "</s>"))
_MASK = ("mask_token", "<mask>")
_XLM_R = Layout(
    FAIRSEQ, 3, ("<mask>",), (("<s>",), ("</s>",)), ("</s>", "</s>"), 3, (*_PARTS, _MASK)
)
LAYOUTS = {
    "XLMRobertaTokenizer": _XLM_R,
    "CamembertTokenizer": replace(
        _XLM_R, front=("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"), skipped=1
    ),
    "PegasusTokenizer": Layout(
        ("<pad>", "</s>", *HIDDEN), 2, (), ((), ("</s>",)), named=(("mask_token", "<mask_2>"),)
    ),
    "MBartTokenizer": Layout(
        FAIRSEQ,
        3,
        (*MBART.split(), "<mask>"),
        ((), ("</s>", LANGUAGE)),
        unknown=3,
        named=(*_PARTS, _MASK),
        language="en_XX",
    ),
    "MBart50Tokenizer": Layout(
        FAIRSEQ,
        3,
        (*MBART_50.split(), "<mask>"),
        ((LANGUAGE,), ("</s>",)),
        unknown=3,
        named=(*_PARTS, _MASK),
        language="en_XX",
    ),
}
# What `model_type` means where tokenizer_config.json names no class.
BY_MODEL_TYPE = {
    "t5": "T5Tokenizer",
    "mt5": "T5Tokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "pegasus": "PegasusTokenizer",
    "mbart": "MBartTokenizer",
    "llama": "LlamaTokenizer",
    "mistral": "LlamaTokenizer",
    "gemma": "GemmaTokenizer",
    "gemma2": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
}
# These take the file's numbers, and begin a text with its token unless the config says otherwise.
PLAIN = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer")


def usual_parts(name: str) -> dict[str, str]:
    """The special tokens of the class `name`, as a config that is silent about them means them."""
    if name == "GemmaTokenizer":
        return {"bos_token": "<bos>", "eos_token": "<eos>"}
    return dict(LAYOUTS[name].named) if name in LAYOUTS else {}


def layout_of(name: str) -> Layout:
    """The layout of the tokenizer class `name`. Mismatch where it is not known: numbers that are
    guessed would be wrong without a word."""
    if name not in LAYOUTS:
        raise Mismatch(
            f"a SentencePiece file without tokenizer.json, of the class {name}: how that numbers "
            "its pieces is not known here. Open it once with `transformers` "
            "(`AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`), which writes a "
            "tokenizer.json"
        )
    return LAYOUTS[name]


def laid_out(model: SentencePieceModel, layout: Layout) -> SentencePieceModel:
    """The model with its pieces at the numbers that the layout gives them."""

    def own(token: str) -> tuple[str, float, int]:
        kind = UNUSED if token.endswith("NOTUSED") else UNKNOWN if token == "<unk>" else CONTROL
        return token, 0.0, kind

    kept = model.pieces[layout.skipped :]
    front, back = (tuple(map(own, tokens)) for tokens in (layout.front, layout.back))
    first = len(front) - layout.skipped + model.unk_id
    unknown = first if layout.unknown is None else layout.unknown
    return replace(model, pieces=(*front, *kept, *back), unk_id=unknown)


def frame(
    layout: Layout, config: Mapping[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The tokens before a text, between two, and behind. BadOption for a language unknown here."""
    language = config.get("src_lang") or layout.language
    if layout.language is not None and language not in layout.back:
        raise BadOption.unknown("tokenizer_config.json: `src_lang`", str(language), layout.back)
    before, after = (
        tuple(str(language) if token == LANGUAGE else token for token in side)
        for side in layout.around
    )
    return before, layout.between or (*after, *before), after
