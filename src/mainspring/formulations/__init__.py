"""Formulations: machinery that tasks share, between the user's fields and the core's tensors.

A `Formulation` says what a model must have, turns rows of values into token ids, token ids into a
batch, a batch into one loss per example, in nats, and inputs into predictions. What a task adds is
vocabulary (see `tasks`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from mainspring import spec
from mainspring.errors import Mismatch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mainspring.checkpoints.bundle import Bundle
    from mainspring.checkpoints.tokenizer import Tokenizer
    from mainspring.core.model import Transformer
    from mainspring.generation.constrained import Constraint
    from mainspring.generation.options import GenerationOptions

IGNORED = -100  # the label that carries no loss

Values = dict[str, Any]
OnLong = Literal["split", "cut", "refuse"]


@dataclass(frozen=True)
class Limits:
    """The longest source and target that are read, in tokens, special tokens included."""

    source: int
    target: int


@dataclass(frozen=True)
class Setup:
    """How a model is taught a task and asked: what a fine-tuned folder remembers.

    `prefix` stands before each input text, `suffix` behind it where a decoder-only model without a
    chat template is to answer. `labels` are the names of the classes, in the order of the head's
    outputs. `options` are the task's own, by name.
    """

    limits: Limits
    prefix: str = ""
    suffix: str = ""
    labels: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inference:
    """How inputs are predicted on. `options` are those of generation (None where nothing is
    generated). `tokens` bounds the source tokens of a batch, padding included; with beams it holds
    for all beams together. `chunk` is how many inputs are held at a time. `prepare(model)` does to
    another model that a formulation opens what was done to the first. `constraint` is what every
    text that is written must fit."""

    options: "GenerationOptions | None" = None
    on_long: OnLong = "split"
    tokens: int = 8192
    chunk: int = 256
    prepare: "Callable[[Transformer], object]" = lambda model: None
    constraint: "Constraint | None" = None


@dataclass(frozen=True)
class EncodedRow:
    """One example as token ids, and how many tokens of it the limits cut off (of targets that are
    not generated: how many the tokens cannot tell exactly).

    `target` may hold `IGNORED`: such places carry no loss. `second` is where the second text of a
    pair begins in `source`; 0 where there is one text only. `weights` are what the losses of the
    targets are multiplied by; none where all count alike. `places` are positions in `source` that
    a head is to read; none where it reads its own. `parts` are the (source, target) tokens of each
    example in it, one after the other; none where it is a single one.
    """

    source: "Sequence[int]"
    target: "Sequence[int]"
    source_lost: int = 0
    target_lost: int = 0
    second: int = 0
    weights: "Sequence[float]" = ()
    places: "Sequence[int]" = ()
    parts: "Sequence[tuple[int, int]]" = ()


@dataclass(frozen=True)
class Prediction:
    """What a model says to one input.

    `value` is the answer in the task's own terms (a text, a label, a list of entities), `details`
    what else is told of it. Where it was generated `stop` says why it ended ("eos", "length",
    "stop") and `tokens` counts what was written. `source_tokens` is what the input has,
    `source_tokens_unread` what of it was cut off, `windows` in how many pieces its `texts` were
    read. `error` is set, and the rest empty, where an input was refused. `counts` are things that
    happened on the way, by name; they are summed up over all inputs and told.
    """

    value: Any
    stop: str = ""
    tokens: int = 0
    source_tokens: int = 0
    source_tokens_unread: int = 0
    windows: int = 1
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    texts: int = 1

    @property
    def is_of_long(self) -> bool:
        """Whether the model could not read an input as a whole."""
        return self.source_tokens_unread > 0 or self.windows > self.texts


@dataclass(frozen=True)
class SpecialIds:
    """The token ids a batch is built with. `start` begins every decoder input; models of one stack
    have none, and encoders need no end of text. `mask` stands for a token that is hidden, and ids
    below `vocabulary` are there to be drawn."""

    pad: int
    eos: int | None = None
    start: int | None = None
    mask: int | None = None
    vocabulary: int = 0


@dataclass(frozen=True)
class Parts:
    """Rows of several examples: the number of the example in its row that each token belongs to,
    below 0 at padding, and the token's position in it."""

    segments_BT: "Tensor"
    at_BT: "Tensor"

    @property
    def begins_BT(self) -> "Tensor":
        """True at the first token of each example."""
        return (self.at_BT == 0) & (self.segments_BT >= 0)

    def to(self, device: "torch.device") -> "Parts":
        return Parts(self.segments_BT.to(device), self.at_BT.to(device))


@dataclass(frozen=True)
class Batch:
    """Tensors of one micro-batch.

    `keep_BS` is False at source padding, None where there is none. `labels_BT` is what is to be
    predicted, `IGNORED` where nothing is; its length and meaning are the formulation's.
    `decoder_ids_BT` is what an encoder-decoder's decoder reads. `types_BS` is 1 in the second text
    of a pair. `target_tokens` counts the labels that carry loss, `weights_BT` are what their losses
    are multiplied by. `places_BP` are the positions that a head reads in place of its own, as many
    in each row. `source_parts` and `target_parts` say which tokens of a row go together; None where
    each row is one example.
    """

    source_BS: "Tensor"
    keep_BS: "Tensor | None"
    labels_BT: "Tensor"
    source_tokens: int
    target_tokens: int
    decoder_ids_BT: "Tensor | None" = None
    types_BS: "Tensor | None" = None
    weights_BT: "Tensor | None" = None
    places_BP: "Tensor | None" = None
    source_parts: Parts | None = None
    target_parts: Parts | None = None

    def to(self, device: "torch.device") -> "Batch":
        """The same batch on another device."""

        def moved(tensor: "Tensor | None") -> "Tensor | None":
            return None if tensor is None else tensor.to(device)

        return replace(
            self,
            source_BS=self.source_BS.to(device),
            keep_BS=moved(self.keep_BS),
            labels_BT=self.labels_BT.to(device),
            decoder_ids_BT=moved(self.decoder_ids_BT),
            types_BS=moved(self.types_BS),
            weights_BT=moved(self.weights_BT),
            places_BP=moved(self.places_BP),
            source_parts=None if self.source_parts is None else self.source_parts.to(device),
            target_parts=None if self.target_parts is None else self.target_parts.to(device),
        )


OnDone = Callable[[int], None]
Predict = Callable[
    ["Bundle", Iterable[Values], Setup, Inference, OnDone, "Callable[[str], None] | None"],
    Iterator[Prediction],
]


def shown_tokens(tokenizer: "Tokenizer", ids: Sequence[int], most: int = 12) -> str:
    """Some ids as text, the middle left out where they are many."""
    if len(ids) <= most:
        return " ".join(tokenizer.tokens(ids))
    left = len(ids) - 2 * (most // 2)
    ends = [tokenizer.tokens(part) for part in (ids[: most // 2], ids[-(most // 2) :])]
    return f"{' '.join(ends[0])} … {left} more … {' '.join(ends[1])}"


def source_and_target(row: EncodedRow, tokenizer: "Tokenizer", setup: Setup) -> str:
    """A row whose source is read and whose target is learnt: `░` are read, `■` carry loss."""
    del setup
    source, target = (shown_tokens(tokenizer, ids) for ids in (row.source, row.target))
    return f"░ {source} ░ → ■ {target} ■"


@dataclass(frozen=True)
class Formulation:
    """One way to pose a task to a model.

    `lacks(model)` says what a model spec is missing for it, or None.
    `encode(rows, tokenizer, setup)` makes training examples; a row may give several, or none.
    `collate(examples, ids, seed, multiple)` makes the batch; `seed` is for formulations that draw
    random numbers (corruption), `multiple` rounds lengths up as the batch plan does.
    `losses(model, batch)` gives the summed loss of each example's labels, in nats (B).
    `lengths(example)` are the tokens of the two sides that are padded apart (0 for none).
    `predict` answers inputs in order, None where the formulation is for training only;
    `on_done(count)` is called as inputs are done, `on_text(piece)` with the text of the only input
    as it is written, for formulations that write.
    `generates` is whether predictions are made by decoding tokens.
    `head` names the head it reads where a model can be given one (see `Family.head`).
    `learn(rows, setup)` completes the setup from the training rows: the labels there are.
    `tokens(setup)` are tokens of its own, which the tokenizer gets where it lacks them.
    `calibrate(bundle, rows, setup, how)` completes the setup from predictions on validation rows,
    before they are scored: a threshold.
    `config_keys` are options of the setup that a checkpoint keeps in its config.json, where
    `transformers` reads them.
    `trains` is False where it is for using models only.
    `lost` is a word and a phrase for what the examples count as lost of their targets.
    `picture` shows an example's tokens with those that carry loss marked.
    `packs` is whether `collate` takes rows of several examples (`formulations.packing`) and
    `losses` gives what all of a row have.
    `holds` is whether each text it writes can be held to a constraint.
    """

    name: str
    lacks: Callable[[spec.Model], str | None]
    encode: "Callable[[Sequence[Values], Tokenizer, Setup], list[EncodedRow]]"
    collate: Callable[[Sequence[EncodedRow], SpecialIds, int, int], Batch]
    losses: "Callable[[Transformer, Batch], Tensor]"
    lengths: Callable[[EncodedRow], tuple[int, int]]
    predict: Predict | None = None
    generates: bool = False
    head: str | None = None
    learn: Callable[[Iterable[Values], Setup], Setup] | None = None
    tokens: Callable[[Setup], Sequence[str]] = lambda setup: ()
    calibrate: "Callable[[Bundle, Sequence[Values], Setup, Inference], Setup] | None" = None
    config_keys: tuple[str, ...] = ()
    trains: bool = True
    lost: tuple[str, str] = ("inexact", "targets begin or end within a token")
    picture: "Callable[[EncodedRow, Tokenizer, Setup], str]" = source_and_target
    packs: bool = False
    holds: bool = False


def posed(
    formulation: Formulation,
    pose: Callable[[Values, Setup], Values],
    read: Callable[[Any, Values, Setup], Any] = lambda answer, values, setup: answer,
) -> Formulation:
    """`formulation` for rows in other terms: `pose` puts a task's values into the formulation's,
    `read` its answers back into the task's."""

    def encode(rows: Sequence[Values], tokenizer: "Tokenizer", setup: Setup) -> list[EncodedRow]:
        return formulation.encode([pose(row, setup) for row in rows], tokenizer, setup)

    def learn(rows: Iterable[Values], setup: Setup) -> Setup:
        assert formulation.learn is not None
        return formulation.learn((pose(row, setup) for row in rows), setup)

    def predict(
        bundle: "Bundle",
        rows: Iterable[Values],
        setup: Setup,
        how: Inference,
        on_done: OnDone = lambda done: None,
        on_text: Callable[[str], None] | None = None,
    ) -> Iterator[Prediction]:
        from itertools import tee

        assert formulation.predict is not None
        asked, kept = tee(rows)
        found = formulation.predict(
            bundle, (pose(row, setup) for row in asked), setup, how, on_done, on_text
        )
        for prediction, row in zip(found, kept, strict=False):
            yield replace(prediction, value=read(prediction.value, row, setup))

    return replace(
        formulation,
        encode=encode,
        learn=None if formulation.learn is None else learn,
        predict=None if formulation.predict is None else predict,
    )


def special_ids(
    tokenizer: "Tokenizer", config: Mapping[str, Any], model: spec.Model | None = None
) -> SpecialIds:
    """The ids a checkpoint's batches are built with, from its config and tokenizer.

    Mismatch where an encoder-decoder (or a `model` that is not told) names no padding or end, or
    the same for both. A decoder-only one may pad with its end token: what follows a text's own end
    is never seen and carries no loss.
    """
    pad = config.get("pad_token_id", tokenizer.pad_id)
    eos = config.get("eos_token_id", tokenizer.eos_id)
    if isinstance(eos, list):
        eos = eos[0]
    if model is not None and model.decoder is None:
        mask, vocabulary = tokenizer.mask_id, tokenizer.vocabulary
        return SpecialIds(0 if pad is None else pad, eos, mask=mask, vocabulary=vocabulary)
    if model is not None and model.encoder is None:
        eos = tokenizer.eos_id if tokenizer.eos_id is not None else eos
        if eos is None:
            raise Mismatch("the checkpoint names no end token (`eos_token_id` in config.json)")
        return SpecialIds(eos if pad is None else pad, eos)
    if pad is None or eos is None:
        raise Mismatch(
            "the checkpoint names no padding or no end token (`pad_token_id`, `eos_token_id` in "
            "config.json); training needs both"
        )
    if pad == eos:
        raise Mismatch(
            f"padding and end of text are the same token ({pad}); a model trained so never learns "
            "to stop. Give the checkpoint a padding token of its own"
        )
    start = config.get("decoder_start_token_id")
    return SpecialIds(pad, eos, pad if start is None else start)
