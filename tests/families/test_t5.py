"""T5 against `transformers`: both open the same small random folder."""

import json
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from mainspring.checkpoints.bundle import Bundle, load, new_bundle
from mainspring.core.init import build
from mainspring.errors import BadOption, BadWeights
from mainspring.families.t5 import FAMILY, model_spec
from mainspring.weights.maps import to_theirs

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def lean(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


CLOSE = {"atol": 1e-5, "rtol": 1e-5}
PAD, EOS, VOCABULARY = 0, 1, 37


@dataclass(frozen=True)
class Case:
    """A small random checkpoint: the options that vary, and how its config is spelt."""

    width: int = 16
    head_width: int = 5
    feed_forward: int = 20
    heads: int = 3
    depth: int = 2
    decoder_depth: int = 2
    buckets: int = 8
    max_distance: int = 12
    kind: str = "relu"
    untied: bool = False
    scaled: bool = True
    layout: str = "v4"  # which release of transformers wrote config.json
    repeats: bool = False  # whether the file repeats the tied table under its other names
    model_type: str = "t5"
    epsilon: float = 1e-6
    seed: int = 0

    def config(self) -> dict[str, Any]:
        config = {
            "model_type": self.model_type,
            "architectures": [
                {"t5": "T5", "mt5": "MT5"}[self.model_type] + "ForConditionalGeneration"
            ],
            "vocab_size": VOCABULARY,
            "d_model": self.width,
            "d_kv": self.head_width,
            "d_ff": self.feed_forward,
            "num_heads": self.heads,
            "num_layers": self.depth,
            "num_decoder_layers": self.decoder_depth,
            "feed_forward_proj": self.kind,
            "relative_attention_num_buckets": self.buckets,
            "relative_attention_max_distance": self.max_distance,
            "layer_norm_epsilon": self.epsilon,
            "dropout_rate": 0.1,
            "is_encoder_decoder": True,
            "pad_token_id": PAD,
            "eos_token_id": EOS,
            "decoder_start_token_id": PAD,
        }
        if self.layout == "v4":
            return {**config, "tie_word_embeddings": self.scaled, "torch_dtype": "float32"}
        activation = "gelu_new" if self.kind == "gated-gelu" else self.kind.split("-")[-1]
        return {
            **config,
            "tie_word_embeddings": True,
            "scale_decoder_outputs": self.scaled,
            "dense_act_fn": activation,
            "is_gated_act": self.kind.startswith("gated"),
            "dtype": "float32",
        }

    def write(self, folder: Path) -> None:
        """config.json and a weight file, with activations and logits of the order of one."""
        config = self.config()
        (folder / "config.json").write_text(json.dumps(config))
        reference = T5ForConditionalGeneration(T5Config(**config))
        generator = torch.Generator().manual_seed(self.seed)
        tensors: dict[str, Tensor] = {}
        for name, old in reference.state_dict().items():
            noise = torch.randn(old.shape, generator=generator)
            if "norm" in name:
                tensors[name] = 1 + 0.2 * noise
            elif name.startswith(("shared", "lm_head", "encoder.embed", "decoder.embed")):
                tensors[name] = noise * (1.0 if self.scaled else self.width**-0.5)
            else:
                tensors[name] = noise * (0.5 if "bias" in name else old.shape[-1] ** -0.5)
        for name, other in FAMILY.aliases.items():
            if name == "lm_head.weight" and self.untied:
                continue
            if self.repeats:
                tensors[name] = tensors[other].clone()
            else:
                tensors.pop(name, None)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@st.composite
def cases(draw: st.DrawFn) -> Case:
    buckets = draw(st.integers(2, 8)) * 2
    # mT5 and v1.1 do not scale; v4 reads scaling off the tie flag, so that tied and scaled agree.
    scaled = draw(st.booleans())
    return Case(
        width=draw(st.sampled_from((8, 13, 24))),
        head_width=draw(st.sampled_from((1, 3, 4, 7))),
        feed_forward=draw(st.integers(5, 30)),
        heads=draw(st.integers(1, 4)),
        depth=draw(st.integers(1, 3)),
        decoder_depth=draw(st.integers(1, 3)),
        buckets=buckets,
        max_distance=buckets + draw(st.integers(1, 12)),
        kind=draw(st.sampled_from(("relu", "gated-gelu", "gated-silu", "gelu"))),
        untied=draw(st.booleans()),
        scaled=scaled,
        layout=draw(st.sampled_from(("v4", "v5"))),
        repeats=draw(st.booleans()),
        epsilon=draw(st.sampled_from((1e-6, 1e-2))),
        seed=draw(st.integers(0, 1000)),
    )


@contextmanager
def opened(case: Case):
    """The folder, our bundle and the `transformers` model of one case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case.write(folder)
        yield folder, load(folder), open_theirs(folder)


def open_theirs(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            folder, output_loading_info=True
        )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@dataclass(frozen=True)
class Batch:
    """Source rows padded on one end, target rows with their labels."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    @property
    def decoder_input_ids(self) -> Tensor:
        shifted = torch.cat([torch.full((len(self.labels), 1), PAD), self.labels[:, :-1]], 1)
        return shifted.masked_fill(shifted == -100, PAD)


def padded(lengths: list[int], left: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random ids and their mask."""
    longest = max(lengths)
    ids = torch.randint(2, VOCABULARY, (len(lengths), longest), generator=generator)
    at = torch.arange(longest)[None]
    size = torch.tensor(lengths)[:, None]
    mask = (at >= longest - size) if left else (at < size)
    return ids.masked_fill(~mask, PAD), mask.long()


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    rows = draw(st.integers(1, 3))
    lengths = st.lists(st.integers(1, 40), min_size=rows, max_size=rows)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    ids, mask = padded(draw(lengths), draw(st.booleans()), generator)
    labels, kept = padded(draw(lengths), False, generator)
    return Batch(ids, mask, labels.masked_fill(kept == 0, -100))


SOME = Batch(
    torch.tensor([[5, 6, 7, 8, EOS], [9, 10, EOS, PAD, PAD]]),
    torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    torch.tensor([[4, 3, 2, EOS], [11, EOS, -100, -100]]),
)


def our_logits(bundle: Bundle, batch: Batch) -> Tensor:
    return bundle.model(batch.input_ids, batch.attention_mask, batch.decoder_input_ids).logits


def their_logits(model: Any, batch: Batch) -> Tensor:
    return model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        decoder_input_ids=batch.decoder_input_ids,
    ).logits


def our_tensors(bundle: Bundle) -> dict[str, Tensor]:
    return to_theirs(bundle.family.pairs(bundle.spec), bundle.model.state_dict())


@lean(25)
@given(cases(), batches())
def test_logits_equal_those_of_transformers(case: Case, batch: Batch) -> None:
    with opened(case) as (_, bundle, theirs), torch.no_grad():
        logits = our_logits(bundle, batch)
        assert 0.1 < logits.std() < 10  # the scale at which 1e-5 means something
        torch.testing.assert_close(logits, their_logits(theirs, batch), **CLOSE)


@lean(12)
@given(cases(), batches())
def test_one_token_at_a_time_equals_the_full_pass(case: Case, batch: Batch) -> None:
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        case.write(Path(name))
        model = load(name).model
        keep_BS = batch.attention_mask.bool()
        memory_BSD = model.encode(batch.input_ids, keep_BS)
        ids_BT = batch.decoder_input_ids
        full = model.read("vocabulary", model.decode(ids_BT, memory_BSD, keep_BS))
        cache = model.new_cache(3)  # smaller than needed: it has to grow
        steps = [
            model.read("vocabulary", model.decode(new, memory_BSD, keep_BS, cache=cache))
            for new in ids_BT.split(1, 1)
        ]
        torch.testing.assert_close(torch.cat(steps, 1), full, **CLOSE)
        assert cache.length == ids_BT.shape[1]


@lean(15)
@given(cases(), batches())
def test_gradients_equal_those_of_transformers(case: Case, batch: Batch) -> None:
    """Of the mean cross-entropy per target token, for every parameter."""
    with opened(case) as (_, bundle, theirs):
        loss = F.cross_entropy(our_logits(bundle, batch).flatten(0, 1), batch.labels.flatten())
        loss.backward()
        other = theirs(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
        ).loss
        other.backward()
        torch.testing.assert_close(loss, other, **CLOSE)
        gradients = {name: p.grad for name, p in bundle.model.named_parameters()}
        assert all(gradient is not None for gradient in gradients.values())
        mine = to_theirs(bundle.family.pairs(bundle.spec), gradients)
        wanted = {name: p.grad for name, p in theirs.named_parameters()}
        assert mine.keys() == wanted.keys()
        for name, gradient in wanted.items():
            # Sums in another order differ by a share of the largest gradient.
            largest = max(1.0, float(gradient.abs().max()))
            close = {"rtol": 1e-5, "atol": 1e-5 * largest}
            torch.testing.assert_close(mine[name], gradient, **close, msg=name)


@lean(8)
@given(cases())
def test_a_saved_folder_is_the_same_model_here_and_in_transformers(case: Case) -> None:
    with opened(case) as (folder, bundle, theirs), torch.no_grad():
        assert bundle.tokenizer is None
        bundle.save(folder / "saved")
        again = load(folder / "saved")
        assert again.spec == bundle.spec
        for name, tensor in bundle.model.state_dict().items():
            assert torch.equal(again.model.state_dict()[name], tensor), name
        opened_again = open_theirs(folder / "saved")
        assert type(opened_again) is type(theirs)
        state = opened_again.state_dict()
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(state[name], tensor), name
        assert torch.equal(their_logits(opened_again, SOME), their_logits(theirs, SOME))


@pytest.mark.parametrize("layout", ["v4", "v5"])
@pytest.mark.parametrize("untied", [True, False])
def test_mt5_never_scales_its_outputs(layout: str, untied: bool) -> None:
    case = Case(model_type="mt5", kind="gated-gelu", untied=untied, scaled=False, layout=layout)
    with opened(case) as (folder, bundle, theirs), torch.no_grad():
        wanted = their_logits(theirs, SOME)
        torch.testing.assert_close(our_logits(bundle, SOME), wanted, **CLOSE)
        bundle.save(folder / "saved")
        saved = open_theirs(folder / "saved")
        assert type(saved).__name__ == "MT5ForConditionalGeneration"
        assert torch.equal(their_logits(saved, SOME), wanted)


def test_a_config_of_either_layout_describes_the_same_model() -> None:
    for scaled, kind in ((True, "relu"), (False, "gated-gelu")):
        names = set() if scaled else {"lm_head.weight"}
        of_v4 = model_spec(Case(scaled=scaled, kind=kind, layout="v4").config(), names)
        of_v5 = model_spec(Case(scaled=scaled, kind=kind, layout="v5").config(), names)
        assert of_v4 == of_v5
        assert dict(of_v4.heads)["vocabulary"].tied is scaled


def test_a_saved_config_speaks_to_both_releases() -> None:
    """v4 reads tying and scaling off one flag; v5 keeps that flag true and states the scaling."""
    for scaled, kind in ((True, "relu"), (False, "gated-gelu")):
        for layout in ("v4", "v5"):
            config = Case(scaled=scaled, kind=kind, layout=layout).config()
            names = () if scaled else ("lm_head.weight",)
            saved = FAMILY.saved_config(config, model_spec(config, names))
            assert saved["tie_word_embeddings"] is scaled
            assert saved["scale_decoder_outputs"] is scaled
            assert model_spec(saved, names) == model_spec(config, names)


def test_rows_of_padding_only_give_finite_numbers() -> None:
    with opened(Case()) as (_, bundle, _), torch.no_grad():
        mask = torch.zeros_like(SOME.attention_mask)
        logits = bundle.model(SOME.input_ids, mask, SOME.decoder_input_ids).logits
        assert logits.isfinite().all()


def test_packed_texts_do_not_see_one_another() -> None:
    """Two texts in one row, told apart by segments, give what each gives alone: T5 knows positions
    by their distance only."""
    with opened(Case()) as (_, bundle, _), torch.no_grad():
        model, sources = bundle.model, ([5, 6, 7], [8, 9])
        packed = torch.tensor([[*sources[0], *sources[1]]])
        segment_BS = torch.tensor([[0, 0, 0, 1, 1]])
        together = model.encode(packed, segments=(segment_BS, segment_BS))
        alone = [model.encode(torch.tensor([ids])) for ids in sources]
        torch.testing.assert_close(together, torch.cat(alone, 1), **CLOSE)


def test_an_unknown_activation_is_refused_by_name() -> None:
    with pytest.raises(BadOption, match=r"swish.*activations known here"):
        model_spec(Case(kind="gated-swish").config(), ())


def test_a_cross_attention_bias_of_early_checkpoints_is_ignored() -> None:
    with opened(Case()) as (folder, bundle, _):
        file = folder / "model.safetensors"
        extra = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        save_file({**load_file(file), extra: torch.zeros(8, 3)}, file)
        again = load(folder).model.state_dict()
        assert all(torch.equal(again[name], t) for name, t in bundle.model.state_dict().items())


def test_a_second_table_that_differs_is_not_taken_for_a_repeat() -> None:
    with opened(Case(repeats=True)) as (folder, _, _):
        file = folder / "model.safetensors"
        tensors = load_file(file)
        tensors["encoder.embed_tokens.weight"] += 1
        save_file(tensors, file)
        with pytest.raises(
            BadWeights, match=r"left over +encoder\.embed_tokens\.weight \(37, 16\)"
        ):
            load(folder)


PUBLISHED = {
    # checkpoint: (parameters that its page states, what differs from t5-small's config)
    "google-t5/t5-small": (60_506_624, {}),
    "google-t5/t5-base": (
        222_903_552,
        {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    ),
    "google-t5/t5-large": (
        737_668_096,
        {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16},
    ),
    "google/flan-t5-small": (
        76_961_152,
        {
            "d_ff": 1024,
            "num_layers": 8,
            "num_heads": 6,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
    ),
    "google/flan-t5-base": (
        247_577_856,
        {
            "d_model": 768,
            "num_layers": 12,
            "num_heads": 12,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
    ),
    "google/mt5-small": (
        300_176_768,
        {
            "model_type": "mt5",
            "vocab_size": 250_112,
            "d_ff": 1024,
            "num_layers": 8,
            "num_heads": 6,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_checkpoints_have_the_published_size(name: str) -> None:
    parameters, differences = PUBLISHED[name]
    config = {
        "model_type": "t5",
        "vocab_size": 32128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 6,
        "num_heads": 8,
        **differences,
    }
    untied = config.get("tie_word_embeddings", True) is False
    model = build(model_spec(config, {"lm_head.weight"} if untied else ()))
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("size", ["t5-tiny", "t5-mini", "t5-small", "t5-base", "t5-large"])
def test_sizes_from_scratch_are_whole_configs(size: str) -> None:
    config = {**FAMILY.sizes[size], "vocab_size": 100}
    model = build(model_spec(config, ()))
    theirs = T5Config(**config)
    assert (theirs.d_model, theirs.num_layers) == (config["d_model"], config["num_layers"])
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_unknown_size_offers_the_nearest() -> None:
    with pytest.raises(BadOption, match="did you mean `t5-mini`"):
        new_bundle("t5-mni", None, 0)
