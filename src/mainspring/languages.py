"""Languages by their codes: English names, and the codes that translation models use for them.

A code is what BCP 47 writes: a language, then perhaps a script or a region ("en", "zh-Hant",
"pt_BR"). Standard library only.
"""

import re

# ISO 639-1 code: English name, then the code of NLLB (ISO 639-3 and script).
NAMES = {
    "af": ("Afrikaans", "afr_Latn"),
    "am": ("Amharic", "amh_Ethi"),
    "ar": ("Arabic", "arb_Arab"),
    "az": ("Azerbaijani", "azj_Latn"),
    "be": ("Belarusian", "bel_Cyrl"),
    "bg": ("Bulgarian", "bul_Cyrl"),
    "bn": ("Bengali", "ben_Beng"),
    "bs": ("Bosnian", "bos_Latn"),
    "ca": ("Catalan", "cat_Latn"),
    "cs": ("Czech", "ces_Latn"),
    "cy": ("Welsh", "cym_Latn"),
    "da": ("Danish", "dan_Latn"),
    "de": ("German", "deu_Latn"),
    "el": ("Greek", "ell_Grek"),
    "en": ("English", "eng_Latn"),
    "eo": ("Esperanto", "epo_Latn"),
    "es": ("Spanish", "spa_Latn"),
    "et": ("Estonian", "est_Latn"),
    "eu": ("Basque", "eus_Latn"),
    "fa": ("Persian", "pes_Arab"),
    "fi": ("Finnish", "fin_Latn"),
    "fr": ("French", "fra_Latn"),
    "ga": ("Irish", "gle_Latn"),
    "gl": ("Galician", "glg_Latn"),
    "gu": ("Gujarati", "guj_Gujr"),
    "he": ("Hebrew", "heb_Hebr"),
    "hi": ("Hindi", "hin_Deva"),
    "hr": ("Croatian", "hrv_Latn"),
    "hu": ("Hungarian", "hun_Latn"),
    "hy": ("Armenian", "hye_Armn"),
    "id": ("Indonesian", "ind_Latn"),
    "is": ("Icelandic", "isl_Latn"),
    "it": ("Italian", "ita_Latn"),
    "ja": ("Japanese", "jpn_Jpan"),
    "ka": ("Georgian", "kat_Geor"),
    "kk": ("Kazakh", "kaz_Cyrl"),
    "km": ("Khmer", "khm_Khmr"),
    "kn": ("Kannada", "kan_Knda"),
    "ko": ("Korean", "kor_Hang"),
    "lo": ("Lao", "lao_Laoo"),
    "lt": ("Lithuanian", "lit_Latn"),
    "lv": ("Latvian", "lvs_Latn"),
    "mk": ("Macedonian", "mkd_Cyrl"),
    "ml": ("Malayalam", "mal_Mlym"),
    "mn": ("Mongolian", "khk_Cyrl"),
    "mr": ("Marathi", "mar_Deva"),
    "ms": ("Malay", "zsm_Latn"),
    "mt": ("Maltese", "mlt_Latn"),
    "my": ("Burmese", "mya_Mymr"),
    "ne": ("Nepali", "npi_Deva"),
    "nl": ("Dutch", "nld_Latn"),
    "no": ("Norwegian", "nob_Latn"),
    "pa": ("Punjabi", "pan_Guru"),
    "pl": ("Polish", "pol_Latn"),
    "ps": ("Pashto", "pbt_Arab"),
    "pt": ("Portuguese", "por_Latn"),
    "ro": ("Romanian", "ron_Latn"),
    "ru": ("Russian", "rus_Cyrl"),
    "si": ("Sinhala", "sin_Sinh"),
    "sk": ("Slovak", "slk_Latn"),
    "sl": ("Slovenian", "slv_Latn"),
    "sq": ("Albanian", "als_Latn"),
    "sr": ("Serbian", "srp_Cyrl"),
    "sv": ("Swedish", "swe_Latn"),
    "sw": ("Swahili", "swh_Latn"),
    "ta": ("Tamil", "tam_Taml"),
    "te": ("Telugu", "tel_Telu"),
    "th": ("Thai", "tha_Thai"),
    "tr": ("Turkish", "tur_Latn"),
    "uk": ("Ukrainian", "ukr_Cyrl"),
    "ur": ("Urdu", "urd_Arab"),
    "uz": ("Uzbek", "uzn_Latn"),
    "vi": ("Vietnamese", "vie_Latn"),
    "xh": ("Xhosa", "xho_Latn"),
    "zh": ("Chinese", "zho_Hans"),
    "zu": ("Zulu", "zul_Latn"),
}
LONG = {long.partition("_")[0]: short for short, (_, long) in NAMES.items()}
TRADITIONAL = ("hant", "tw", "hk", "mo")
CODE = re.compile(r"[A-Za-z]{2,3}([-_]([A-Za-z]{4}|[A-Za-z]{2}|[0-9]{3}))*")


def subtags(code: str) -> list[str]:
    """The parts of a code in lower case, the language in its two-letter form where it has one:
    "deu_Latn" gives "de", "latn"."""
    first, *others = re.split("[-_]", code.strip().lower())
    return [LONG.get(first, first), *others]


def base(code: str) -> str:
    """The language of a code without script and region: "zh" of "zh-Hant" or "zho_Hant"."""
    return subtags(code)[0]


def is_code(word: str) -> bool:
    """Whether `word` is the code of a language known here, such as a column's name may be."""
    return CODE.fullmatch(word) is not None and base(word) in NAMES


def name(code: str) -> str:
    """The English name of a language, or the code itself where none is known."""
    return NAMES[base(code)][0] if base(code) in NAMES else code


def nllb(code: str) -> str:
    """The code that NLLB uses, "zho_Hant" for Chinese in a region that writes it so."""
    language, *others = subtags(code)
    if language == "zh" and any(part in TRADITIONAL for part in others):
        return "zho_Hant"
    return NAMES[language][1] if language in NAMES else code


def nearest(code: str, among: list[str]) -> str | None:
    """Which of the codes `among` means the same language: the same code first, then one with the
    same language; None where there is none."""
    wanted = subtags(code)
    found = [other for other in among if subtags(other) == wanted]
    found += [other for other in among if base(other) == wanted[0]]
    return found[0] if found else None
