"""The whole model: an optional encoder, an optional decoder, named heads."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from mainspring import spec
from mainspring.core.cache import Cache
from mainspring.core.heads import build_head
from mainspring.core.positions import check_length
from mainspring.core.stack import Stack


@dataclass(frozen=True)
class Output:
    """What a model's forward pass gives.

    `readings` holds what every head made of the last hidden states, by the heads' names; `logits`
    are those of the vocabulary, or else of the first head (None where nothing but an embedding is
    read). An object detector's boxes are `readings["boxes"]`.
    """

    logits: Tensor | None
    last_hidden_state: Tensor
    encoder_last_hidden_state: Tensor | None = None
    readings: Mapping[str, Tensor] = field(default_factory=dict)


class Transformer(nn.Module):
    """Owns every token table once; stacks and heads borrow them when called."""

    def __init__(self, model: spec.Model):
        super().__init__()
        self.spec = model
        self.tables = nn.ModuleDict()
        for stack in (model.encoder, model.decoder):
            if stack is not None and isinstance(stack.embedding, spec.TokenEmbedding):
                name, rows = stack.embedding.table, stack.embedding.vocabulary
                if name not in self.tables:
                    self.tables[name] = nn.Embedding(rows, stack.width)
        self.encoder = Stack(model.encoder) if model.encoder else None
        self.decoder = Stack(model.decoder) if model.decoder else None
        last = model.decoder or model.encoder
        assert last is not None
        self.heads = nn.ModuleDict({name: build_head(h, last.width) for name, h in model.heads})
        logits = [name for name, h in model.heads if not isinstance(h, spec.EmbeddingHead)]
        self.logits_of = "vocabulary" if "vocabulary" in logits else next(iter(logits), None)

    def table(self, stack: spec.Stack | None) -> nn.Embedding | None:
        """The token table that a stack borrows."""
        if stack is None or not isinstance(stack.embedding, spec.TokenEmbedding):
            return None
        table = self.tables[stack.embedding.table]
        assert isinstance(table, nn.Embedding)
        return table

    def encode(
        self,
        inputs: Tensor,
        keep_BS: Tensor | None = None,
        at_BT: Tensor | None = None,
        segments: tuple[Tensor, Tensor] | None = None,
        types_BT: Tensor | None = None,
    ) -> Tensor:
        """The encoder's hidden states BSD. `keep_BS` is False at padding. Mismatch where a text is
        longer than the model has positions.

        `inputs` are token ids BS, pixels (batch, channels, height, width) or log-mel frames
        (batch, bins, frames), as the encoder's embedding has it.
        """
        assert self.encoder is not None and self.spec.encoder is not None
        table = self.table(self.spec.encoder)
        if table is not None:
            check_length(self.spec.encoder.positions, 0, inputs.shape[1], keep_BS, at_BT)
        return self.encoder(
            inputs, table, keep_BS, at_BT=at_BT, segments=segments, types_BT=types_BT
        )

    def decode(
        self,
        ids_BT: Tensor,
        memory_BSD: Tensor | None = None,
        memory_keep_BS: Tensor | None = None,
        keep_BS: Tensor | None = None,
        cache: Cache | None = None,
        at_BT: Tensor | None = None,
        segments: tuple[Tensor, Tensor] | None = None,
        memory_segments: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The decoder's hidden states BTD. With a `cache`, `ids_BT` are only the new tokens.
        Mismatch where a text is longer than the model has positions."""
        assert self.decoder is not None and self.spec.decoder is not None
        start = 0 if cache is None else cache.length
        check_length(self.spec.decoder.positions, start, ids_BT.shape[1], keep_BS, at_BT)
        return self.decoder(
            ids_BT,
            self.table(self.spec.decoder),
            keep_BS,
            memory_BSD,
            memory_keep_BS,
            cache,
            at_BT,
            segments,
            memory_segments,
        )

    def read(self, head: str, x_BTD: Tensor, keep_BT: Tensor | None = None) -> Tensor:
        """What the named head makes of hidden states; `keep_BT` tells a pooling one the padding."""
        return self.heads[head](x_BTD, self.table(self.spec.decoder or self.spec.encoder), keep_BT)

    def new_cache(self, capacity: int) -> Cache:
        """An empty cache for `capacity` decoder positions."""
        assert self.decoder is not None
        return self.decoder.new_cache(capacity)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        input_features: Tensor | None = None,
    ) -> Output:
        """One full pass, in the ecosystem's names.

        Masks are 1 (or True) at real tokens, 0 at padding. With an encoder and a decoder the
        first two arguments are the source; with one stack they are its own. An image or sound
        takes the place of `input_ids` as `pixel_values` or `input_features`.
        """
        given = [x for x in (input_ids, pixel_values, input_features) if x is not None]
        if len(given) != 1:
            raise TypeError("give one of `input_ids`, `pixel_values` and `input_features`")
        inputs = given[0]
        keep_BT = keep_BS = None if attention_mask is None else attention_mask.bool()
        memory_BSD = None
        if self.encoder is None:
            x_BTD = self.decode(inputs, keep_BS=keep_BS, at_BT=position_ids)
        elif self.decoder is None:
            x_BTD = self.encode(inputs, keep_BS, position_ids, types_BT=token_type_ids)
        else:
            if decoder_input_ids is None:
                raise TypeError("an encoder-decoder needs `decoder_input_ids`")
            memory_BSD = self.encode(inputs, keep_BS, position_ids)
            keep_BT = None if decoder_attention_mask is None else decoder_attention_mask.bool()
            x_BTD = self.decode(decoder_input_ids, memory_BSD, keep_BS, keep_BT)
        readings = {name: self.read(name, x_BTD, keep_BT) for name in self.heads}
        logits = None if self.logits_of is None else readings[self.logits_of]
        return Output(logits, x_BTD, memory_BSD, readings)
