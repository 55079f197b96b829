"""How GGUF's architectures lie beside the families: names of values, names and layout of tensors.

An architecture is a record. The same record reads a file's values into a `config.json` and writes a
model's; the same names and operations turn its tensors into those that `transformers` would have
saved, and back.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mainspring import spec
from mainspring.checkpoints.gguf_file import GGUFFile
from mainspring.checkpoints.gguf_rope import FREQUENCIES, READ, rope_scaling, rope_values
from mainspring.errors import BadOption, BadWeights, Mismatch, Missing
from mainspring.weights.maps import SAME, Operation, Shifted

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Interleaved:
    """Rows of each head stored so that the two halves alternate: llama.cpp turns neighbours (as the
    first Llama did), `transformers` turns a number and the one half a head further on."""

    heads: int

    def take(self, *theirs: "Tensor") -> "tuple[Tensor, ...]":
        return tuple(self._swapped(tensor, -1, 2) for tensor in theirs)

    def give(self, *ours: "Tensor") -> "tuple[Tensor, ...]":
        return tuple(self._swapped(tensor, 2, -1) for tensor in ours)

    def _swapped(self, tensor: "Tensor", *split: int) -> "Tensor":
        rows = tensor.reshape(self.heads, *split, *tensor.shape[1:]).transpose(1, 2)
        return rows.reshape(tensor.shape)


# A config's key for each of an architecture's values ("llama.block_count").
KEYS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
NEEDED = (
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
)
# The ends of values that are real numbers, also where a config writes 10000 or 30.
REAL = ("epsilon", "freq_base", "freq_base_swa", "softcapping")
# Values that repeat others or change nothing here, and some that may only say "none".
REPEATED = ("vocab_size", "attention.value_length", "rope.dimension_count", "pooling_type")
ABSENT = {"expert_count": 0, "expert_used_count": 0, "attention.causal": True}

EDGES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    **{f"attn_{p}": f"self_attn.{p}_proj" for p in "qkv"},
    **{f"attn_{p}_norm": f"self_attn.{p}_norm" for p in "qk"},
    **{f"ffn_{p}": f"mlp.{p}_proj" for p in ("gate", "up", "down")},
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
SANDWICH = {
    **LAYER,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
BIASES = {"attention_bias": "blk.0.attn_output.bias", "mlp_bias": "blk.0.ffn_up.bias"}


@dataclass(frozen=True)
class Architecture:
    """One of GGUF's architectures.

    `model_types` are those it can hold, the first of them what a file is read as. `keys` are its
    values beside `KEYS`, `layer` the tensors of a layer. `biases` are config keys that are true
    where the file has the tensor. `interleaved` says that queries and keys are, `norm_shift` how
    much more a norm is stored with than `transformers` stores. `widest` is the number of layers of
    the one size whose scores are scaled by the width over the heads, not by the width of a head: a
    file does not say so, and llama.cpp tells it by that number too.
    """

    name: str
    model_types: tuple[str, ...]
    keys: Mapping[str, str] = field(default_factory=dict)
    layer: Mapping[str, str] = field(default_factory=lambda: LAYER)
    biases: Mapping[str, str] = field(default_factory=dict)
    interleaved: bool = False
    norm_shift: float = 0.0
    widest: int | None = None


_WINDOW = {"attention.sliding_window": "sliding_window"}
_CAPS = {name: name for name in ("attn_logit_softcapping", "final_logit_softcapping")}
_GEMMA3 = {
    **_WINDOW,
    "attention.sliding_window_pattern": "sliding_window_pattern",
    "final_logit_softcapping": "final_logit_softcapping",
    "rope.freq_base_swa": "rope_local_base_freq",
}
ARCHITECTURES = {
    known.name: known
    for known in (
        Architecture("llama", ("llama", "mistral"), biases=BIASES, interleaved=True),
        Architecture("smollm3", ("smollm3",), biases=BIASES, interleaved=True),
        Architecture("qwen2", ("qwen2",)),
        Architecture("qwen3", ("qwen3",)),
        Architecture("gemma", ("gemma",), norm_shift=1.0),
        Architecture(
            "gemma2", ("gemma2",), {**_WINDOW, **_CAPS}, SANDWICH, norm_shift=1.0, widest=46
        ),
        Architecture("gemma3", ("gemma3_text",), _GEMMA3, SANDWICH, norm_shift=1.0, widest=62),
    )
}


# -- reading -----------------------------------------------------------------------------------


def find_architecture(stored: GGUFFile) -> Architecture:
    """The architecture that the file names. BadOption where it is none of those read here."""
    name = stored.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise Missing(
            f"{stored.file}: no `general.architecture`, which says what kind of model this is"
        )
    if name not in ARCHITECTURES:
        raise BadOption(
            f"{stored.file}: GGUF files of the architecture `{name}` are not read; known: "
            f"{', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def read_config(stored: GGUFFile, architecture: Architecture) -> dict[str, Any]:
    """The `config.json` that the file's values amount to.

    BadOption names a value that is not known: it might change what the model computes.
    """
    prefix, file = f"{architecture.name}.", stored.file
    values = {
        name.removeprefix(prefix): value
        for name, value in stored.metadata.items()
        if name.startswith(prefix)
    }
    absent = [prefix + name for name in NEEDED if name not in values]
    if absent or "token_embd.weight" not in stored:
        raise Missing(f"{file}: no `{(absent or ['token_embd.weight'])[0]}`")
    keys = {**KEYS, **architecture.keys}
    for name, value in values.items():
        if name in ABSENT and value == ABSENT[name]:
            continue
        if name not in (*keys, *REPEATED, *READ):
            raise BadOption(
                f"{file}: `{prefix}{name}` ({value!r}) is not known; a value that changes what the "
                "model computes is never passed over"
            )
        if isinstance(value, list) and name != "attention.sliding_window_pattern":
            raise BadOption(f"{file}: `{prefix}{name}` differs from layer to layer")
    _check_sizes(values, stored)
    config = {ours: values[name] for name, ours in keys.items() if name in values}
    width = config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    for name in ("attention.value_length", "rope.dimension_count"):
        if values.get(name, width) != width:
            raise BadOption(f"{file}: `{prefix}{name}` is not the width of a head, {width}")
    scaling = rope_scaling(
        values,
        stored.get(FREQUENCIES),
        config.setdefault("rope_theta", 10_000.0),
        width,
        file,
    )
    return {
        "model_type": architecture.model_types[0],
        **_windows(architecture, config),
        "num_key_value_heads": config.get("num_key_value_heads", config["num_attention_heads"]),
        "vocab_size": stored.stored["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in stored,
        **({} if scaling is None else {"rope_scaling": scaling}),
        **{key: tensor in stored for key, tensor in architecture.biases.items()},
        **_query_scale(architecture, config),
    }


def _check_sizes(values: Mapping[str, Any], stored: GGUFFile) -> None:
    """BadWeights where the sizes stated are not those of the tensors: a model with a damaged number
    of layers would not fit in any memory."""
    numbers = {name.split(".")[1] for name in stored if name.startswith("blk.")}
    width = stored.stored["token_embd.weight"].shape[-1]
    for what, said, found in (
        ("layers", values["block_count"], len(numbers)),
        ("numbers a token", values["embedding_length"], width),
    ):
        if said != found:
            raise BadWeights(
                f"{stored.file}: says that the model has {said} {what}, and holds the tensors of "
                f"{found}; copy or download it again"
            )
    if not values["attention.head_count"]:
        raise BadWeights(f"{stored.file}: says that the model has no attention heads")


def _windows(architecture: Architecture, config: dict[str, Any]) -> dict[str, Any]:
    """The config, with the kinds of its layers by name where the file lists them, or where it could
    have a window and has none."""
    depth, window = config["num_hidden_layers"], config.get("sliding_window")
    pattern = config.get("sliding_window_pattern")
    optional = "attention.sliding_window_pattern" in architecture.keys
    if not isinstance(pattern, list) and (window or not optional):
        return config
    slides = pattern if window and isinstance(pattern, list) else [False] * depth
    kinds = ["sliding_attention" if slide else "full_attention" for slide in slides[:depth]]
    dropped = ("sliding_window_pattern", *(() if window else ("sliding_window",)))
    return {**{k: v for k, v in config.items() if k not in dropped}, "layer_types": kinds}


def _query_scale(architecture: Architecture, config: dict[str, Any]) -> dict[str, Any]:
    if "sliding_window" not in architecture.keys.values():
        return {}
    if config["num_hidden_layers"] == architecture.widest:
        scalar = config["hidden_size"] // config["num_attention_heads"]
    else:
        scalar = config["head_dim"]
    return {"query_pre_attn_scalar": scalar}


# -- writing -----------------------------------------------------------------------------------


def choose_architecture(model_type: str) -> Architecture:
    """The architecture that a model of this type is written as."""
    for architecture in ARCHITECTURES.values():
        if model_type in architecture.model_types:
            return architecture
    known = ", ".join(kind for a in ARCHITECTURES.values() for kind in a.model_types)
    raise BadOption(f"a `{model_type}` model cannot be written as GGUF; can: {known}")


def write_config(
    architecture: Architecture, config: Mapping[str, Any], model: spec.Model
) -> dict[str, Any]:
    """The architecture's values for a model; `config` is its config.json with all defaults."""
    stack = model.decoder
    assert stack is not None
    first, slides = stack.layers[0], [isinstance(x.mask, spec.SlidingWindow) for x in stack.layers]
    full = stack.layers[slides.index(False)] if False in slides else None
    turn = (full or first).attention.rotary or first.attention.rotary
    assert turn is not None
    stated = {
        **config,
        "num_key_value_heads": first.attention.key_value_heads,
        "head_dim": first.attention.head_width,
        "rope_theta": turn.theta,
    }
    if "rope_local_base_freq" in architecture.keys.values() and True in slides:
        # The kinds of its layers repeat, one with full attention ending each period.
        local = stack.layers[slides.index(True)].attention.rotary
        assert local is not None
        stated["rope_local_base_freq"] = local.theta
        stated["sliding_window_pattern"] = slides.index(False) + 1 if full else len(slides) + 1
    values = {
        name: float(stated[ours]) if name.endswith(REAL) else stated[ours]
        for name, ours in {**KEYS, **architecture.keys}.items()
        if stated.get(ours) is not None
    }
    width = values["attention.key_length"]
    values |= {"attention.value_length": width, "rope.dimension_count": width}
    values |= {"vocab_size": config["vocab_size"], **rope_values(turn.scaling)}
    return {f"{architecture.name}.{name}": value for name, value in values.items()}


# -- tensors -----------------------------------------------------------------------------------


def their_name(architecture: Architecture, name: str) -> str:
    """`transformers`' name of a GGUF tensor; a name that is not known stays as it is."""
    parts = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    number, module, end = parts.groups() if parts else (None, "", "")
    if number is None:
        return f"{EDGES[module]}.{end}" if module in EDGES else name
    layer = architecture.layer
    return f"model.layers.{number}.{layer[module]}.{end}" if module in layer else name


def gguf_name(architecture: Architecture, name: str) -> str:
    """The GGUF name of one of `transformers`' tensors; Mismatch where there is none."""
    parts = re.fullmatch(r"(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)", name)
    assert parts is not None, name
    number, module, end = parts.groups()
    table = EDGES if number is None else architecture.layer
    known = next((short for short, long in table.items() if long == module), None)
    if known is None:
        raise Mismatch(
            f"GGUF has no place for the tensor `{name}` of this model: it holds models that write"
        )
    return f"{known}.{end}" if number is None else f"blk.{number}.{known}.{end}"


def operation(architecture: Architecture, name: str, config: Mapping[str, Any]) -> Operation:
    """How the GGUF tensor `name` becomes `transformers`'."""
    module = name.rpartition(".")[0].rpartition(".")[2]
    if architecture.interleaved and module == "attn_q":
        return Interleaved(config["num_attention_heads"])
    if architecture.interleaved and module == "attn_k":
        return Interleaved(config["num_key_value_heads"])
    if architecture.norm_shift and name.endswith("norm.weight"):
        return Shifted(-architecture.norm_shift)
    return SAME
