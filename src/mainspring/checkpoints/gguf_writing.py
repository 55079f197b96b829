"""GGUF files, written: what llama.cpp and its like open, with tokenizer and chat template.

The file is read back before it takes its place: what GGUF cannot say about a model is an error,
never the file of another model.
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mainspring import spec
from mainspring.checkpoints.gguf import read_gguf
from mainspring.checkpoints.gguf_file import BLOCK
from mainspring.checkpoints.gguf_layout import (
    Architecture,
    choose_architecture,
    gguf_name,
    operation,
    write_config,
)
from mainspring.checkpoints.gguf_rope import FREQUENCIES, band_divisors
from mainspring.checkpoints.gguf_tokenizer import PREFIX
from mainspring.checkpoints.gguf_vocabulary import vocabulary_values
from mainspring.errors import BadOption, BadWeights, Mismatch
from mainspring.extras import GGUF
from mainspring.families.gemma import KEYS as GEMMA
from mainspring.families.llama import KEYS as LLAMA
from mainspring.generation.options import as_ids
from mainspring.weights.files import hint
from mainspring.weights.maps import to_theirs

if TYPE_CHECKING:
    from mainspring.checkpoints.bundle import Bundle

# What matrices are stored as, and the number that GGUF has for such a file. Vectors stay float32.
KINDS: dict[str, tuple[str, int]] = {
    "f32": ("F32", 0),
    "f16": ("F16", 1),
    "bf16": ("BF16", 32),
    "q8_0": ("Q8_0", 7),
}
CONFIG_KEYS = {"llama": LLAMA, "gemma": GEMMA}
Tensors = list[tuple[str, Tensor]]
# A text that tells the ways to change it first and to cut it apart: composed and decomposed
# letters, compatibility characters, blanks at its ends.
SAMPLE = "  The  naïve cafe\u0301's ﬁne Ⅷ 1234 prices: £5.60!\n\n\tx = f(y)[0]  東京 🙂 \n"
FURTHER_ENDS = ("eot_token_id", "eom_token_id")


def write_gguf(bundle: "Bundle", file: Path, kind: str = "q8_0") -> None:
    """Writes the model of `bundle` with its tokenizer into `file`, whole or not at all.

    BadOption where `kind`, the model or the tokenizer is one that is not written here; Mismatch
    where the model does something that such a file cannot say.
    """
    if kind not in KINDS:
        raise BadOption.unknown("kind of GGUF file", kind, KINDS)
    architecture = choose_architecture(str(bundle.config.get("model_type")))
    config = CONFIG_KEYS[bundle.family.name].read(bundle.config)
    values = {
        "general.type": "model",
        "general.name": file.stem,
        "general.file_type": KINDS[kind][1],
        "general.quantization_version": 2,
        **write_config(architecture, config, bundle.spec),
    }
    if bundle.tokenizer is not None:
        values |= vocabulary_values(bundle.tokenizer, config["vocab_size"])
        values |= _further_ends(bundle)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = list(_tensors(bundle, architecture))
        _write(temporary, architecture.name, values, tensors, KINDS[kind][0])
        _check(bundle, temporary, architecture.name)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(file)
    except OSError as error:
        raise BadWeights(f"{file}: could not be written ({error}){hint(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _tensors(bundle: "Bundle", architecture: Architecture) -> Iterator[tuple[str, Tensor]]:
    """(GGUF's name, tensor) of all weights, in GGUF's layout."""
    stack = bundle.spec.decoder
    assert stack is not None
    attention = stack.layers[0].attention
    heads = {
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.key_value_heads,
    }
    turn = attention.rotary
    if turn is not None and isinstance(turn.scaling, spec.BandedScaling):
        yield FREQUENCIES, band_divisors(turn.scaling, turn.theta, attention.head_width)
    theirs = to_theirs(bundle.family.pairs(bundle.spec), bundle.model.state_dict())
    for name, tensor in theirs.items():
        known = gguf_name(architecture, name)
        [given] = operation(architecture, known, heads).give(tensor)
        yield known, given


def _write(
    file: Path, architecture: str, values: Mapping[str, Any], tensors: Tensors, kind: str
) -> None:
    """Writes a file by the `gguf` library, one tensor after the other."""
    try:
        import gguf
    except ImportError:
        raise GGUF.missing() from None
    import numpy

    writer = gguf.GGUFWriter(file, architecture)
    types = {
        bool: gguf.GGUFValueType.BOOL,
        int: gguf.GGUFValueType.UINT32,
        float: gguf.GGUFValueType.FLOAT32,
        str: gguf.GGUFValueType.STRING,
        list: gguf.GGUFValueType.ARRAY,
    }
    for name, value in values.items():
        writer.add_key_value(name, value, types[type(value)])
    kinds = [gguf.GGMLQuantizationType[_kind_of(tensor, kind)] for _, tensor in tensors]
    for (name, tensor), stored in zip(tensors, kinds, strict=True):
        block, size = gguf.GGML_QUANT_SIZES[stored]
        bytes_ = tensor.numel() // block * size
        writer.add_tensor_info(name, tensor.shape, numpy.dtype("f4"), bytes_, raw_dtype=stored)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for (name, tensor), stored in zip(tensors, kinds, strict=True):
            numbers = tensor.detach().float().cpu().contiguous().numpy()
            with numpy.errstate(over="ignore"):
                data = gguf.quantize(numbers, stored)
            if stored == gguf.GGMLQuantizationType.F16 and not numpy.isfinite(data).all():
                raise BadOption(f"`{name}` has numbers beyond float16's 65504; write bf16 or q8_0")
            writer.write_tensor_data(data)
    finally:
        writer.close()


def _kind_of(tensor: Tensor, kind: str) -> str:
    """Vectors stay float32, and what does not fill its blocks float16, as llama.cpp does."""
    if tensor.dim() < 2:
        return "F32"
    return "F16" if kind == "Q8_0" and tensor.shape[-1] % BLOCK else kind


def _further_ends(bundle: "Bundle") -> dict[str, int]:
    """The tokens that end a text beside the tokenizer's own, such as that of a turn."""
    assert bundle.tokenizer is not None
    ends = as_ids(bundle.generation.get("eos_token_id"))
    further = [i for i in dict.fromkeys(ends) if i != bundle.tokenizer.eos_id]
    if len(further) > len(FURTHER_ENDS):
        raise Mismatch(
            f"this model ends at any of {len(further) + 1} tokens (generation_config.json: "
            f"eos_token_id), and a GGUF file names at most {len(FURTHER_ENDS) + 1}"
        )
    return {PREFIX + name: i for name, i in zip(FURTHER_ENDS, further, strict=False)}


# -- reading it back ---------------------------------------------------------------------------


def _check(bundle: "Bundle", file: Path, architecture: str) -> None:
    """Mismatch where a reader of the file would build another model or cut text another way."""
    read = read_gguf(file)
    # A file for inference does not say that training drops attention weights.
    config = {**read.config, "attention_dropout": bundle.config.get("attention_dropout", 0.0)}
    names = [name for _, name in read.names()]
    wrong = _difference(bundle.spec, bundle.family.spec(config, names), "model")
    if wrong is not None:
        raise Mismatch(
            f"GGUF's architecture `{architecture}` cannot say all that this model does: {wrong}"
        )
    if bundle.tokenizer is not None:
        assert read.tokenizer is not None
        added = bundle.tokenizer.backend.get_added_tokens_decoder().values()
        texts = [SAMPLE, *(f"a {token.content} b" for token in added)]
        both = (tokenizer.encode_many(texts) for tokenizer in (bundle.tokenizer, read.tokenizer))
        for text, ours, theirs in zip(texts, *both, strict=True):
            if ours != theirs:
                raise Mismatch(f"GGUF cannot say how this model's tokenizer cuts {text!r}")


def _difference(ours: Any, theirs: Any, place: str) -> str | None:
    """Where two specs differ, or None. Floats need only be the same float32."""
    if dataclasses.is_dataclass(ours) and type(ours) is type(theirs):
        parts = [
            (getattr(ours, f.name), getattr(theirs, f.name), f"{place}.{f.name}")
            for f in dataclasses.fields(ours)
        ]
    elif isinstance(ours, tuple) and isinstance(theirs, tuple) and len(ours) == len(theirs):
        parts = [(a, b, f"{place}.{i}") for i, (a, b) in enumerate(zip(ours, theirs, strict=True))]
    else:
        same = ours == theirs
        if isinstance(ours, float) and isinstance(theirs, float):
            same = math.isclose(ours, theirs, rel_tol=1e-6)
        return None if same else f"{place} is {ours!r}, and would be {theirs!r}"
    return next((wrong for part in parts if (wrong := _difference(*part))), None)
