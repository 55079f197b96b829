"""The options of decoding, in the names and with the meanings of transformers' `generate`.

`GenerationOptions.merge` lays the options of one call over a checkpoint's `generation_config.json`
(the layouts of transformers v4 and v5 are the same file with other defaults written out).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mainspring import events
from mainspring.errors import BadOption

Ids = int | tuple[int, ...] | None


@dataclass(frozen=True)
class GenerationOptions:
    """How to decode. Lengths count tokens; `*_length` with the prompt (or the decoder's start
    token), `*_new_tokens` without it. Token ids may be one or several where the type says so.

    Without `max_new_tokens` and `max_length` 20 new tokens are made. `max_new_tokens` and
    `min_new_tokens` win over the lengths. BadOption where a value is out of its range or two
    options contradict one another.
    """

    # how long
    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int | None = None
    min_length: int = 0
    stop_strings: str | tuple[str, ...] | None = None
    # which search
    num_beams: int = 1
    num_return_sequences: int = 1
    early_stopping: bool | Literal["never"] = False
    length_penalty: float = 1.0
    do_sample: bool = False
    seed: int | None = None
    # sampling only
    temperature: float = 1.0
    top_k: int | None = 50
    top_p: float = 1.0
    min_p: float | None = None
    # what may be written
    repetition_penalty: float = 1.0
    encoder_repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    bad_words_ids: tuple[tuple[int, ...], ...] | None = None
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] | None = None
    suppress_tokens: tuple[int, ...] | None = None
    begin_suppress_tokens: tuple[int, ...] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: Ids = None
    exponential_decay_length_penalty: tuple[int, float] | None = None
    remove_invalid_values: bool = False
    renormalize_logits: bool = False
    # special tokens
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: Ids = None
    decoder_start_token_id: Ids = None

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def merge(cls, generation_config: Mapping[str, Any], **given: Any) -> "GenerationOptions":
        """The options `given`, over those of a `generation_config.json`, over the defaults.

        A given None switches an option off where it can be off (`eos_token_id=None`: never stop
        early) and means its default elsewhere. BadOption names an unknown key and the nearest
        known one, and a key that would change the output and is not supported.
        """
        merged: dict[str, Any] = {}
        refused: list[tuple[str, str]] = []
        for source, values in (("generation_config.json", generation_config), ("", given)):
            for key, value in values.items():
                if key in FIELDS:
                    if value is not None or (key in OPTIONAL and not source):
                        merged[key] = _frozen(value)
                    else:
                        merged.pop(key, None)
                elif key in UNSUPPORTED:
                    if value is not None and value != UNSUPPORTED[key]:
                        where = f"{source}: " if source else ""
                        refused.append((key, f"{where}`{key}` = {value!r}"))
                elif key not in NO_EFFECT:
                    what = f"key in {source}" if source else "generation option"
                    raise BadOption.unknown(what, key, FIELDS)
        own = "temperature" in given or merged.get("do_sample")
        if merged.get("temperature") == 0 and not own:
            del merged["temperature"]  # files say so, and mean that nothing is drawn
        for key, stated in refused:
            if merged.get("do_sample") or key not in OF_SAMPLING:
                raise BadOption(
                    f"{stated} changes what is generated and is not supported; leave it out"
                )
        if given.get("max_length") is not None and merged.get("max_new_tokens") is not None:
            events.warn(
                f"both `max_length` and `max_new_tokens` are set: `max_new_tokens` = "
                f"{merged['max_new_tokens']} decides"
            )
        return cls(**merged)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return as_ids(self.eos_token_id)

    @property
    def pad_id(self) -> int | None:
        """What fills finished rows: the padding token, or else the first end-of-sequence token."""
        if self.pad_token_id is None and self.eos_ids:
            return self.eos_ids[0]
        return self.pad_token_id

    def limits(self, prompt: int) -> tuple[int, int]:
        """(longest, shortest) length in tokens, a prompt of `prompt` tokens included."""
        longest, shortest = self.max_length, self.min_length
        if self.max_new_tokens is not None:
            longest = prompt + self.max_new_tokens
        elif longest is None:
            longest = prompt + 20
        if self.min_new_tokens is not None:
            shortest = prompt + self.min_new_tokens
        if prompt >= longest:
            raise BadOption(
                f"the prompt has {prompt} tokens and `max_length` is {longest}: nothing could be "
                "generated; give `max_new_tokens`"
            )
        return longest, shortest


FIELDS = {field.name: field for field in dataclasses.fields(GenerationOptions)}
OPTIONAL = {name for name, field in FIELDS.items() if "None" in str(field.type)}

# Keys of generation_config.json that change how fast or what else is returned, never the tokens.
NO_EFFECT = frozenset(
    {
        "_commit_hash",
        "_from_model_config",
        "assistant_confidence_threshold",
        "assistant_early_exit",
        "assistant_lookbehind",
        "cache_config",
        "cache_implementation",
        "compile_config",
        "continuous_batching_config",
        "disable_compile",
        "is_assistant",
        "low_memory",
        "max_cache_len",
        "max_matching_ngram_size",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "output_attentions",
        "output_hidden_states",
        "output_logits",
        "output_scores",
        "prefill_chunk_size",
        "prompt_lookup_num_tokens",
        "return_dict_in_generate",
        "return_legacy_cache",
        "speculation_type",
        "target_lookbehind",
        "transformers_version",
        "use_cache",
        "use_mtp",
    }
)

# Keys that would change the tokens, and the value at which they do not.
UNSUPPORTED: dict[str, Any] = {
    "assistant_ensemble_weight": None,
    "constraints": None,
    "diversity_penalty": 0.0,
    "dola_layers": None,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "force_words_ids": None,
    "forced_decoder_ids": None,
    "guidance_scale": 1.0,
    "max_time": None,
    "num_beam_groups": 1,
    "penalty_alpha": 0.0,
    "token_healing": False,
    "top_h": None,
    "typical_p": 1.0,
    "watermarking_config": None,
}
OF_SAMPLING = {"epsilon_cutoff", "eta_cutoff", "top_h", "typical_p"}  # no effect without it


def generation_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The generation keys of a `config.json`, for folders without a `generation_config.json`.

    Older checkpoints keep their special tokens, and at times `num_beams` and the like, there.
    """
    known = FIELDS.keys() | UNSUPPORTED.keys()
    return {key: config[key] for key in config if key in known and config[key] is not None}


def as_ids(ids: Ids) -> tuple[int, ...]:
    """None, one id or several, as a tuple."""
    if ids is None:
        return ()
    return (ids,) if isinstance(ids, int) else tuple(ids)


def _frozen(value: Any) -> Any:
    """Lists as tuples, all the way down; `{(ids): bias}` as pairs."""
    if isinstance(value, Mapping):
        return tuple((tuple(key), bias) for key, bias in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


_WHOLE = {  # lowest value
    "max_new_tokens": 1,
    "max_length": 1,
    "min_new_tokens": 0,
    "min_length": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "top_k": 0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "seed": 0,
    "pad_token_id": None,
    "bos_token_id": 0,
    "forced_bos_token_id": 0,
}
_POSITIVE = ("temperature", "repetition_penalty", "encoder_repetition_penalty")
_SHARES = ("top_p", "min_p")


def _check(options: GenerationOptions) -> None:
    values = {name: getattr(options, name) for name in FIELDS}

    def refuse(name: str, must: str) -> None:
        raise BadOption(f"`{name}` must be {must}, and is {values[name]!r}")

    for name, lowest in _WHOLE.items():
        value = values[name]
        if value is None and name in OPTIONAL:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            refuse(name, "a whole number")
        if lowest is not None and value < lowest:
            refuse(name, f"{lowest} or more")
    for name in (*_POSITIVE, *_SHARES, "length_penalty"):
        value = values[name]
        if value is None and name in OPTIONAL:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            refuse(name, "a number")
        if name in _POSITIVE and not value > 0:
            hint = " (for greedy decoding use `do_sample=False`)" if name == "temperature" else ""
            refuse(name, f"above 0{hint}")
        if name in _SHARES and not 0 <= value <= 1:
            refuse(name, "between 0 and 1")
    for name in ("do_sample", "remove_invalid_values", "renormalize_logits"):
        if not isinstance(values[name], bool):
            refuse(name, "true or false")
    if not isinstance(options.early_stopping, bool) and options.early_stopping != "never":
        refuse("early_stopping", 'true, false or "never"')
    for name in ("eos_token_id", "forced_eos_token_id", "decoder_start_token_id"):
        ids = as_ids(values[name])
        if not all(isinstance(i, int) and i >= 0 for i in ids):
            refuse(name, "a token id or several")
    for words in options.bad_words_ids or ():
        if not isinstance(words, tuple) or not words or not all(i >= 0 for i in words):
            refuse("bad_words_ids", "lists of token ids, none of them empty")
    sequences, beams = options.num_return_sequences, options.num_beams
    if beams > 1 and sequences > beams:
        raise BadOption(
            f"`num_return_sequences` is {sequences} and `num_beams` only {beams}: a beam search "
            "returns at most as many sequences as it has beams"
        )
    if beams == 1 and sequences > 1 and not options.do_sample:
        raise BadOption(
            f"`num_return_sequences` is {sequences}, but greedy decoding makes one sequence; "
            "add `num_beams` or `do_sample=True`"
        )
