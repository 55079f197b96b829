"""How tokenizers number the pieces of a SentencePiece file, by their classes in `transformers`.

Few take the file's own numbers. Those that fairseq trained have four tokens of their own in front
(Ott et al., 2019); Pegasus keeps 103 for what its pre-training hides (Zhang et al., 2020);
mBART and NLLB have their languages behind (Liu et al., 2020; Tang et al., 2020; NLLB Team, 2022).
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
# NLLB-200's (NLLB Team, 2022, table 1), in the order of their tokens' ids.
NLLB = (
    "ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn amh_Ethi apc_Arab "
    "arb_Arab ars_Arab ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn "
    "bak_Cyrl bam_Latn ban_Latn bel_Cyrl bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt "
    "bos_Latn bug_Latn bul_Cyrl cat_Latn ceb_Latn ces_Latn cjk_Latn ckb_Arab crh_Latn cym_Latn "
    "dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ell_Grek eng_Latn epo_Latn est_Latn eus_Latn "
    "ewe_Latn fao_Latn pes_Arab fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn gla_Latn "
    "gle_Latn glg_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn "
    "hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kab_Latn "
    "kac_Latn kam_Latn kan_Knda kas_Arab kas_Deva kat_Geor knc_Arab knc_Latn kaz_Cyrl kbp_Latn "
    "kea_Latn khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn kon_Latn kor_Hang kmr_Latn lao_Laoo "
    "lvs_Latn lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn lua_Latn lug_Latn "
    "luo_Latn lus_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Latn mkd_Cyrl plt_Latn mlt_Latn "
    "mni_Beng khk_Cyrl mos_Latn mri_Latn zsm_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva "
    "nso_Latn nus_Latn nya_Latn oci_Latn gaz_Latn ory_Orya pag_Latn pan_Guru pap_Latn pol_Latn "
    "por_Latn prs_Arab pbt_Arab quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Beng "
    "scn_Latn shn_Mymr sin_Sinh slk_Latn slv_Latn smo_Latn sna_Latn snd_Arab som_Latn sot_Latn "
    "spa_Latn als_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn szl_Latn tam_Taml "
    "tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi taq_Latn taq_Tfng tpi_Latn tsn_Latn "
    "tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn urd_Arab "
    "uzn_Latn vec_Latn vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr yor_Latn yue_Hant zho_Hans "
    "zho_Hant zul_Latn"
)
FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")
HIDDEN = ("<mask_1>", "<mask_2>", *(f"<unk_{i}>" for i in range(2, 103)))
LANGUAGE = "{language}"  # in a frame: the token of `src_lang`


@dataclass(frozen=True)
class Layout:
    """`front` and `back` stand around the file's pieces without its first `skipped` ones; `around`
    are the tokens before and behind a text, `legacy` where `legacy_behaviour` wants other ones,
    `between` those between two texts. `unknown` is the part of
    `front` that unknown characters become; None is the file's own. `named` are the parts that
    tokens play where the files beside name none, `language` the one that is read unless they say.
    """

    front: tuple[str, ...] = ()
    skipped: int = 0
    back: tuple[str, ...] = ()
    around: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    legacy: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    between: tuple[str, ...] = ()
    unknown: int | None = None
    named: tuple[tuple[str, str], ...] = ()
    language: str | None = None


_PARTS = (("bos_token", "<s>"), ("cls_token", "<s>"), ("sep_token", "</s>"))
_MASK = ("mask_token", "<mask>")
_XLM_R = Layout(
    FAIRSEQ,
    3,
    ("<mask>",),
    (("<s>",), ("</s>",)),
    between=("</s>", "</s>"),
    unknown=3,
    named=(*_PARTS, _MASK),
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
    "NllbTokenizer": Layout(
        FAIRSEQ,
        3,
        (*NLLB.split(), "<mask>"),
        ((LANGUAGE,), ("</s>",)),
        ((), ("</s>", LANGUAGE)),
        unknown=3,
        named=(*_PARTS, _MASK),
        language="eng_Latn",
    ),
}
# What `model_type` means where tokenizer_config.json names no class.
BY_MODEL_TYPE = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "roberta": "RobertaTokenizer",
    "bart": "BartTokenizer",
    "gpt2": "GPT2Tokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
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
    legacy = layout.legacy if config.get("legacy_behaviour") else None
    before, after = (
        tuple(str(language) if token == LANGUAGE else token for token in side)
        for side in legacy or layout.around
    )
    return before, layout.between, after
