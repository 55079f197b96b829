"""Small random `transformers` models as the oracle of the families' tests."""

import json
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from hypothesis import settings
from torch import Tensor

from mainspring import registry, spec
from mainspring.core.init import build
from mainspring.core.model import Transformer
from mainspring.families import Config, Family
from mainspring.weights.files import TensorFiles, weight_files, write_tensors
from mainspring.weights.maps import to_ours, to_theirs

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

# Each example builds, saves and opens two models: a few dozen cover the switches of a family.
lean = settings(max_examples=10, deadline=None, derandomize=True, database=None)

# With a matrix of its own a head that tells masked tokens reads the bias beside that.
UNREAD = ("cls.predictions.bias", "lm_head.bias")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@dataclass
class Twins:
    """A model of ours and the `transformers` model that its weights came from."""

    ours: Transformer
    theirs: Any
    config: Config
    family: Family


def shake(model: torch.nn.Module, seed: int = 0) -> None:
    """Random weights that leave nothing at a value which hides a mistake (zero biases, unit
    norms); activations stay of the order of one."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            old = parameter.detach().round()  # a norm's ones, or zeros
            parameter.data = old + 0.2 * noise.clamp(-2, 2)
        elif parameter.requires_grad:
            table = "embed" in name or "wte" in name or "shared" in name
            parameter.data = noise * (0.3 if table else parameter.shape[-1] ** -0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("final_logits_bias"):
            buffer.normal_(generator=generator)


def family_of(model_type: str) -> Family:
    families = (registry.find("families", name) for name in registry.names("families"))
    return next(family for family in families if model_type in family.model_types)


def read_folder(folder: Path) -> tuple[Config, dict[str, Tensor]]:
    config = json.loads((folder / "config.json").read_text())
    with TensorFiles(weight_files(folder)) as files:
        return config, dict(files)


def fill(family: Family, config: Config, stored: dict[str, Tensor]) -> Transformer:
    """Our model of a checkpoint's tensors, every one of them accounted for."""
    whole = {family.canonical(name): tensor for name, tensor in stored.items()}
    assert len(whole) == len(stored)
    tensors = dict(whole)
    for name, other in family.aliases.items():
        if name in tensors and other in tensors and torch.equal(tensors[name], tensors[other]):
            del tensors[name]
    description = family.spec(config, tensors.keys())
    assert spec.from_dict(json.loads(json.dumps(spec.to_dict(description)))) == description
    model = build(description)
    wanted = {name for pair in family.pairs(description) for name in pair.theirs}
    tensors |= {name: tensor for name, tensor in whole.items() if name in wanted}
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    ours = to_ours(family.pairs(description), tensors, expected, family.ignored)
    model.load_state_dict(ours, assign=True)
    return model.eval()


@contextmanager
def twins(cls: str, config: Any, seed: int = 0):
    """A random `transformers` model and ours made of its saved files.

    On leaving, ours is saved back: the same bits come out of the files, and `transformers` opens
    them as a model with the same weights, none missing and none left over.
    """
    theirs = getattr(transformers, cls)._from_config(config, attn_implementation="eager").eval()
    shake(theirs, seed)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second = Path(folder, "first"), Path(folder, "second")
        theirs.save_pretrained(first)
        config, stored = read_folder(first)
        family = family_of(config["model_type"])
        ours = fill(family, config, stored)
        with torch.no_grad():
            yield Twins(ours, theirs, config, family)
        second.mkdir()
        given = to_theirs(family.pairs(ours.spec), ours.state_dict())
        saved = family.saved_config(config, ours.spec)
        assert saved["architectures"] == [cls]
        write_tensors(given, second / "model.safetensors")
        (second / "config.json").write_text(json.dumps(saved))
        again = fill(family, *read_folder(second)).state_dict()
        for name, tensor in ours.state_dict().items():
            assert torch.equal(again[name], tensor), name
        opened, report = getattr(transformers, cls).from_pretrained(
            second, output_loading_info=True
        )
        # Tables of fixed sines are made, not read, where a file has none.
        missing = {name for name in report["missing_keys"] if "embed_positions" not in name}
        assert not missing and not report["unexpected_keys"]
        there = opened.state_dict()
        for name, tensor in theirs.state_dict().items():
            if name in UNREAD and not config.get("tie_word_embeddings", True):
                continue
            positions = "position_embeddings.weight" in name or "embed_positions" in name
            rows = slice(2 if positions else 0, None)  # rows for padding are not kept
            torch.testing.assert_close(there[name][rows], tensor[rows], rtol=0, atol=1e-7, msg=name)


def padded_rows(
    vocabulary: int, length: int, pad: int, *, first: int = 5, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Ids and their mask (4, length): a full row, padding on the left, on the right, and a row
    of nothing but padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(first, vocabulary, (4, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, : length // 3] = 0
    mask[2, -(length // 3) :] = 0
    mask[3] = 0
    return ids.masked_fill(mask == 0, pad), mask


def assert_same(ours: Tensor, theirs: Tensor, mask: Tensor | None = None) -> None:
    """Equal to 1e-5 at all real positions; finite at padding too."""
    assert ours.isfinite().all()
    if mask is not None:
        ours, theirs = ours[mask.bool()], theirs[mask.bool()]
    torch.testing.assert_close(ours, theirs, **CLOSE)


def stepwise(model: Transformer, ids: Tensor, chunks: tuple[int, ...] = (3, 1), **more: Any):
    """A decoder's vocabulary logits, from a few positions at a time through the cache."""
    cache, parts, at = model.new_cache(2), [], 0
    keep = more.pop("keep_BS", None)
    while at < ids.shape[1]:
        end = at + chunks[min(len(parts), len(chunks) - 1)]
        seen = None if keep is None else keep[:, :end]
        x = model.decode(ids[:, at:end], keep_BS=seen, cache=cache, **more)
        parts.append(model.read("vocabulary", x))
        at = end
    return torch.cat(parts, 1)
