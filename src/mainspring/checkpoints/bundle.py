"""A model and all that belongs to it: open a checkpoint, make a new one, generate, save.

folder or hub name ── load ──> Bundle ── save ──> a folder that `transformers` opens
size, tokenizer, seed ── new_bundle ──┘
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mainspring import registry, spec
from mainspring.checkpoints.adapters import is_adapter
from mainspring.checkpoints.card import FILE as CARD_FILE
from mainspring.checkpoints.card import Card, card_text
from mainspring.checkpoints.config import (
    CONFIG,
    GENERATION_CONFIG,
    find_family,
    json_text,
    read_config,
    read_generation,
)
from mainspring.checkpoints.gguf import find_gguf, read_gguf
from mainspring.checkpoints.locate import locate
from mainspring.checkpoints.sentence import read_embedding_head
from mainspring.checkpoints.settle import CARRIED, saving, settle
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.core.init import build
from mainspring.core.model import Transformer
from mainspring.errors import BadOption, BadWeights, Mismatch, Missing
from mainspring.families import Config, Family
from mainspring.weights.files import TensorFiles, weight_files, write_sharded, write_text
from mainspring.weights.maps import is_ignored, to_ours, to_theirs

if TYPE_CHECKING:
    import numpy as np

    from mainspring.checkpoints.speech import Transcript
    from mainspring.generation.constrained import Constraint
    from mainspring.generation.speculative import Draft

SHARD_BYTES = 5_000_000_000


@dataclass
class Bundle:
    """A model with its config, tokenizer and generation settings.

    `config` and `generation` are the JSON files as they were read. `tokenizer` is None where the
    checkpoint has none: ids in, ids out. `extra_files` are carried along when saving.
    """

    model: Transformer
    config: dict[str, Any]
    family: Family
    tokenizer: Tokenizer | None = None
    generation: dict[str, Any] = field(default_factory=dict)
    extra_files: dict[str, bytes] = field(default_factory=dict)

    @property
    def spec(self) -> spec.Model:
        return self.model.spec

    @property
    def hears(self) -> bool:
        """Whether the model reads sound."""
        encoder = self.spec.encoder
        return encoder is not None and isinstance(encoder.embedding, spec.AudioEmbedding)

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        decoder_input_ids: Tensor | None = None,
        constraint: "Constraint | None" = None,
        draft: "Draft | None" = None,
        **options: Any,
    ) -> Tensor:
        """Token ids (rows, length), as `transformers`' `generate` returns them for the same
        arguments: with the decoder's start token, padded on the right.

        A model that hears takes log-mel features (rows, bins, frames) of any length in place of
        ids, and the options of `mainspring.generation.speech` besides; its ids come without the
        prompt and the end token.

        `constraint` is what the output must fit (`mainspring.generation.constrained`), `draft` a
        smaller model that writes ahead (`mainspring.generation.speculative`).
        """
        from mainspring.generation.options import GenerationOptions
        from mainspring.generation.search import generate

        if self.hears:
            from mainspring.generation import speech
            from mainspring.generation.long_form import generate_speech

            if decoder_input_ids is not None or constraint is not None or draft is not None:
                raise BadOption(
                    "a speech model's text takes no `decoder_input_ids`, `constraint` or `draft`"
                )
            settings = speech.merge(self.generation, options)
            return generate_speech(self.model, input_ids, attention_mask, *settings)
        merged = GenerationOptions.merge(self.generation, **options)
        decode = None if self.tokenizer is None else self.tokenizer.decode
        return generate(
            self.model,
            input_ids,
            attention_mask,
            merged,
            decoder_input_ids=decoder_input_ids,
            decode=decode,
            constraint=constraint,
            draft=draft,
        ).sequences

    def transcribe(
        self,
        *audio: "str | Path | np.ndarray | Tensor",
        sampling_rate: int | None = None,
        **options: Any,
    ) -> "list[Transcript]":
        """What is spoken in recordings of any length, with times: files, or samples (T) of one
        channel in -1..1, taken `sampling_rate` times a second (None: as often as the model wants).

        `options` are those of `mainspring.generation.speech` (`language`, `task`, `temperature` …)
        and of `generate`; `return_timestamps=False` leaves times out of recordings that fit into
        one window. Needs `pip install 'mainspring[speech]'` for files and other rates. Mismatch
        where the model does not hear.
        """
        from mainspring.checkpoints.speech import front_end, settings, transcribe
        from mainspring.data.audio import at_rate, read_audio

        rate = front_end(self).rate
        sounds = [
            read_audio(Path(each), rate)
            if isinstance(each, str | Path)
            else at_rate(torch.as_tensor(each).cpu().numpy(), sampling_rate or rate, rate)
            for each in audio
        ]
        return transcribe(self, sounds, settings(self, {"return_timestamps": True, **options}))

    def save(
        self,
        folder: str | Path,
        card: str | None = None,
        *,
        dtype: torch.dtype | None = None,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """Writes the checkpoint into `folder`, whole or not at all.

        Files already there stay until the new ones are complete on the disk. `dtype` converts the
        weights on their way out (None keeps the model's own). `card` is the text of README.md.
        """
        theirs = to_theirs(self.family.pairs(self.spec), self.model.state_dict())
        if dtype is not None:
            theirs = {name: tensor.to(dtype) for name, tensor in theirs.items()}
        config = json_text(self._config(next(iter(theirs.values())).dtype))

        def weights(draft: Path) -> None:
            write_sharded(theirs, draft, shard_bytes)
            write_text(config, draft / CONFIG)

        self.save_with(folder, weights, card)

    def save_with(
        self, folder: str | Path, weights: Callable[[Path], None], card: str | None = None
    ) -> None:
        """Writes what `weights(draft folder)` writes, and with it all that is no weight, into
        `folder`, whole or not at all."""
        with saving(Path(folder)) as draft:
            weights(draft)
            if self.generation:
                write_text(json_text(self.generation), draft / GENERATION_CONFIG)
            if self.tokenizer is not None:
                self.tokenizer.save(draft)
            for name, data in self.extra_files.items():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                (draft / name).write_bytes(data)
            write_text(card or self._plain_card(Path(folder).name), draft / CARD_FILE)

    def save_gguf(self, file: str | Path, kind: str = "q8_0") -> None:
        """Writes the model with its tokenizer into one GGUF file, which llama.cpp opens: `kind` is
        "q8_0" (8 bits a weight), "f16", "bf16" or "f32". Needs `pip install 'mainspring[gguf]'`.

        BadOption or Mismatch where the model or its tokenizer is one that GGUF cannot hold.
        """
        from mainspring.checkpoints.gguf_writing import write_gguf

        write_gguf(self, Path(file), kind)

    def _plain_card(self, name: str) -> str:
        return card_text(Card(name, parameters=sum(p.numel() for p in self.model.parameters())))

    def _config(self, dtype: torch.dtype) -> dict[str, Any]:
        """config.json: as read, with the class to open it with and the type of its numbers."""
        config = {**self.family.saved_config(self.config, self.spec)}
        config.setdefault("architectures", [self.family.architecture])
        # v4 reads `torch_dtype`; v5 reads both names and writes the short one.
        name = str(dtype).removeprefix("torch.")
        config.pop("dtype", None)
        return {**config, "torch_dtype": name}


def load(
    name_or_folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    base: str | Path | None = None,
) -> Bundle:
    """Opens a checkpoint: a local folder, a GGUF file, a hub name such as "google-t5/t5-small", or
    one of the names that `mainspring get` knows.

    An adapter's folder (LoRA, in PEFT's format) gives its base model, which lies where the adapter
    says or at `base`, with the adapter merged into it.

    The weights are float32 whatever the file holds, unless `dtype` is given; the model is in
    evaluation mode. Missing, Refused, BadWeights, BadOption or Mismatch say what is wrong.
    """
    place = locate(name_or_folder)
    if is_adapter(place):
        from mainspring.checkpoints.adapted import load_adapted

        return load_adapted(place, base, dtype)
    file = find_gguf(place)
    wanted = dtype or torch.float32
    return _load_folder(place, wanted) if file is None else _load_gguf(file, wanted)


def _load_folder(folder: Path, dtype: torch.dtype) -> Bundle:
    settle(folder)
    config = read_config(folder)
    family = find_family(config, folder / CONFIG)
    embedding, described = read_embedding_head(folder)
    with TensorFiles(weight_files(folder)) as files:
        stored = {family.canonical(name): files[name] for name in files}
    model, ours = _build_and_map(family, config, stored, folder / CONFIG, embedding)
    del stored  # so that what is read goes as its weight comes
    model.load_state_dict({name: _weight(ours.pop(name), dtype) for name in [*ours]}, assign=True)
    tokenizer = Tokenizer.open(folder)
    _check_rows(tokenizer, model.spec, folder)
    carried = {name: folder / name for name in CARRIED if (folder / name).is_file()}
    carried |= {name: folder / name for name in described}
    return Bundle(
        model.eval(),
        config,
        family,
        tokenizer,
        read_generation(folder, config),
        {name: file.read_bytes() for name, file in carried.items()},
    )


def _load_gguf(file: Path, dtype: torch.dtype) -> Bundle:
    read = read_gguf(file)
    family = find_family(read.config, file)
    # Each tensor gets its type as it is read: no second model in memory.
    theirs = {family.canonical(name): tensor.to(dtype) for name, tensor in read.tensors()}
    model, ours = _build_and_map(family, read.config, theirs, file, None)
    del theirs
    model.load_state_dict({name: _weight(ours.pop(name), dtype) for name in [*ours]}, assign=True)
    _check_rows(read.tokenizer, model.spec, file)
    return Bundle(model.eval(), read.config, family, read.tokenizer, read.generation)


def _weight(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor as a weight: of this type, and no part or turned view of another's memory."""
    made = tensor.to(dtype)
    whole = made.is_contiguous() and made.untyped_storage().nbytes() == made.nbytes
    return made if whole else made.clone(memory_format=torch.contiguous_format)


def _build_and_map(
    family: Family,
    config: Config,
    stored: Mapping[str, Tensor],
    place: Path,
    embedding: spec.EmbeddingHead | None,
) -> tuple[Transformer, dict[str, Tensor]]:
    """The model without weights, and its weights out of those stored."""
    theirs = _without_repeats(stored, family.aliases)
    model = _build(family, config, theirs, place, embedding)
    # A head that is its own by the config may still begin as a copy of the embedding.
    wanted = {name for pair in family.pairs(model.spec) for name in pair.theirs}
    theirs |= {name: tensor for name, tensor in stored.items() if name in wanted - theirs.keys()}
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    source = str(place.parent if place.name == CONFIG else place)
    return model, to_ours(family.pairs(model.spec), theirs, expected, family.ignored, source=source)


def family_of_size(size: str) -> Family:
    """The family that has a model of this size ("t5-mini"); BadOption offers the nearest."""
    families = [registry.find("families", name) for name in registry.names("families")]
    by_size: dict[str, Family] = {size: family for family in families for size in family.sizes}
    if size not in by_size:
        raise BadOption.unknown("size", size, by_size)
    return by_size[size]


def spec_of_size(size: str) -> spec.Model:
    """What a new model of this size has, but for its vocabulary, which comes of a tokenizer."""
    family = family_of_size(size)
    config = {**family.sizes[size], "architectures": [family.architecture], "vocab_size": 64}
    return family.spec(config, ())


def new_bundle(size: str, tokenizer: Tokenizer, seed: int) -> Bundle:
    """A model of one of the families' sizes ("t5-mini") with fresh weights drawn from `seed`."""
    family = family_of_size(size)
    # Matrix kernels like round numbers; the rows past the vocabulary stay unused.
    rows = -(-tokenizer.vocabulary // 64) * 64
    config = {**family.sizes[size], "architectures": [family.architecture], "vocab_size": rows}
    model = build(family.spec(config, ()), seed)
    ids = {"pad": tokenizer.pad_id, "bos": tokenizer.bos_id, "eos": tokenizer.eos_id}
    named: dict[str, Any] = {f"{part}_token_id": i for part, i in ids.items() if i is not None}
    if model.spec.encoder is not None and model.spec.decoder is not None:
        named = {"decoder_start_token_id": tokenizer.pad_id, **named}
    generation = {} if model.spec.decoder is None else dict(named)
    return Bundle(model.eval(), {**config, **named}, family, tokenizer, generation)


def _without_repeats(
    tensors: Mapping[str, Tensor], aliases: Mapping[str, str]
) -> dict[str, Tensor]:
    """The tensors, but those that repeat another bit for bit under one of its known other names."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if aliases.get(name) not in tensors or not _equal(tensor, tensors[aliases[name]])
    }


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def _build(
    family: Family,
    config: Config,
    theirs: Mapping[str, Tensor],
    place: Path,
    embedding: spec.EmbeddingHead | None,
) -> Transformer:
    """The model that the config describes, without weights; a sentence encoder with the head that
    makes the `embedding`."""
    for name, tensor in theirs.items():
        if not tensor.is_floating_point() and not is_ignored(name, family.ignored):
            raise BadWeights(
                f"{place.parent}: tensor `{name}` holds {tensor.dtype}: quantised weights are not "
                "read; use the original checkpoint"
            )
    try:
        described = family.spec(config, theirs.keys())
        if embedding is not None:
            heads = (*described.heads, ("embedding", embedding))
            described = dataclasses.replace(described, heads=heads)
        return build(described)
    except KeyError as error:
        raise Missing(
            f"{place}: no key `{error.args[0]}`, which a {family.name} model needs"
        ) from None
    except (
        *(TypeError, ValueError, AttributeError, IndexError),  # values of kinds that nobody expects
        *(RuntimeError, ZeroDivisionError),
    ) as error:
        raise BadOption(f"{place}: describes no model that can be built ({error})") from error


def _check_rows(tokenizer: Tokenizer | None, model: spec.Model, folder: Path) -> None:
    for stack in (model.encoder, model.decoder):
        if tokenizer is None or stack is None:
            continue
        embedding = stack.embedding
        if (
            isinstance(embedding, spec.TokenEmbedding)
            and tokenizer.vocabulary > embedding.vocabulary
        ):
            raise Mismatch(
                f"{folder}: the tokenizer has ids up to {tokenizer.vocabulary - 1}, and the "
                f"embedding only {embedding.vocabulary} rows; are both from the same checkpoint?"
            )
