"""GGUF files of tiny `transformers` models, made by the `gguf` library as llama.cpp's converter
makes them: none of our code is in it."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

IDS = torch.tensor([[5, 17, 40, 8, 23, 9, 9, 31, 2, 44, 13]])
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
# Where the half-precision scales lie in a block of the kinds that the library cannot write.
SCALES = {Kind.Q2_K: (80, 82), Kind.Q3_K: (108,), Kind.Q4_K: (0, 2), Kind.Q5_K: (0, 2)}
SCALES |= {Kind.Q6_K: (208,)}
PERMUTED, SHIFTED = ("llama", "smollm3"), ("gemma", "gemma2", "gemma3")


def tiny(kind: str, **more: Any) -> Any:
    """A random `transformers` model, no norm or bias at a value that hides a mistake."""
    sizes = {
        "vocab_size": 48,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    config = transformers.CONFIG_MAPPING[kind](**{**sizes, **more})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape)
        if parameter.dim() == 1:
            parameter.data = parameter.detach().round() + 0.2 * noise
        else:
            parameter.data = noise * (0.3 if "embed" in name else parameter.shape[-1] ** -0.5)
    return model.eval()


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


# name -> model type, config, and the values that the file says beside the usual ones
GEMMA = {"head_dim": 16, "hidden_activation": "gelu_pytorch_tanh"}
WINDOWED = {**GEMMA, "sliding_window": 4, "query_pre_attn_scalar": 16}
MODELS = {
    "llama": ("llama", {}, {}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}, {}),
    "llama, bands": ("llama", {"rope_parameters": LLAMA3, "head_dim": 16}, {}),
    "llama, untied": ("llama", {"tie_word_embeddings": False, "head_dim": 16}, {}),
    "llama, linear": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}},
        {"rope__scaling__type": "linear", "rope__scaling__factor": 2.5},
    ),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 16}, {}),
    "smollm3": ("smollm3", {"num_hidden_layers": 5}, {}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}, {}),
    "qwen2, yarn": (
        "qwen2",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 500.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
        {
            "rope__scaling__type": "yarn",
            "rope__scaling__factor": 4.0,
            "rope__scaling__original_context_length": 16,
        },
    ),
    "qwen3": ("qwen3", {"head_dim": 10}, {}),
    "gemma": ("gemma", {"head_dim": 16}, {}),
    "gemma2": (
        "gemma2",
        {**WINDOWED, "attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0},
        {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0},
    ),
    "gemma3": (
        "gemma3_text",
        {**WINDOWED, "num_hidden_layers": 7, "layer_types": None},
        {},
    ),
    "gemma3, other windows": (
        "gemma3_text",
        {
            **WINDOWED,
            "num_hidden_layers": 2,
            "layer_types": ["full_attention", "sliding_attention"],
        },
        {"attention__sliding_window_pattern": [False, True]},
    ),
}


def permuted(weights: Tensor, heads: int) -> Tensor:
    """As in llama.cpp's conversion/llama.py."""
    shape = (heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return weights.reshape(shape).swapaxes(1, 2).reshape(weights.shape)


def encoded(weights: np.ndarray, kind: Kind) -> np.ndarray:
    """The bytes of a tensor; those of K-quants are random, with sensible scales."""
    if kind not in SCALES:
        return gguf.quantize(weights, kind)
    _, size = gguf.GGML_QUANT_SIZES[kind]
    draw = np.random.default_rng(weights.view(np.uint32).ravel()[:4])
    blocks = draw.integers(0, 256, (weights.size // 256, size), dtype=np.uint8)
    for at in SCALES[kind]:
        scale = draw.uniform(1e-4, 2e-4, (len(blocks), 1)).astype(np.float16)
        blocks[:, at : at + 2] = scale.view(np.uint8)
    return blocks.reshape(weights.shape[0], -1)


def convert(model: Any, file: Path, kind: Kind = Kind.F32, **values: Any) -> Path:
    """Writes `model` as llama.cpp's converter does; `values` are more of the architecture's own."""
    c = model.config
    name = {"gemma3_text": "gemma3", "mistral": "llama"}.get(c.model_type, c.model_type)
    writer = gguf.GGUFWriter(file, name)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    writer.add_key_length(width)
    writer.add_value_length(width)
    rope = c.rope_parameters.get("full_attention", c.rope_parameters)
    writer.add_rope_freq_base(rope["rope_theta"])
    if name in PERMUTED:
        writer.add_vocab_size(c.vocab_size)
        writer.add_rope_dimension_count(width)
    if name in ("gemma2", "gemma3"):
        writer.add_sliding_window(c.sliding_window)
    for key, value in values.items():
        full = f"{name}.{key.replace('__', '.')}"
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
        (writer.add_array if isinstance(value, list) else add[type(value)])(full, value)
    if rope.get("rope_type") == "llama3":
        plain = transformers.LlamaConfig(rope_parameters={"rope_theta": rope["rope_theta"]})
        plain.head_dim = c.head_dim = width
        rates = [
            transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](c, None)[0],
            rope["rope_theta"] ** -(torch.arange(0, width, 2) / width),
        ]
        writer.add_tensor("rope_freqs.weight", (rates[1] / rates[0]).numpy())
    names = gguf.get_tensor_name_map(writer_arch(name), c.num_hidden_layers)
    tied = c.tie_word_embeddings
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and tied:
            continue
        stem, _, end = key.rpartition(".")
        if name in PERMUTED and stem.endswith(("q_proj", "k_proj")):
            heads = c.num_attention_heads if stem.endswith("q_proj") else c.num_key_value_heads
            tensor = permuted(tensor, heads)
        if name in SHIFTED and key.endswith("norm.weight"):
            tensor = tensor + 1
        data = tensor.float().contiguous().numpy()
        stored = kind if data.ndim > 1 else Kind.F32
        writer.add_tensor(f"{names.get_name(stem)}.{end}", encoded(data, stored), raw_dtype=stored)
    write(writer)
    return file


def writer_arch(name: str) -> gguf.MODEL_ARCH:
    return next(arch for arch, known in gguf.MODEL_ARCH_NAMES.items() if known == name)


def write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def opened_by_transformers(file: Path) -> Any:
    """The model as `transformers` reads the file."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def with_tokenizer(
    file: Path, model: str, tokens: list[str], types: list[int], **more: Any
) -> Path:
    """A file of a tokenizer alone, beside the values of the tiniest llama."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    for name, value in more.items():
        if isinstance(value, bool):
            writer.add_bool(f"tokenizer.ggml.{name}", value)
        elif isinstance(value, list):
            writer.add_array(f"tokenizer.ggml.{name}", value)
        elif isinstance(value, int):
            writer.add_uint32(f"tokenizer.ggml.{name}", value)
        else:
            writer.add_string(f"tokenizer.ggml.{name}", value)
    write(writer)
    return file
