"""Tokenizers whose vocabulary lies in plain files, as older checkpoints have them.

`vocab.txt` is WordPiece's, one token a line (Devlin et al., 2019); `vocab.json` with `merges.txt`
that of byte-level BPE (Radford et al., 2019). How a text is prepared and what stands around it is
not in these files: it goes with the tokenizer's class in `transformers`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.errors import BadOption, BadWeights, Mismatch, Missing

if TYPE_CHECKING:
    import tokenizers

PIECES, NUMBERS, MERGES = "vocab.txt", "vocab.json", "merges.txt"
VOCABULARIES = (PIECES, NUMBERS, MERGES)

_BERT = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_ROBERTA = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_END = "<|endoftext|>"
# The special tokens of each class where the files beside name none.
WORD_PIECE = dict.fromkeys(("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"), _BERT)
FRAMED_BPE = dict.fromkeys(("RobertaTokenizer", "BartTokenizer"), _ROBERTA)
BARE_BPE = {
    "GPT2Tokenizer": {"unk_token": _END, "bos_token": _END, "eos_token": _END},
    "Qwen2Tokenizer": {"unk_token": _END, "eos_token": _END, "pad_token": _END},
}
PARTS: Mapping[str, Mapping[str, str]] = {**WORD_PIECE, **FRAMED_BPE, **BARE_BPE}
# Qwen2's cut into words; every digit stands alone.
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def vocabulary_files(folder: Path) -> dict[str, Path]:
    """Those of the plain files that the folder has."""
    return {name: folder / name for name in VOCABULARIES if (folder / name).is_file()}


def open_vocabulary(
    files: Mapping[str, Path], folder: Path, kind: str, config: Mapping[str, Any]
) -> "tokenizers.Tokenizer":
    """The tokenizer of the class `kind`, whose `config` names each of its special tokens.

    Mismatch where the class is not known here; Missing, BadWeights or BadOption where a file, a
    token or an option is not what the class needs.
    """
    if kind not in PARTS:
        what = f"of the class {kind}" if kind else "of a class that no file names"
        raise Mismatch(
            f"{folder}: {' and '.join(files)} without tokenizer.json, {what}: how that cuts a text "
            "is not known here. Open it once with `transformers` (`AutoTokenizer.from_pretrained("
            "FOLDER).save_pretrained(FOLDER)`), which writes a tokenizer.json"
        )
    needed = (PIECES,) if kind in WORD_PIECE else (NUMBERS, MERGES)
    for name in needed:
        if name not in files:
            raise Missing(f"{folder}: no {name}, which a {kind} is read from; copy it again")
    try:
        return (_word_piece if kind in WORD_PIECE else _byte_bpe)(files, kind, config)
    except (BadOption, BadWeights):
        raise
    except Exception as error:  # noqa: BLE001  (the library raises plain Exception)
        raise BadWeights(
            f"{folder}: {' and '.join(needed)}: not the vocabulary of a {kind} ({error}); copy or "
            "download it again"
        ) from None


def _word_piece(
    files: Mapping[str, Path], kind: str, config: Mapping[str, Any]
) -> "tokenizers.Tokenizer":
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    file = files[PIECES]
    if not config.get("do_basic_tokenize", True) or config.get("never_split"):
        name = "never_split" if config.get("never_split") else "do_basic_tokenize"
        raise BadOption(
            f"{file.parent / 'tokenizer_config.json'}: `{name}` = {config[name]!r} is not "
            "supported: words are always cut at punctuation, and only special tokens are kept whole"
        )
    ids = models.WordPiece.read_file(str(file))
    unknown, cls, sep = (_known(config, part, ids, file) for part in ("unk", "cls", "sep"))
    backend = tokenizers.Tokenizer(models.WordPiece(ids, unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single=[cls, "$A", sep],
        pair=[cls, "$A", sep, "$B:1", f"{sep}:1"],
        special_tokens=[(cls, ids[cls]), (sep, ids[sep])],
    )
    return backend


def _byte_bpe(
    files: Mapping[str, Path], kind: str, config: Mapping[str, Any]
) -> "tokenizers.Tokenizer":
    import tokenizers
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

    ids, merges = models.BPE.read_file(str(files[NUMBERS]), str(files[MERGES]))
    backend = tokenizers.Tokenizer(models.BPE(ids, merges))
    space = bool(config.get("add_prefix_space"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.decoder = decoders.ByteLevel()
    if kind == "Qwen2Tokenizer":
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN2_WORDS), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False),
            ]
        )
    if kind in FRAMED_BPE:
        sep, cls = (_known(config, part, ids, files[NUMBERS]) for part in ("sep", "cls"))
        trims = bool(config.get("trim_offsets", True))
        backend.post_processor = processors.RobertaProcessing(
            (sep, ids[sep]), (cls, ids[cls]), trims, space
        )
    return backend


def _known(config: Mapping[str, Any], part: str, ids: Mapping[str, int], file: Path) -> str:
    """The token that plays `part`, which has to be in the vocabulary."""
    token = config[f"{part}_token"]
    token = token.get("content") if isinstance(token, dict) else token
    if token not in ids:
        raise BadWeights(
            f"{file}: lacks the token {token!r}, which this tokenizer needs ({part}_token); copy "
            "the files again from one place"
        )
    return str(token)
