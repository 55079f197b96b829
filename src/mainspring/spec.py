"""What a model is, as plain data: frozen records, no computation, standard library only.

A choice is a union of small records (kinds), never a bag of flags: `Positions`, `Mask`, `Norm`,
`Embedding` and `Head` below. The core turns each kind into a module once, at construction.

A `Model` is an optional encoder `Stack`, an optional decoder `Stack` and named heads:

    BERT, ViT         encoder                   + head
    GPT-2, Llama      decoder                   + vocabulary head
    T5, BART, Whisper encoder + decoder (cross) + vocabulary head

`to_dict` and `from_dict` turn a spec into JSON-ready data and back.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

# -- norms -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerNorm:
    """Subtract the mean, divide by the deviation, scale and shift (Ba et al., 2016)."""

    epsilon: float = 1e-5


@dataclass(frozen=True)
class RMSNorm:
    """Divide by the root mean square and scale; no mean, no shift (Zhang and Sennrich, 2019)."""

    epsilon: float = 1e-6


Norm = LayerNorm | RMSNorm

# -- positions: added to the vectors, turning queries and keys, or biasing the scores ----------


@dataclass(frozen=True)
class Learned:
    """One learned vector per position, added to the embeddings (Gehring et al., 2017).

    `skips_padding` counts positions over the real tokens only (RoBERTa).
    """

    length: int
    skips_padding: bool = False


@dataclass(frozen=True)
class Sinusoidal:
    """Fixed sines and cosines added to the embeddings (Vaswani et al., 2017, section 3.5).

    Positions count from `first`, over the real tokens only where `skips_padding`. Wavelengths grow
    geometrically from 2 pi towards 10,000 * 2 pi; `closed` reaches that end (tensor2tensor). Texts
    beyond `length` are refused unless the model `extends` to them (M2M100).
    """

    length: int
    skips_padding: bool = False
    first: int = 0
    closed: bool = False
    extends: bool = False


@dataclass(frozen=True)
class RelativeBias:
    """A learned bias per head and bucketed distance, added to the scores (T5, section 2.1).

    Half of the buckets are exact distances, the rest grow logarithmically up to `max_distance`;
    in a stack that looks both ways half of all buckets serve each direction.
    """

    buckets: int = 32
    max_distance: int = 128


@dataclass(frozen=True)
class LinearScaling:
    """All rotary angles divided by `factor` (Chen et al., 2023)."""

    factor: float


@dataclass(frozen=True)
class BandedScaling:
    """Slow rotary angles divided by `factor`, fast ones kept, a mix between (Dubey et al., 2024).

    Slow turns less than `low` times within `length` positions, fast more than `high` times; in
    between the two are mixed.
    """

    factor: float
    low: float
    high: float
    length: int


@dataclass(frozen=True)
class YarnScaling:
    """Slow rotary angles divided by `factor`, fast ones kept (YaRN, Peng et al., 2024).

    The mix runs along the channels, from the one that turns `fast` times within `length` positions
    to the one that turns `slow` times (whole channels where `whole`). `magnitude` multiplies the
    cosines and sines.
    """

    factor: float
    length: int
    magnitude: float
    fast: float = 32.0
    slow: float = 1.0
    whole: bool = True


RotaryScaling = LinearScaling | BandedScaling | YarnScaling


@dataclass(frozen=True)
class Rotary:
    """Rotates pairs of query and key channels by an angle per position (Su et al., 2021)."""

    theta: float = 10_000.0
    scaling: RotaryScaling | None = None


StackPositions = Learned | Sinusoidal | RelativeBias

# -- masks: who may look where -----------------------------------------------------------------


@dataclass(frozen=True)
class FullMask:
    """Every query sees every key."""


@dataclass(frozen=True)
class CausalMask:
    """A query sees its own position and earlier ones."""


@dataclass(frozen=True)
class SlidingWindow:
    """Causal, and no further back than `size` positions, the query's own included."""

    size: int


Mask = FullMask | CausalMask | SlidingWindow

# -- the parts of a layer ----------------------------------------------------------------------

Activation = Literal["relu", "gelu", "gelu_tanh", "gelu_sigmoid", "silu", "tanh"]


@dataclass(frozen=True)
class Attention:
    """Multi-head attention; fewer key/value heads where they are shared (Ainslie et al., 2023).

    `biases` names the projections that carry a bias, as letters out of "qkvo".
    `scale` multiplies the scores; None means `head_width ** -0.5`. `soft_cap` then holds them
    within -soft_cap..soft_cap by a tanh (Gemma 2, 2024). `query_key_norm` normalises each head's
    queries and keys (Henry et al., 2020). `dropout` falls on the attention weights. All dropouts
    are shares in 0..1.
    """

    heads: int
    key_value_heads: int
    head_width: int
    biases: str = ""
    scale: float | None = None
    rotary: Rotary | None = None
    dropout: float = 0.0
    soft_cap: float | None = None
    query_key_norm: Norm | None = None


@dataclass(frozen=True)
class FeedForward:
    """Two projections with an activation between; `gated` multiplies by a third (Shazeer, 2020).

    `dropout` falls on the wide hidden values.
    """

    width: int
    activation: Activation
    gated: bool = False
    bias: bool = False
    dropout: float = 0.0


@dataclass(frozen=True)
class Layer:
    """Self-attention, optional cross-attention, feed-forward; each a residual step.

    `norm_placement`: "pre" normalises the input of each step, "post" the sum after it, "sandwich"
    the input of each step and what the step adds.
    `dropout` falls on what each step adds to the residual stream.
    """

    attention: Attention
    feed_forward: FeedForward
    norm: Norm
    cross_attention: Attention | None = None
    norm_placement: Literal["pre", "post", "sandwich"] = "pre"
    mask: Mask = FullMask()
    dropout: float = 0.0


# -- embeddings: what becomes vectors ----------------------------------------------------------


@dataclass(frozen=True)
class TokenEmbedding:
    """Rows of a table looked up by token id, times `scale`.

    Stacks that name the same `table` share it; the model owns it once. `types` is the number of
    token types (BERT's segments), each a vector that is added too.
    """

    vocabulary: int
    scale: float = 1.0
    table: str = "tokens"
    types: int = 0


@dataclass(frozen=True)
class PatchEmbedding:
    """Square patches of an image, each projected to a vector (Dosovitskiy et al., 2021).

    `patch` is the side in pixels; `rows` and `columns` count the patches of an image of the size
    that the learned positions are for (others get resized positions). `before` and `after` count
    the learned tokens placed around the patches. `every_layer` adds positions, of its own each
    time, after all layers but the last too (YOLOS, Fang et al., 2021).
    """

    patch: int
    channels: int
    rows: int
    columns: int
    before: int = 1
    after: int = 0
    every_layer: bool = False


@dataclass(frozen=True)
class AudioEmbedding:
    """Two convolutions over log-mel frames, the second of stride 2 (Radford et al., 2022)."""

    bins: int


Embedding = TokenEmbedding | PatchEmbedding | AudioEmbedding

# -- heads: what is read out -------------------------------------------------------------------


@dataclass(frozen=True)
class VocabularyHead:
    """Logits over the vocabulary. `tied` borrows the token table and owns no matrix.

    `scale` multiplies the hidden states first (T5 v1.0 uses `width ** -0.5`). `hidden` puts a
    layer of that activation, and its norm, before the logits (BERT). `soft_cap` holds the logits
    within -soft_cap..soft_cap by a tanh.
    """

    vocabulary: int
    tied: bool = True
    scale: float = 1.0
    bias: bool = False
    hidden: Activation | None = None
    hidden_norm: Norm | None = None
    soft_cap: float | None = None


Pool = Literal["first", "last", "mean", "max"]


@dataclass(frozen=True)
class ClassHead:
    """Logits of `classes` for the whole sequence, read from one `pool`ed vector.

    `hidden` puts a layer of that activation before them; `dropout` falls on their input.
    """

    classes: int
    pool: Pool = "first"
    hidden: Activation | None = None
    bias: bool = True
    dropout: float = 0.0


@dataclass(frozen=True)
class AveragedClassHead:
    """Logits of `classes`, one projection for each of the first `tokens` positions, averaged
    (the class and distillation tokens of Touvron et al., 2021)."""

    classes: int
    tokens: int = 2


@dataclass(frozen=True)
class TokenClassHead:
    """Logits of `classes` for every position; two of them are the start and end of a span."""

    classes: int
    dropout: float = 0.0


@dataclass(frozen=True)
class SlotHead:
    """`outputs` numbers for each of the last `slots` positions, by `depth` layers (ReLU between);
    `sigmoid` brings them into 0..1 (object detection, Carion et al., 2020)."""

    slots: int
    outputs: int
    depth: int = 3
    sigmoid: bool = False


@dataclass(frozen=True)
class EmbeddingHead:
    """One vector for the whole sequence. `hidden` puts a layer of that activation after the pool;
    `normalised` brings it to length 1 (Reimers and Gurevych, 2019)."""

    pool: Pool = "first"
    hidden: Activation | None = None
    normalised: bool = False


Head = VocabularyHead | ClassHead | AveragedClassHead | TokenClassHead | SlotHead | EmbeddingHead

# -- assembly ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stack:
    """Embedding, positions, a norm of their sum, layers, a last norm.

    `dropout` falls on the embeddings, `final_dropout` on the output.
    """

    width: int
    embedding: Embedding
    layers: tuple[Layer, ...]
    positions: StackPositions | None = None
    final_norm: Norm | None = None
    dropout: float = 0.0
    final_dropout: float = 0.0
    embedding_norm: Norm | None = None


@dataclass(frozen=True)
class Model:
    """A whole model. The heads read the decoder's output, or the encoder's where there is none."""

    encoder: Stack | None = None
    decoder: Stack | None = None
    heads: tuple[tuple[str, Head], ...] = ()

    def __post_init__(self) -> None:
        if self.encoder is None and self.decoder is None:
            raise ValueError("a model needs an encoder, a decoder or both")
        crosses = self.decoder is not None and any(
            layer.cross_attention is not None for layer in self.decoder.layers
        )
        if crosses and self.encoder is None:
            raise ValueError("the decoder has cross-attention but the model has no encoder")

    @property
    def vocabulary_head(self) -> VocabularyHead | None:
        """The first head that gives logits over the vocabulary."""
        return next((head for _, head in self.heads if isinstance(head, VocabularyHead)), None)


# -- to and from JSON --------------------------------------------------------------------------

_KINDS = {
    kind.__name__: kind
    for kind in (
        LayerNorm,
        RMSNorm,
        Learned,
        Sinusoidal,
        RelativeBias,
        LinearScaling,
        BandedScaling,
        YarnScaling,
        Rotary,
        FullMask,
        CausalMask,
        SlidingWindow,
        Attention,
        FeedForward,
        Layer,
        TokenEmbedding,
        PatchEmbedding,
        AudioEmbedding,
        VocabularyHead,
        ClassHead,
        AveragedClassHead,
        TokenClassHead,
        SlotHead,
        EmbeddingHead,
        Stack,
        Model,
    )
}


def to_dict(record: Any) -> Any:
    """JSON-ready data; each record carries its kind under "kind"."""
    if dataclasses.is_dataclass(record):
        fields = {f.name: to_dict(getattr(record, f.name)) for f in dataclasses.fields(record)}
        return {"kind": type(record).__name__, **fields}
    return [to_dict(item) for item in record] if isinstance(record, tuple) else record


def from_dict(data: Any) -> Any:
    """The record that `to_dict` wrote. ValueError names an unknown kind or field."""
    if isinstance(data, list):
        return tuple(from_dict(item) for item in data)
    if not isinstance(data, dict):
        return data
    name = data.get("kind")
    if name not in _KINDS:
        raise ValueError(f"unknown kind {name!r} in a model spec")
    kind = _KINDS[name]
    unknown = data.keys() - get_type_hints(kind).keys() - {"kind"}
    if unknown:
        raise ValueError(f"{name} has no field {', '.join(sorted(unknown))}")
    return kind(**{key: from_dict(value) for key, value in data.items() if key != "kind"})
