"""A text, or a pair of texts, gets a label, or several: one vector is read, each label scored.

    one label        softmax over the labels      loss  - ln p(label)
    several labels   a sigmoid for each label     loss  - ln p(yes or no), for every label

Of others' checkpoints with a single output (rerankers) the score is its sigmoid, and the number
itself where the config's `problem_type` is "regression", as `transformers`' pipelines have it.

The vector is the one that the family's `classes` head reads, the first token's of an encoder and
the last one's of a decoder, or the mean of those at the places that an example names.
Setup.options holds what was learnt of the training rows: `problem_type` in the words of
`transformers`, the `counts` of the labels and the number of `rows`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mainspring import spec
from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.core.model import Transformer
from mainspring.data.windows import text_windows
from mainspring.errors import BadData, BadOption
from mainspring.formulations import (
    IGNORED,
    Batch,
    EncodedRow,
    Formulation,
    Inference,
    OnDone,
    Prediction,
    Setup,
    SpecialIds,
    Values,
    shown_tokens,
)
from mainspring.formulations.inputs import in_batches, in_chunks, kept, padded, too_long
from mainspring.formulations.pairs import has_types, pair_layout
from mainspring.formulations.prediction import tokenizer_of

HEAD = "classes"
ONE, SEVERAL = "single_label_classification", "multi_label_classification"
REGRESSION = "regression"
CONFIG_KEYS = ("problem_type",)
BALANCES = ("none", "inverse", "sqrt")

Shorten = Callable[[list[int], int], list[int]]


def lacks(model: spec.Model) -> str | None:
    stacks = [stack for stack in (model.encoder, model.decoder) if stack is not None]
    if len(stacks) != 1 or not isinstance(stacks[0].embedding, spec.TokenEmbedding):
        return "an encoder alone or a decoder alone, for text"
    return None


# -- labels ----------------------------------------------------------------------------------------


def natural(label: str) -> tuple[bool, float, str]:
    """Sorts numbers by value, before names."""
    try:
        return False, float(label), label
    except ValueError:
        return True, 0.0, label


def learn(rows: Iterable[Values], setup: Setup) -> Setup:
    """The labels of the rows and how often each occurs. The labels a checkpoint has stay as they
    are where no other occurs."""
    counts: Counter[str] = Counter()
    several, total = False, 0
    for row in rows:
        label = row["label"]
        total += 1
        several = several or not isinstance(label, str)
        counts.update([label] if isinstance(label, str) else label)
    if len(counts) < 2:
        raise BadData(
            f"the training rows hold {len(counts)} label{'s' * (len(counts) != 1)}, and there is "
            "nothing to tell apart; at least two are needed"
        )
    labels = tuple(sorted(counts, key=natural))
    if set(labels) <= set(setup.labels):
        labels = setup.labels
    problem = SEVERAL if several else ONE
    learnt = {"problem_type": problem, "counts": dict(counts), "rows": total}
    return replace(setup, labels=labels, options={**setup.options, **learnt})


def has_several(setup: Setup) -> bool:
    return setup.options.get("problem_type") == SEVERAL


def shares_of(logits_BC: Tensor, setup: Setup) -> Tensor:
    """What is said of each label: probabilities, but for a regression."""
    if setup.options.get("problem_type") == REGRESSION:
        return logits_BC
    if has_several(setup) or logits_BC.shape[-1] == 1:
        return logits_BC.sigmoid()
    return logits_BC.softmax(-1)


def label_weights(setup: Setup) -> dict[str, float]:
    """What the loss of each label is multiplied by against imbalance; none where nothing is.

    "inverse" weighs labels by one over how often they occur (King and Zeng, 2001), "sqrt" by the
    square root of that. Over the training rows the weights of single labels are 1 on average. Of
    several labels the yes is weighed, by how many noes there are to it.
    """
    balance = setup.options.get("balance", "none")
    if balance not in BALANCES:
        raise BadOption.unknown("--balance", str(balance), BALANCES)
    counts: Mapping[str, int] = setup.options.get("counts", {})
    if balance == "none" or not counts:
        return {}
    power = 1.0 if balance == "inverse" else 0.5
    rows = setup.options["rows"]
    if has_several(setup):
        return {label: (max(1, rows - n) / n) ** power for label, n in counts.items()}
    raw = {label: (1 / n) ** power for label, n in counts.items()}
    mean = sum(raw[label] * n for label, n in counts.items()) / rows
    return {label: weight / mean for label, weight in raw.items()}


def majority(counts: Mapping[str, int]) -> str | None:
    """The most frequent label, of equals the first by name."""
    return min(counts, key=lambda label: (-counts[label], natural(label)), default=None)


# -- training --------------------------------------------------------------------------------------


def beginning(ids: list[int], room: int) -> list[int]:
    return ids[:room]


def encode(rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup) -> list[EncodedRow]:
    """Examples of rows with a `text`, perhaps a `second` text, and a `label` (a list of them where
    there may be several). What is longer than the limit is cut, of a pair the longer text."""
    return labelled(rows, encode_texts(rows, tokenizer, setup), setup)


def labelled(
    rows: Sequence[Values], examples: Sequence[EncodedRow], setup: Setup
) -> list[EncodedRow]:
    """`examples` with the labels of their rows; a label that is not known carries no loss."""
    number = {label: i for i, label in enumerate(setup.labels)}
    weights = label_weights(setup)
    made = []
    for row, example in zip(rows, examples, strict=True):
        label = row["label"]
        if has_several(setup):
            yes = set(label)
            target = [int(name in yes) for name in setup.labels]
            weighed = [weights.get(name, 1.0) if name in yes else 1.0 for name in setup.labels]
        else:
            target = [number.get(label, IGNORED)]
            weighed = [weights.get(label, 1.0)]
        made.append(replace(example, target=target, weights=weighed if weights else ()))
    return made


def encode_texts(
    rows: Sequence[Values], tokenizer: Tokenizer, setup: Setup, shorten: Shorten = beginning
) -> list[EncodedRow]:
    """The ids of the rows' texts, special tokens around them, without a label. `shorten(ids, room)`
    chooses what is kept of a single text that is too long."""
    limit = setup.limits.source
    texts = tokenizer.encode_many([setup.prefix + row["text"] for row in rows], special=False)
    others = tokenizer.encode_many([row.get("second") or "" for row in rows], special=False)
    pair, (before, after) = pair_layout(tokenizer), tokenizer.frame
    made = []
    for row, text, other in zip(rows, texts, others, strict=True):
        if row.get("second"):
            first, second = _longest_first(text, other, limit - pair.tokens)
            lost = len(text) + len(other) - len(first) - len(second)
            ids, start = pair.joined(first, second)
            made.append(EncodedRow(ids, (), lost, second=start))
        else:
            room = limit - len(before) - len(after)
            read = text if len(text) <= room else shorten(text, room)
            made.append(EncodedRow([*before, *read, *after], (), len(text) - len(read)))
    return made


def _longest_first(a: list[int], b: list[int], room: int) -> tuple[list[int], list[int]]:
    """Two texts within `room` together, the longer one cut until they are equal."""
    keep = max(0, min(len(a), max(room - len(b), room - room // 2)))
    return a[:keep], b[: max(0, room - keep)]


def collate(examples: Sequence[EncodedRow], ids: SpecialIds, seed: int, multiple: int) -> Batch:
    """Pads on the right; labels (B, 1), of several (B, labels) as ones and zeros."""
    del seed  # nothing is drawn here
    inputs = collate_texts(examples, ids.pad, multiple)
    labels_BT = torch.tensor([list(example.target) for example in examples])
    weights_BT = None
    if any(example.weights for example in examples):
        weights_BT = torch.tensor([list(example.weights) for example in examples])
    learnt = int((labels_BT != IGNORED).sum())
    return replace(inputs, labels_BT=labels_BT, weights_BT=weights_BT, target_tokens=learnt)


def collate_texts(examples: Sequence[EncodedRow], pad: int, multiple: int) -> Batch:
    """The batch without labels."""
    sources = [example.source for example in examples]
    source_BS = padded(sources, pad, multiple)
    types_BS = None
    if any(example.second for example in examples):
        types = [[0] * e.second + [1] * (len(e.source) - e.second) for e in examples if e.second]
        rows = iter(types)
        types_BS = padded([next(rows) if e.second else [0] for e in examples], 0, 1)
        types_BS = F.pad(types_BS, (0, source_BS.shape[1] - types_BS.shape[1]))
    places_BP = None
    if examples[0].places:
        places_BP = torch.tensor([list(example.places) for example in examples])
    keep_BS = kept(sources, source_BS.shape[1])
    tokens = sum(map(len, sources))
    labels_BT = source_BS[:, :0]
    return Batch(source_BS, keep_BS, labels_BT, tokens, 0, types_BS=types_BS, places_BP=places_BP)


def class_logits(model: Transformer, batch: Batch) -> Tensor:
    """The score of each label before softmax or sigmoid, float32 (batch, labels).

    Of an encoder the head reads the mean of the vectors at the batch's places, where it has some.
    A decoder's vectors know nothing of what stands behind them: there it reads the last as ever.
    """
    if model.spec.encoder is None:  # what follows a row's end is not seen: no mask is needed
        hidden_BSD = model.decode(batch.source_BS)
        return model.read(HEAD, hidden_BSD, batch.keep_BS).float()
    types_BS = batch.types_BS if has_types(model.spec) else None
    hidden_BSD = model.encode(batch.source_BS, batch.keep_BS, types_BT=types_BS)
    if batch.places_BP is None:
        return model.read(HEAD, hidden_BSD, batch.keep_BS).float()
    at_BPD = batch.places_BP[..., None].expand(-1, -1, hidden_BSD.shape[-1])
    return model.read(HEAD, hidden_BSD.gather(1, at_BPD).mean(1, keepdim=True)).float()


def losses(model: Transformer, batch: Batch) -> Tensor:
    """The summed loss of each example's labels, in nats, weighed where they have weights (B)."""
    logits_BC, labels_BT = class_logits(model, batch), batch.labels_BT
    if labels_BT.shape[1] == 1:
        nats_BT = F.cross_entropy(
            logits_BC, labels_BT[:, 0], ignore_index=IGNORED, reduction="none"
        )[:, None]
    else:
        nats_BT = F.binary_cross_entropy_with_logits(logits_BC, labels_BT.float(), reduction="none")
    if batch.weights_BT is not None:
        nats_BT = nats_BT * batch.weights_BT
    return nats_BT.sum(1)


def lengths(example: EncodedRow) -> tuple[int, int]:
    return len(example.source), 0


def picture(row: EncodedRow, tokenizer: Tokenizer, setup: Setup) -> str:
    """What is read, and the labels that are learnt."""
    if has_several(setup):
        chosen = [name for name, yes in zip(setup.labels, row.target, strict=True) if yes == 1]
    else:
        chosen = [setup.labels[i] for i in row.target if i != IGNORED]
    return f"░ {shown_tokens(tokenizer, row.source)} ░ → ■ {' '.join(chosen) or 'none'} ■"


# -- prediction ------------------------------------------------------------------------------------


@dataclass
class Reading:
    """How one input is read: in windows, or not at all. `scores` are filled in for each window."""

    windows: list[EncodedRow]
    tokens: int
    unread: int = 0
    error: str | None = None
    scores: list[Tensor] = field(default_factory=list)


Read = Callable[[Sequence[Values]], list[Reading]]


def predict(
    bundle: Bundle,
    rows: Iterable[Values],
    setup: Setup,
    how: Inference,
    on_done: OnDone = lambda done: None,
    on_text: Callable[[str], None] | None = None,
) -> Iterator[Prediction]:
    """The label of each row (the labels, where there may be several) with the scores of all.

    The scores of a text longer than the limit are the mean over its windows; of a pair that is too
    long the longer text is cut.
    """
    del on_text  # nothing is written
    tokenizer = tokenizer_of(bundle)

    def read(chunk: Sequence[Values]) -> list[Reading]:
        return [
            _reading(row, example, tokenizer, setup, how)
            for row, example in zip(chunk, encode_texts(chunk, tokenizer, setup), strict=True)
        ]

    for reading in score(bundle, rows, setup, how, on_done, read):
        yield prediction(reading, setup)


def _reading(
    row: Values, example: EncodedRow, tokenizer: Tokenizer, setup: Setup, how: Inference
) -> Reading:
    tokens = len(example.source) + example.source_lost
    limit = setup.limits.source
    if not example.source_lost:
        return Reading([example], tokens)
    if how.on_long == "refuse":
        return Reading([], tokens, tokens, too_long(tokens, limit))
    if how.on_long == "cut" or row.get("second"):
        return Reading([example], tokens, example.source_lost)
    room = limit - sum(map(len, tokenizer.frame))
    text = setup.prefix + row["text"]

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer.encode_many(texts, special=False)]

    spans = text_windows(text, count, room)
    parts = [{"text": text[start:end]} for start, end in spans]
    return Reading(encode_texts(parts, tokenizer, replace(setup, prefix="")), tokens)


def score(
    bundle: Bundle,
    rows: Iterable[Values],
    setup: Setup,
    how: Inference,
    on_done: OnDone,
    read: Read,
) -> Iterator[Reading]:
    """The readings of rows, in order, with the probabilities of the labels for each window.
    Windows of like length go together."""
    pad = tokenizer_of(bundle).pad_id or 0
    device = next(bundle.model.parameters()).device
    done = 0
    for chunk in in_chunks(rows, how.chunk):
        readings = read(chunk)
        places = [(reading, window) for reading in readings for window in reading.windows]
        found: dict[int, Tensor] = {}
        for batch in in_batches(places, lambda place: len(place[1].source), how.tokens):
            inputs = collate_texts([window for _, window in batch], pad, 1).to(device)
            with torch.inference_mode():
                logits_BC = class_logits(bundle.model, inputs)
                shares = shares_of(logits_BC, setup)
            for (_, window), share in zip(batch, shares.cpu(), strict=True):
                found[id(window)] = share
        for reading in readings:
            reading.scores = [found[id(window)] for window in reading.windows]
        done += len(chunk)
        on_done(done)
        yield from readings


def prediction(reading: Reading, setup: Setup) -> Prediction:
    """What is said of one input."""
    found = Prediction(
        [] if has_several(setup) else "",
        source_tokens=reading.tokens,
        source_tokens_unread=reading.unread,
        windows=len(reading.windows),
        error=reading.error,
    )
    if reading.error is not None:
        return found
    mean = torch.stack(reading.scores).mean(0)
    scores = dict(zip(setup.labels, mean.tolist(), strict=True))
    ranked = {name: round(scores[name], 6) for name in sorted(scores, key=lambda n: -scores[n])}
    if has_several(setup):
        threshold = setup.options.get("threshold", 0.5)
        chosen = [name for name in ranked if scores[name] >= threshold]
        return replace(found, value=chosen, details={"scores": ranked})
    best = next(iter(ranked))
    return replace(found, value=best, details={"score": ranked[best], "scores": ranked})


FORMULATION = Formulation(
    "classification",
    lacks,
    encode,
    collate,
    losses,
    lengths,
    predict,
    head=HEAD,
    learn=learn,
    config_keys=CONFIG_KEYS,
    picture=picture,
)
