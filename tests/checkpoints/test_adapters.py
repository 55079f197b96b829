"""Adapters in PEFT's file format, with PEFT as the oracle: written here and opened there, written
there and opened here, for every family."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from mainspring import registry
from mainspring.checkpoints.adapted import open_adapter
from mainspring.checkpoints.adapter_places import choose, places
from mainspring.checkpoints.adapters import AdapterConfig, put_whole
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.compute.lora import Lora, attach
from mainspring.errors import BadOption, BadWeights, MainspringError, Mismatch, Missing, Refused
from mainspring.testing import tiny, tiny_inputs

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
EXAMPLES = [
    (name, number)
    for name in registry.names("families")
    for number in range(len(registry.find("families", name).examples))
]


@pytest.fixture(scope="module")
def peft():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its import
        import peft

        yield peft


def small(name: str, number: int, folder: Path) -> Bundle:
    """A bundle of the family's example, saved in `folder`. (`transformers` wants a padding id that
    is in the vocabulary.)"""
    family = registry.find("families", name)
    config = {"pad_token_id": 1, "eos_token_id": 2, **family.examples[number]}
    bundle = Bundle(tiny(name, number), config, family)
    bundle.save(folder)
    return bundle


def oracle(folder: Path) -> Any:
    """The `transformers` model of a folder."""
    (architecture,) = json.loads((folder / "config.json").read_text())["architectures"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, architecture).from_pretrained(folder).eval()


def reading(output: Any) -> Tensor:
    """What there is to compare in an output of `transformers`."""
    for name in ("logits", "prediction_logits", "start_logits", "last_hidden_state"):
        if name in output:
            return output[name]
    raise AssertionError(output.keys())


def inputs_of(model: Any) -> dict[str, Tensor]:
    """Ids that are no padding and end in the end token, or as many frames as Whisper wants."""
    inputs = tiny_inputs(model, length=12)
    for name, ids in inputs.items():
        if name.endswith("input_ids"):
            inputs[name] = ids.clamp(min=3)
            inputs[name][:, -1] = 2
    return inputs


@torch.no_grad()
def assert_alike(bundle: Bundle, theirs: Any) -> None:
    inputs = inputs_of(bundle.model)
    ours, expected = bundle.model(**inputs), theirs(**inputs)
    if "start_logits" in expected:
        found = ours.readings["span"][..., 0]
    elif "last_hidden_state" in expected and "logits" not in expected:
        found = ours.last_hidden_state
    else:
        found = ours.logits
    torch.testing.assert_close(found, reading(expected), **CLOSE)


def shake(parameters: Any) -> None:
    """Numbers large enough to matter in the factors that start at zero."""
    generator = torch.Generator().manual_seed(5)
    for parameter in parameters:
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)


def peft_model(peft: Any, folder: Path, **options: Any) -> Any:
    options = {"r": 3, "lora_alpha": 5, "target_modules": "all-linear", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GPT-2's matrices lie the other way round, it says
        model = peft.get_peft_model(oracle(folder), peft.LoraConfig(**options)).eval()
    shake(p for name, p in model.named_parameters() if "lora_" in name)
    return model


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "number"), EXAMPLES)
def test_ours_opens_in_peft(peft, name, number, tmp_path):
    bundle = small(name, number, tmp_path / "base")
    config = AdapterConfig(rank=3, alpha=5, base=str(tmp_path / "base"))
    lora = attach(bundle.model, bundle.family, config)
    shake(p for p in bundle.model.parameters() if p.requires_grad)
    lora.save(tmp_path / "adapter", bundle)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        theirs = peft.PeftModel.from_pretrained(oracle(tmp_path / "base"), tmp_path / "adapter")
    assert_alike(bundle, theirs.eval())
    # None more and none fewer than ours.
    adapted = {n for n, m in theirs.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
    assert len(adapted) == len(lora.parts)
    merged = load(tmp_path / "adapter")
    assert_alike(merged, theirs)
    lora.merge()
    assert_alike(bundle, theirs)
    for key, tensor in bundle.model.state_dict().items():
        torch.testing.assert_close(merged.model.state_dict()[key], tensor, **CLOSE)


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "number"), EXAMPLES)
def test_theirs_opens_here(peft, name, number, tmp_path):
    small(name, number, tmp_path / "base")
    theirs = peft_model(peft, tmp_path / "base")
    theirs.save_pretrained(tmp_path / "adapter")
    assert_alike(load(tmp_path / "adapter"), theirs)
    bundle, adapter = open_adapter(tmp_path / "adapter")
    known = places(bundle.family, bundle.model)
    if any(known[module].leaves[0] == "heads.vocabulary.out" for module in adapter.factors):
        return  # an adapter that is merged alone: we train none there
    put_whole(adapter, bundle.family, bundle.model)
    lora = Lora(bundle.model, bundle.family, adapter.config, ())
    for module, factors in adapter.factors.items():
        lora.put(known[module], factors)
    assert_alike(bundle, theirs)


def llama(folder: Path) -> Bundle:
    return small("llama", 1, folder)


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"target_modules": ["q_proj", "layers.1.mlp.down_proj"]},
        {"target_modules": r".*layers\.1\..*proj"},
        {"rank_pattern": {"k_proj": 2, r"layers\.1\.mlp\..*": 1}, "alpha_pattern": {"k_proj": 9}},
        {"lora_dropout": 0.3},
        {"modules_to_save": ["input_layernorm", "lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
        {"target_modules": ["lm_head", "q_proj"]},  # the head's own weights are stored too
    ],
)
def test_options_of_peft_mean_the_same_here(peft, options, tmp_path):
    llama(tmp_path / "base")
    theirs = peft_model(peft, tmp_path / "base", **options)
    if "modules_to_save" in options:
        shake(p for name, p in theirs.named_parameters() if "modules_to_save" in name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*save_embedding_layers")
        theirs.save_pretrained(tmp_path / "adapter")
    assert_alike(load(tmp_path / "adapter"), theirs)


def test_a_table_that_the_head_shares_is_read_with_the_head_or_not_at_all(peft, tmp_path):
    small("llama", 0, tmp_path / "base")  # a tied head
    for tying in (False, True):
        options = {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": tying}
        theirs = peft_model(peft, tmp_path / "base", target_modules=["q_proj"], **options)
        shake(p for name, p in theirs.named_parameters() if "modules_to_save" in name)
        theirs.save_pretrained(tmp_path / "adapter")
        if tying:
            assert_alike(load(tmp_path / "adapter"), theirs)
        else:
            with pytest.raises(Mismatch, match=r"the table of tokens whole.*ensure_weight_tying"):
                load(tmp_path / "adapter")


def test_targets_choose_the_modules_that_peft_chooses(peft, tmp_path):
    bundle = llama(tmp_path / "base")
    known = places(bundle.family, bundle.model)
    for targets in ("all-linear", ["q_proj"], ["0.mlp.up_proj", "o_proj"], r".*1.*[kv]_proj"):
        theirs = peft_model(peft, tmp_path / "base", target_modules=targets)
        layers = peft.tuners.lora.LoraLayer
        chosen = {
            n.removeprefix("base_model.model.")
            for n, m in theirs.named_modules()
            if isinstance(m, layers)
        }
        assert {place.module for place in choose(targets, known)} == chosen


def test_a_trained_head_travels_with_the_adapter(peft, tmp_path):
    base = small("bert", 4, tmp_path / "base")  # no classifier
    bundle = small("bert", 1, tmp_path / "classifier")
    body = {k: v for k, v in base.model.state_dict().items() if not k.startswith("heads.")}
    bundle.model.load_state_dict(body, strict=False)
    config = AdapterConfig(rank=2, base=str(tmp_path / "base"))
    lora = attach(bundle.model, bundle.family, config, heads=("classes",))
    learning = {n for n, p in bundle.model.named_parameters() if p.requires_grad}
    assert "heads.classes.out.weight" in learning
    shake(p for p in bundle.model.parameters() if p.requires_grad)
    lora.save(tmp_path / "adapter", bundle)
    opened = load(tmp_path / "adapter")
    inputs = inputs_of(bundle.model)
    with torch.no_grad():
        expected = bundle.model(**inputs).logits
        torch.testing.assert_close(opened.model(**inputs).logits, expected, **CLOSE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the base model has no classifier: it starts random
        theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
            tmp_path / "base", num_labels=3
        )
        theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    assert_alike(bundle, theirs)


def saved(folder: Path, **changes: Any) -> Path:
    """An adapter of ours, its config changed."""
    bundle = llama(folder / "base")
    config = AdapterConfig(rank=2, base=str(folder / "base"))
    attach(bundle.model, bundle.family, config).save(folder / "adapter", bundle)
    file = folder / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder / "adapter"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"a_key_of_tomorrow": 3}, "a_key_of_tomorrow"),
        ({"r": 0}, "rank"),
        ({"lora_dropout": 1.5}, "dropout"),
    ],
)
def test_what_is_not_supported_is_named(changes, named, tmp_path):
    with pytest.raises(BadOption, match=named):
        load(saved(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"r": 64}, "of rank 2, and adapter_config.json says 64"),
        ({"rank_pattern": {"q_proj": 5}}, "q_proj` are of rank 2, and adapter_config.json says 5"),
        ({"alpha_pattern": {"q_proj(": 3}}, "not a readable adapter config"),
        ({"rank_pattern": {"q_proj": "x"}}, "not a readable adapter config"),
    ],
)
def test_a_config_that_belongs_to_other_factors_or_cannot_be_read(changes, named, tmp_path):
    with pytest.raises(BadWeights, match=named):
        load(saved(tmp_path, **changes))


def test_a_base_model_that_is_not_there_or_another(tmp_path):
    folder = saved(tmp_path, base_model_name_or_path=str(tmp_path / "nowhere"))
    with pytest.raises(Missing, match=r"nowhere(.|\n)*base="):
        load(folder)
    assert load(folder, base=tmp_path / "base").spec.decoder
    small("llama", 2, tmp_path / "other")
    with pytest.raises(Mismatch, match="do not fit the model"):
        load(folder, base=tmp_path / "other")
    small("t5", 0, tmp_path / "t5")
    with pytest.raises(Mismatch, match=r"no linear layer of this t5"):
        load(folder, base=tmp_path / "t5")
    with pytest.raises(BadWeights, match="names itself"):
        load(folder, base=folder)


def test_a_base_model_is_found_beside_the_adapter(tmp_path):
    folder = saved(tmp_path, base_model_name_or_path="../base")
    assert load(folder).spec.decoder


def test_damaged_files_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    some = next(name for name in tensors if "lora_B" in name)
    save_file({name: t for name, t in tensors.items() if name != some}, file)
    with pytest.raises(BadWeights, match="but one of lora_A and lora_B"):
        load(folder)
    embedding = {"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(2, 40)}
    save_file({**tensors, **embedding}, file)
    with pytest.raises(BadOption, match="lora_embedding_A"):
        load(folder)
    save_file({**tensors, "base_model.model.strange.weight": torch.zeros(1)}, file)
    with pytest.raises(Mismatch, match=r"strange\.weight"):
        load(folder)
    file.unlink()
    with pytest.raises(Missing, match=r"adapter_model\.safetensors"):
        load(folder)
    (folder / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(Refused, match="pickle"):
        load(folder)


def test_an_adapter_is_small_and_replaces_what_was_in_its_folder(bundle, folder, tmp_path):
    out = tmp_path / "out"
    bundle.save(out)
    bundle.extra_files["mainspring.json"] = b"{}"
    lora = attach(bundle.model, bundle.family, AdapterConfig(rank=1, base=str(folder)))
    lora.save(out, bundle, "# A card\n")
    there = {file.name for file in out.iterdir()}
    assert not {"model.safetensors", "config.json"} & there
    assert {"adapter_model.safetensors", "tokenizer.json", "mainspring.json"} <= there
    assert (out / "README.md").read_text() == "# A card\n"
    opened = load(out)
    assert opened.tokenizer.encode("lazy dog") == bundle.tokenizer.encode("lazy dog")
    assert opened.extra_files["mainspring.json"] == b"{}"
    assert opened.generation == bundle.generation
    bundle.save(out)
    assert not (out / "adapter_config.json").exists()


def test_an_unknown_target_names_the_nearest():
    model = tiny("llama")
    family = registry.find("families", "llama")
    with pytest.raises(BadOption, match="did you mean `q_proj`"):
        attach(model, family, AdapterConfig(targets=("q_prok",)))


def test_the_vocabulary_head_is_refused():
    model = tiny("llama", 1)
    family = registry.find("families", "llama")
    with pytest.raises(MainspringError, match="lm_head"):
        attach(model, family, AdapterConfig(targets=("lm_head",)))
    assert all(type(m) is nn.Linear for m in model.modules() if isinstance(m, nn.Linear))
