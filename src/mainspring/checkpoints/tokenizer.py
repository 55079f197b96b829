"""Text to ids and back, with the special tokens that a checkpoint asks for.

Opened from `tokenizer.json`, from a SentencePiece file, or from plain vocabulary files, beside
`tokenizer_config.json` and `special_tokens_map.json` in the layouts of transformers v4 and v5.
Every file that was read is written again as it was.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mainspring import events
from mainspring.checkpoints.config import json_text, read_json, refuse_remote_code
from mainspring.checkpoints.piece_layouts import (
    BY_MODEL_TYPE,
    LAYOUTS,
    PLAIN,
    frame,
    laid_out,
    layout_of,
    usual_parts,
)
from mainspring.checkpoints.sentencepiece import build_tokenizer, read_model
from mainspring.checkpoints.tokenizer_training import train_byte_bpe, train_unigram
from mainspring.checkpoints.vocabulary_files import (
    BARE_BPE,
    NUMBERS,
    PARTS,
    PIECES,
    open_vocabulary,
    vocabulary_files,
)
from mainspring.errors import BadOption, BadWeights, Mismatch
from mainspring.families import TEXT_TO_TEXT, TokenLayout

if TYPE_CHECKING:
    import tokenizers

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
SPECIAL_MAP, ADDED = "special_tokens_map.json", "added_tokens.json"
CHAT = "chat_template.jinja"
SENTENCEPIECE = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "spm.model")
FILES = (TOKENIZER, CONFIG, SPECIAL_MAP, ADDED, CHAT, *SENTENCEPIECE)
# Where SentencePiece only cuts and NUMBERS numbers the pieces: a model for each side.
SIDES = ("source.spm", "target.spm")
PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
SPECIAL_PARTS = ("pad", "eos", "bos", "unk", "cls", "sep", "mask")
T5_CLASSES = ("T5Tokenizer", "MT5Tokenizer")


class Tokenizer:
    """A vocabulary and the way text is cut into it.

    `special` maps "pad", "eos", "bos", "unk", "cls", "sep" and "mask" to the token text that plays
    the part; `files` are the checkpoint's own files, kept to be written again.
    """

    def __init__(
        self,
        backend: "tokenizers.Tokenizer",
        special: Mapping[str, str],
        files: Mapping[str, bytes] | None = None,
    ):
        backend.no_truncation()
        backend.no_padding()
        self.backend, self.special, self.files = backend, dict(special), dict(files or {})

    # -- text and ids --------------------------------------------------------------------------

    def encode(self, text: str, special: bool = True) -> list[int]:
        """The ids of `text`, with the special tokens that the checkpoint adds (T5: `</s>` last)
        unless they are not wanted."""
        return self.backend.encode(text, add_special_tokens=special).ids

    def encode_many(self, texts: Sequence[str], special: bool = True) -> list[list[int]]:
        """`encode` for each of `texts`, on all cores."""
        found = self.backend.encode_batch_fast(list(texts), add_special_tokens=special)
        return [encoding.ids for encoding in found]

    def offsets_many(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """For each text its ids, without special tokens, and where each token stands in it
        (start, end), in characters. Tokens that are parts of one character share its place."""
        found = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [(encoding.ids, encoding.offsets) for encoding in found]

    @property
    def writer(self) -> "Tokenizer":
        """The tokenizer of texts that are to be written, which some models cut in another way."""
        return self

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens that the checkpoint puts before and after a text."""
        ids, inside = self.encode("a"), self.encode("a", special=False)
        for at in range(len(ids) - len(inside) + 1):
            if ids[at : at + len(inside)] == inside:
                return ids[:at], ids[at + len(inside) :]
        return [], []

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of `ids`. Negative ids (ignored labels) and ids past the vocabulary are left
        out."""
        return self.backend.decode([int(i) for i in ids if i >= 0], skip_special)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The vocabulary entry of each id, one a piece; "" for an id past the vocabulary."""
        return [self.backend.id_to_token(int(i)) or "" for i in ids]

    def spells(self, text: str) -> bool:
        """Whether `text` comes back from its ids as it was."""
        return self.decode(self.encode(text, special=False)).strip() == text.strip()

    # -- the vocabulary ------------------------------------------------------------------------

    @cached_property
    def vocabulary(self) -> int:
        """The highest id, plus one: how many rows an embedding needs."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def id_of(self, token: str) -> int | None:
        """The id of exactly this token."""
        return self.backend.token_to_id(token)

    def _special_id(self, part: str) -> int | None:
        return self.id_of(self.special[part]) if part in self.special else None

    @property
    def pad_id(self) -> int | None:
        return self._special_id("pad")

    @property
    def eos_id(self) -> int | None:
        return self._special_id("eos")

    @property
    def bos_id(self) -> int | None:
        return self._special_id("bos")

    @property
    def unk_id(self) -> int | None:
        return self._special_id("unk")

    @property
    def mask_id(self) -> int | None:
        return self._special_id("mask")

    def with_tokens(self, tokens: Sequence[str]) -> "Tokenizer":
        """The tokenizer with more tokens, each found in texts before anything else is done to
        them, and decoded as it is written."""
        import tokenizers

        backend = tokenizers.Tokenizer.from_str(self.backend.to_str())
        backend.add_tokens([tokenizers.AddedToken(t, normalized=False) for t in tokens])
        written = backend.to_str(pretty=False).encode()
        return Tokenizer(backend, self.special, {**self.files, TOKENIZER: written})

    # -- conversations -------------------------------------------------------------------------

    @cached_property
    def chat_template(self) -> str | None:
        """The Jinja template that lays out conversations for this model, where it has one."""
        if CHAT in self.files:
            return self.files[CHAT].decode()
        stated = json.loads(self.files[CONFIG]).get("chat_template") if CONFIG in self.files else ""
        if isinstance(stated, list):  # several, by name
            stated = {entry["name"]: entry["template"] for entry in stated}.get("default")
        return stated or None

    def chat(self, messages: Sequence[Mapping[str, Any]], *, answer: bool) -> str:
        """A conversation as the model reads it, special tokens written out; with `answer` up to
        where the assistant is to speak. BadData where the template refuses the conversation."""
        from mainspring.checkpoints.chat import render

        if self.chat_template is None:
            raise Mismatch("this model has no chat template, so it cannot hold a conversation")
        named = {f"{part}_token": token for part, token in self.special.items()}
        return render(self.chat_template, messages, named, answer)

    def with_chat_template(self, template: str) -> "Tokenizer":
        """The tokenizer with a Jinja template that lays out conversations."""
        return Tokenizer(self.backend, self.special, {**self.files, CHAT: template.encode()})

    # -- files ---------------------------------------------------------------------------------

    @classmethod
    def open(cls, folder: Path) -> "Tokenizer | None":
        """The tokenizer of a checkpoint folder; None where the folder has none."""
        files = {name: folder / name for name in FILES if (folder / name).is_file()}
        if (folder / SIDES[0]).is_file() or (
            (folder / NUMBERS).is_file() and SENTENCEPIECE[1] in files and TOKENIZER not in files
        ):
            from mainspring.checkpoints.numbered import open_numbered

            return open_numbered(folder)
        spm = next((files[name] for name in SENTENCEPIECE if name in files), None)
        plain = {} if TOKENIZER in files or spm is not None else vocabulary_files(folder)
        files |= plain
        if TOKENIZER not in files and spm is None and not plain:
            return None
        config = read_json(files[CONFIG]) if CONFIG in files else {}
        refuse_remote_code(config, folder / CONFIG)
        named = read_json(files[SPECIAL_MAP]) if SPECIAL_MAP in files else {}
        kind = _class_of(config, folder, plain)
        usual = PARTS[kind] if kind in PARTS else usual_parts(kind)
        # Of two files that name a token the config is the newer one if it lists all of them.
        both = (named, config) if "added_tokens_decoder" in config else (config, named)
        named = {**usual, **both[0], **both[1]}
        if TOKENIZER in files:
            backend = _open_json(files[TOKENIZER])
            if kind not in GENERIC:
                _normalise_as(backend, config)
        elif spm is not None:
            backend = _open_sentencepiece(spm, config, kind)
            if kind in PLAIN:
                config = {"add_bos_token": True, **config}
        else:
            backend = open_vocabulary(plain, folder, kind, named)
        _add_tokens(backend, named, files.get(ADDED), folder)
        special = special_tokens(backend, named)
        # Whisper's tokenizer.json says itself what stands around a text, whatever these keys say.
        framed = (
            kind in T5_CLASSES
            or kind in LAYOUTS
            or (kind in PARTS and kind not in BARE_BPE)
            or str(config.get("tokenizer_class")).startswith("WhisperTokenizer")
        )
        # Where there is a tokenizer.json, it says so for every class, as to `transformers` 5.
        framed = framed or TOKENIZER in files
        if not framed and ("add_bos_token" in config or "add_eos_token" in config):
            begins, ends = (
                bool(config.get(f"add_{part}_token")) and part in special for part in ("bos", "eos")
            )
            add_around(backend, special, begins, ends)
        return cls(backend, special, {name: file.read_bytes() for name, file in files.items()})

    def save(self, folder: Path) -> None:
        """Writes the files that were read, and `tokenizer.json` and `tokenizer_config.json` where
        they were not among them. `transformers` opens the folder with the same ids."""
        from mainspring.weights.files import write_bytes

        files = dict(self.files)
        if TOKENIZER not in files:
            files[TOKENIZER] = self.backend.to_str(pretty=False).encode()
        if CONFIG not in files:
            files[CONFIG] = json_text(self._config()).encode()
        for name, data in files.items():
            write_bytes(data, folder / name)

    def _config(self) -> dict[str, Any]:
        added = self.backend.get_added_tokens_decoder()
        named = set(self.special.values())
        others = [
            added[i].content
            for i in sorted(added, reverse=True)
            if added[i].special and added[i].content not in named
        ]
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
        if "cls" not in self.special:  # only the layout of BERT tells two texts apart by types
            inputs.remove("token_type_ids")
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": inputs,
            **{f"{part}_token": token for part, token in self.special.items()},
            "additional_special_tokens": others,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1_000_000_000,
        }


# -- opening -----------------------------------------------------------------------------------


def _open_json(file: Path) -> "tokenizers.Tokenizer":
    import tokenizers

    read_json(file)  # where the JSON itself is broken this says in which line
    try:
        return tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001  (the library raises plain Exception)
        raise BadWeights(f"{file}: not a tokenizer ({error}); copy or download it again") from None


# Classes that are all that tokenizer.json says.
GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")
# The side file's keys, which win for other classes, and the names that a BertNormalizer has.
BERT_KEYS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


def _normalise_as(backend: "tokenizers.Tokenizer", config: Mapping[str, Any]) -> None:
    """Changes what comes before the vocabulary to what tokenizer_config.json says of it, as
    `transformers` does for the tokenizers of BERT and of byte-level BPE."""
    from tokenizers import normalizers, pre_tokenizers

    first, then = backend.normalizer, backend.pre_tokenizer
    if isinstance(first, normalizers.BertNormalizer):
        for key, name in BERT_KEYS.items():
            if key in config:
                setattr(first, name, config[key])
        backend.normalizer = first
    if isinstance(then, pre_tokenizers.ByteLevel) and "add_prefix_space" in config:
        then.add_prefix_space = bool(config["add_prefix_space"])
        backend.pre_tokenizer = then


def _class_of(config: Mapping[str, Any], folder: Path, plain: Mapping[str, Path]) -> str:
    """The tokenizer's class without its `Fast`; where none is named the one that goes with the
    model. Where the folder holds no model either it is T5's; of `plain` vocabulary files BERT's,
    or "": those of byte-level BPE may be several classes'."""
    named = config.get("tokenizer_class")
    if named:
        return str(named).removesuffix("Fast")
    about = folder / "config.json"
    model_type = read_json(about).get("model_type") if about.is_file() else None
    if model_type is not None:
        return BY_MODEL_TYPE.get(model_type, model_type)
    if plain:
        return "BertTokenizer" if PIECES in plain else ""
    return T5_CLASSES[0]


def _open_sentencepiece(file: Path, config: Mapping[str, Any], kind: str) -> "tokenizers.Tokenizer":
    """The tokenizer of the class `kind`. T5's has 100 sentinels after the file's pieces
    (`extra_ids`), and `</s>` after each text."""
    from tokenizers import processors

    model = read_model(file)
    if kind in PLAIN:
        return build_tokenizer(model, prefix_once=not config.get("legacy", False))
    if kind in T5_CLASSES:
        backend = build_tokenizer(model, sentinels(config.get("extra_ids", 100)))
        add_around(backend, {"eos": _text(config.get("eos_token", EOS))}, False, True)
        return backend
    layout = layout_of(kind)
    backend = build_tokenizer(laid_out(model, layout))
    before, between, after = frame(layout, config)
    ids = [(token, backend.token_to_id(token)) for token in {*before, *between, *after}]
    backend.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *between, "$B", *after],
        special_tokens=ids,
    )
    return backend


def sentinels(count: int = 100) -> tuple[str, ...]:
    """T5's sentinel tokens in the order of their ids: `<extra_id_0>` is the last."""
    return tuple(f"<extra_id_{i}>" for i in reversed(range(count)))


def _add_tokens(
    backend: "tokenizers.Tokenizer", named: Mapping[str, Any], added: Path | None, folder: Path
) -> None:
    """Adds the tokens that only the side files name, at the ids they name, and finds those that
    play a part (`named`) whole in texts."""
    parts = [named.get(f"{part}_token") for part in SPECIAL_PARTS]
    for listed in ("additional_special_tokens", "extra_special_tokens"):  # of v4, of v5
        more = named.get(listed) or []
        parts += more.values() if isinstance(more, dict) else more
    special = {_text(entry) for entry in parts}
    wanted: dict[int, Any] = {}
    if added is not None:
        wanted |= {int(i): token for token, i in read_json(added).items()}
    wanted |= {int(i): entry for i, entry in named.get("added_tokens_decoder", {}).items()}
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for i, entry in sorted(wanted.items()):
        token = _text(entry)
        if token not in known:
            backend.add_tokens([_added(entry, token in special)])
            known.add(token)
        if backend.token_to_id(token) != i:
            raise BadWeights(
                f"{folder}: the tokenizer's files do not agree: token {token!r} is said to have "
                f"id {i}, and has id {backend.token_to_id(token)}; copy them again from one place"
            )
    for entry in parts:
        token = _text(entry)
        if token is not None and token not in known and backend.token_to_id(token) is not None:
            backend.add_tokens([_added(entry, True)])


def _added(entry: Any, special: bool) -> "tokenizers.AddedToken":
    """A token of the side files with what they say of it: `special`, `lstrip` and so on."""
    from tokenizers import AddedToken

    stated = entry if isinstance(entry, dict) else {}
    flags = ("lstrip", "rstrip", "single_word", "normalized")
    flags_of = {flag: bool(stated[flag]) for flag in flags if flag in stated}
    return AddedToken(_text(entry), special=special or bool(stated.get("special")), **flags_of)


def special_tokens(backend: "tokenizers.Tokenizer", named: Mapping[str, Any]) -> dict[str, str]:
    """The token of each part, as the side files name it, or by its usual name."""
    special = {}
    usual = {"pad": PAD, "eos": EOS, "bos": "<s>", "unk": UNK}
    for part in SPECIAL_PARTS:
        token = _text(named.get(f"{part}_token", usual.get(part)))
        if token is not None and backend.token_to_id(token) is not None:
            special[part] = token
    return special


def _text(token: Any) -> Any:
    """A token's text: v4 and v5 write it plain, or as an object with its `content`."""
    return token.get("content") if isinstance(token, dict) else token


def add_around(
    backend: "tokenizers.Tokenizer", special: Mapping[str, str], begins: bool, ends: bool
) -> None:
    """Puts the begin and end tokens around each encoded text."""
    from tokenizers import processors

    bos = [special["bos"]] if begins else []
    eos = [special["eos"]] if ends else []
    ids = [(token, backend.token_to_id(token)) for token in dict.fromkeys(bos + eos)]
    backend.post_processor = processors.TemplateProcessing(
        single=[*bos, "$A", *eos], pair=[*bos, "$A", *eos, *bos, "$B", *eos], special_tokens=ids
    )


# -- training ----------------------------------------------------------------------------------


def train_tokenizer(
    texts: Iterable[str],
    vocabulary: int,
    kind: Literal["unigram", "byte-bpe"] = "unigram",
    layout: TokenLayout = TEXT_TO_TEXT,
) -> Tokenizer:
    """A new tokenizer of `vocabulary` ids. Unless a family's `layout` is given it is T5's: `<pad>`
    0, `</s>` 1, `<unk>` 2, and the sentinels as the last 100.

    "unigram" (Kudo, 2018) normalises text by NFC and keeps line breaks and repeated spaces;
    characters too rare to get a place are spelt by their bytes, or in vocabularies under 2,000
    become the unknown token. "byte-bpe" (Radford et al., 2019) gives every text back byte for byte.
    `texts` are read once. Where they are too few for so many ids the tokenizer has fewer, and a
    warning says so.
    """
    kinds = ("unigram", "byte-bpe")
    if kind not in kinds:
        raise BadOption.unknown("tokenizer", kind, kinds)
    extra = sentinels(layout.sentinels)
    room = vocabulary - len(extra)
    if kind == "unigram":
        backend = train_unigram(texts, room, layout.special, layout.ideographs_apart)
    else:
        backend = train_byte_bpe(texts, room, layout.special)
    backend.add_special_tokens([*layout.special.values(), *extra])
    tokenizer = Tokenizer(backend, layout.special)
    _frame(backend, layout)
    if tokenizer.vocabulary < vocabulary:
        events.warn(
            f"tokenizer: the texts are too few for {vocabulary} ids; it has {tokenizer.vocabulary}"
        )
    return tokenizer


def _frame(backend: "tokenizers.Tokenizer", layout: TokenLayout) -> None:
    """Puts the layout's tokens around each encoded text; those of a second text are of type 1."""
    from tokenizers import processors

    before, after = (
        [layout.special[part] for part in parts] for parts in (layout.before, layout.after)
    )
    ids = [(token, backend.token_to_id(token)) for token in dict.fromkeys(before + after)]
    second = [f"{piece}:1" for piece in ("$B", *after)]
    backend.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after], pair=[*before, "$A", *after, *second], special_tokens=ids
    )
