"""The keys of a `config.json`: what each family reads, and what may stand there unread.

A key that is neither known nor harmless is an error. It might change the maths, and a model that
quietly leaves it out gives wrong answers.
"""

import difflib
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from mainspring import spec
from mainspring.errors import BadOption
from mainspring.families import Config

ACTIVATIONS: dict[str, spec.Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "gelu_sigmoid",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Keys of any model that leave its forward pass as it is: provenance, labels, settings of training,
# of generation and of other programs.
HARMLESS = words(
    """
    _name_or_path architectures auto_map attn_implementation _attn_implementation_autoset dtype
    torch_dtype transformers_version transformers.js_config model_type model_name name_or_path
    language languages tokenizer_class tokenizer_type finetuning_task task_specific_params
    id2label label2id num_labels _num_labels problem_type
    bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id unk_token_id
    decoder_start_token_id forced_bos_token_id forced_eos_token_id bad_words_ids suppress_tokens
    begin_suppress_tokens forced_decoder_ids prefix
    max_length min_length max_new_tokens num_beams num_beam_groups num_return_sequences do_sample
    early_stopping length_penalty repetition_penalty diversity_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size exponential_decay_length_penalty remove_invalid_values temperature
    top_k top_p typical_p return_dict_in_generate output_scores
    return_dict output_attentions output_hidden_states output_past use_cache
    torchscript use_bfloat16 gradient_checkpointing chunk_size_feed_forward pretraining_tp
    initializer_range initializer_factor init_std init_method_std layerdrop encoder_layerdrop
    decoder_layerdrop static_position_embeddings max_position_embeddings
    is_encoder_decoder num_hidden_layers tie_word_embeddings tie_encoder_decoder
    unsloth_fixed unsloth_version sentence_transformers sbert_ce_default_activation_function
    """
)
# Keys of any model that do change it, with the values that are right here.
FIXED: dict[str, tuple[Any, ...]] = {
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": ({}, None),
    "tf_legacy_loss": (False,),
    "quantization_config": (None,),
    "per_layer_config": (None,),
}


@dataclass(frozen=True)
class Keys:
    """What a family knows of its `config.json`.

    `defaults` are the keys that are read, by model type, with the value that holds where a file
    leaves one out (`transformers`' own). `fixed` are keys that change the maths, with the values
    that are supported. `harmless` keys change nothing, beyond those of `HARMLESS`.
    """

    defaults: Mapping[str, Config]
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    harmless: frozenset[str] = frozenset()

    def read(self, config: Config) -> dict[str, Any]:
        """All keys that the family reads, filled in. BadOption names every key that is unknown
        or of a value that is not supported."""
        kind = config.get("model_type", next(iter(self.defaults)))
        defaults = self.defaults[kind]
        fixed = {**FIXED, **self.fixed}
        known = defaults.keys() | fixed.keys() | HARMLESS | self.harmless
        problems = [
            f"`{key}` is not known for a {kind} model{_nearest(key, known)}"
            for key in config
            if key not in known
        ]
        problems += [
            f"`{key}` is {config[key]!r}; supported: {', '.join(map(repr, values))}"
            for key, values in fixed.items()
            if key in config and key not in defaults and config[key] not in values
        ]
        if problems:
            raise BadOption(
                "config.json: "
                + "; ".join(problems)
                + ". A key that changes what the model computes is never passed over; remove one "
                "that you know to change nothing"
            )
        return {**defaults, **{key: config[key] for key in defaults if key in config}}


def _nearest(key: str, known: Set[str]) -> str:
    near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.75)
    return f" (did you mean `{near[0]}`?)" if near else ""


def activation(config: Config, key: str) -> spec.Activation:
    """The activation that `config[key]` names."""
    name = config[key]
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise BadOption(f"config.json: `{key}` {name!r} is not supported; known: {known}")
    return ACTIVATIONS[name]


def labels(config: Config, default: int = 2) -> int:
    """The number of labels of a classifier: as many as have names."""
    names = config.get("id2label")
    return len(names) if names else int(config.get("num_labels") or default)


def sliding_layers(c: Config) -> list[bool] | None:
    """Whether each layer sees a window only, by `layer_types`; None where that is not stated."""
    kinds, depth = c.get("layer_types"), c["num_hidden_layers"]
    if kinds is None:
        return None
    if len(kinds) != depth or set(kinds) - {"full_attention", "sliding_attention"}:
        raise BadOption(
            f"config.json: `layer_types` must name {depth} layers, each full_attention or "
            f"sliding_attention; it has {len(kinds)}: {', '.join(sorted(set(kinds)))}"
        )
    return [kind == "sliding_attention" for kind in kinds]


def check_divides(config: Config, width: str, heads: str) -> int:
    """The width of one head. BadOption where the heads do not share the width evenly."""
    if config[width] % config[heads]:
        raise BadOption(
            f"config.json: `{width}` {config[width]} is no multiple of `{heads}` {config[heads]}"
        )
    return int(config[width] // config[heads])
