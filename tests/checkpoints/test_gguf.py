"""GGUF files against `transformers`: its own reader, and the models that the files were made of."""

from pathlib import Path

import gguf
import gguf_oracle as oracle
import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType as Kind
from gguf_oracle import CLOSE, LLAMA3, MODELS, logits

from mainspring.checkpoints.bundle import load
from mainspring.checkpoints.gguf_file import GGUFFile
from mainspring.errors import BadOption, BadWeights, Missing, Refused

PLAIN = (Kind.F32, Kind.F16, Kind.BF16)
SMALL = (Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1)

# -- tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*PLAIN, *SMALL, *oracle.SCALES], ids=lambda kind: kind.name)
def test_every_kind_of_tensor_equals_transformers(tmp_path: Path, kind: Kind) -> None:
    wide = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}
    model = oracle.tiny("llama", **(wide if kind in oracle.SCALES else {}))
    file = oracle.convert(model, tmp_path / "model.gguf", kind)
    ours, theirs = load(file), oracle.opened_by_transformers(file)
    torch.testing.assert_close(logits(ours.model), logits(theirs), **CLOSE)


@pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.name)
def test_blocks_become_the_librarys_numbers_bit_for_bit(tmp_path: Path, kind: Kind) -> None:
    """Random bytes: every bit of a block, scales beyond the ordinary."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(0).integers(0, 256, (7, 3 * size), dtype=np.uint8)
    for at in range(0, 3 * size, size):
        blocks[:, at + 1] &= 0x3F  # neither infinite nor NaN
        blocks[:, at + 3] &= 0x3F
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tensor("x", blocks, raw_dtype=kind)
    oracle.write(writer)
    ours = GGUFFile(tmp_path / "x.gguf")["x"]
    assert ours.shape == (7, 96)
    assert np.array_equal(ours.numpy(), gguf.dequantize(blocks, kind))


def test_a_model_in_half_the_memory(tmp_path: Path) -> None:
    file = oracle.convert(oracle.tiny("llama"), tmp_path / "model.gguf", Kind.Q8_0)
    half, full = load(file, dtype=torch.bfloat16).model, load(file).model
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    for name, tensor in full.state_dict().items():
        assert torch.equal(half.state_dict()[name], tensor.bfloat16()), name


# -- architectures --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_equals_the_model_it_was_made_of(tmp_path: Path, name: str) -> None:
    kind, more, values = MODELS[name]
    model = oracle.tiny(kind, **more)
    (tmp_path / "in").mkdir()
    ours = load(oracle.convert(model, tmp_path / "in" / "model.gguf", **values))
    torch.testing.assert_close(logits(ours.model), logits(model), **CLOSE)
    ours.save(tmp_path / "out")
    again, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True, attn_implementation="eager"
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    torch.testing.assert_close(logits(again.eval()), logits(model), **CLOSE)


def test_a_head_of_its_own_may_equal_the_embedding(tmp_path: Path) -> None:
    model = oracle.tiny("llama", tie_word_embeddings=False)
    model.lm_head.weight.data.copy_(model.model.embed_tokens.weight.data)
    (tmp_path / "in").mkdir()
    model.save_pretrained(tmp_path / "folder")
    for place in (oracle.convert(model, tmp_path / "in" / "model.gguf"), tmp_path / "folder"):
        ours = load(place)
        torch.testing.assert_close(logits(ours.model), logits(model), **CLOSE)
        ours.model.tables["tokens"].weight.data.zero_()
        assert logits(ours.model).isfinite().all()
        [(name, head)] = ours.spec.heads
        assert name == "vocabulary" and not head.tied


def test_a_folder_with_one_file_is_that_file(tmp_path: Path) -> None:
    model = oracle.tiny("llama")
    oracle.convert(model, tmp_path / "model.gguf")
    torch.testing.assert_close(logits(load(tmp_path).model), logits(model), **CLOSE)
    oracle.convert(model, tmp_path / "second.gguf")
    with pytest.raises(Missing, match=r"2 GGUF files; name the one to open: model.gguf, second"):
        load(tmp_path)
    model.save_pretrained(tmp_path)  # its own files come first
    assert load(tmp_path).config["architectures"] == ["LlamaForCausalLM"]


# -- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return oracle.convert(oracle.tiny("llama"), tmp_path / "model.gguf", Kind.Q8_0)


def test_a_file_that_is_cut_off_says_so_wherever_it_ends(whole: Path) -> None:
    data = whole.read_bytes()
    for end in (0, 3):
        whole.write_bytes(data[:end])
        with pytest.raises(BadWeights, match="not a GGUF file"):
            load(whole)
    for end in (4, 9, 23, 40, 200, 700, 1500):
        whole.write_bytes(data[:end])
        with pytest.raises(BadWeights, match=r"ends within its header.*copy or download it again"):
            load(whole)
    for end in (len(data) // 2, len(data) - 1):
        whole.write_bytes(data[:end])
        with pytest.raises(BadWeights, match=r"tensor `[\w.]+` would end at byte [\d,]+"):
            load(whole)


def test_any_damage_to_the_header_is_an_error_of_ours(whole: Path) -> None:
    """Every eighth byte of the header, overwritten: it opens, or it says what is wrong."""
    data = bytearray(whole.read_bytes())
    refused = 0
    for at in range(4, 2000, 8):
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        whole.write_bytes(damaged)
        try:
            load(whole)
        except (BadWeights, BadOption, Missing, Refused) as error:
            assert "model.gguf" in str(error) or "config.json" in str(error)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ({"rope__scaling__type": "longrope"}, BadOption, "type `longrope` are not read"),
        ({"expert_count": 8}, BadOption, "`llama.expert_count` .8. is not known"),
        ({"attention__scale": 0.5}, BadOption, "`llama.attention.scale` .0.5. is not known"),
        ({"attention__head_count_kv2": [1, 2]}, BadOption, "head_count_kv2"),
    ],
)
def test_a_value_that_is_not_known_is_named(tmp_path: Path, values, error, says) -> None:
    file = oracle.convert(oracle.tiny("llama"), tmp_path / "model.gguf", **values)
    with pytest.raises(error, match=says):
        load(file)


def test_other_architectures_parts_and_bands_are_refused_by_name(tmp_path: Path) -> None:
    def small(name: str, **values: object) -> Path:
        file = tmp_path / f"{name}.gguf"
        writer = gguf.GGUFWriter(file, name)
        for key, value in values.items():
            writer.add_uint16(key.replace("_", "."), value)
        oracle.write(writer)
        return file

    with pytest.raises(
        BadOption, match=r"architecture `mamba` are not read; known: llama, smollm3"
    ):
        load(small("mamba"))
    with pytest.raises(Missing, match=r"no `llama.block_count`"):
        load(small("llama"))
    with pytest.raises(Refused, match=r"one of 3 parts .* llama-gguf-split --merge"):
        load(small("qwen2", split_count=3))
    model = oracle.tiny("llama", rope_parameters={**LLAMA3, "low_freq_factor": 1.7}, head_dim=16)
    with pytest.raises(BadOption, match=r"rope_freqs.weight.* not Llama 3's"):
        load(oracle.convert(model, tmp_path / "bands.gguf"))


def test_tensors_left_over_or_missing_are_listed(tmp_path: Path) -> None:
    model = oracle.tiny("llama", num_hidden_layers=1)
    model.model.layers[0].self_attn.q_proj.bias = torch.nn.Parameter(torch.zeros(32))
    del model.model.layers[0].mlp.up_proj
    with pytest.raises(BadWeights) as error:
        load(oracle.convert(model, tmp_path / "model.gguf"))
    assert "left over   model.layers.0.self_attn.q_proj.bias (32,)" in str(error.value)
    assert "missing     model.layers.0.mlp.up_proj.weight" in str(error.value)
    model.config.num_hidden_layers = 7
    with pytest.raises(BadWeights, match=r"says that the model has 7 layers, and holds .* of 1"):
        load(oracle.convert(model, tmp_path / "model.gguf"))


def test_without_the_library_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = oracle.tiny("llama", hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    file = oracle.convert(model, tmp_path / "model.gguf", Kind.Q4_K)
    small = oracle.convert(oracle.tiny("llama"), tmp_path / "small.gguf", Kind.Q4_1)
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(Missing, match=r"pip install 'mainspring\[gguf\]'"):
        load(file)
    assert load(small).model.spec.decoder is not None
