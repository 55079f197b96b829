"""Which heads a checkpoint holds, and the `transformers` class that goes with them."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from mainspring import spec
from mainspring.errors import BadOption
from mainspring.families import Config
from mainspring.families.keys import labels
from mainspring.weights.maps import Pair, Repeated, same


@dataclass(frozen=True)
class Stored:
    """How a head is stored: a tensor that tells it is there (`unless` there is that other one),
    and the ends of the names of the classes that have it, the plainest first."""

    marker: str
    classes: tuple[str, ...]
    unless: str | None = None


def _claims(config: Config, stored: Stored) -> bool:
    architecture = (config.get("architectures") or ("",))[0]
    return bool(architecture.endswith(stored.classes))


def masked_tie(c: Config, names: Collection[str], matrix: str) -> bool:
    """Whether the head that tells masked tokens borrows the token table: its `matrix` is not
    stored, and the config does not say that there is one."""
    return bool(c["tie_word_embeddings"]) and matrix not in names


def masked_pairs(kind: spec.VocabularyHead, matrix: str, bias: str) -> Iterator[Pair]:
    """Pairs of the logits of a head that tells masked tokens. Where its matrix is its own, so is
    the bias beside it; the one that goes with a tied matrix is stored all the same, and unread."""
    ours = "heads.vocabulary"
    if kind.tied:
        yield same(f"{ours}.bias", bias)
    else:
        yield same(f"{ours}.out.weight", f"{matrix}.weight")
        yield Pair((f"{ours}.bias",), (f"{matrix}.bias", bias), Repeated())


def find_heads(config: Config, names: Collection[str], table: Mapping[str, Stored]) -> list[str]:
    """The names of the heads that a checkpoint holds.

    Its tensors decide; where they could be those of two heads, the class it was saved from; the
    class alone where there are no tensors yet.
    """
    if not names:
        return [head for head, stored in table.items() if _claims(config, stored)]
    found = [head for head, s in table.items() if s.marker in names and s.unless not in names]
    markers = [table[head].marker for head in found]
    return [
        head
        for head in found
        if markers.count(table[head].marker) == 1 or _claims(config, table[head])
    ]


# The heads of decoders, under the names that most share.
CAUSAL = {
    "vocabulary": Stored("lm_head.weight", ("ForCausalLM", "LMHeadModel")),
    "classes": Stored("score.weight", ("ForSequenceClassification",)),
}
NOT_HERE = ("ForTokenClassification", "ForQuestionAnswering")  # heads that decoders have elsewhere


def causal_heads(
    config: Config, names: Collection[str], vocabulary: spec.VocabularyHead
) -> tuple[tuple[str, spec.Head], ...]:
    """The one head of a decoder: classes, read at the last token, where the checkpoint has them,
    else the `vocabulary`, which a file need not mention: a tied one has no tensor of its own. None
    where it would have one, and the checkpoint is of a class that saves the layers alone.

    BadOption for the classes of heads that no decoder has here.
    """
    architecture = (config.get("architectures") or ("",))[0]
    if architecture.endswith(NOT_HERE):
        raise BadOption(
            f"config.json: the head of a {architecture} is not supported; decoders have "
            "one that writes (ForCausalLM) or one of classes (ForSequenceClassification)"
        )
    if "classes" in find_heads(config, names, CAUSAL):
        return (("classes", causal_classes(config)),)
    stored = CAUSAL["vocabulary"]
    owned = stored.marker in names
    bare = config.get("architectures") and not _claims(config, stored)
    if names and bare and not (owned or vocabulary.tied):
        return ()
    tied = vocabulary.tied and not owned
    return (("vocabulary", replace(vocabulary, tied=tied)),)


def causal_classes(config: Config) -> spec.ClassHead:
    return spec.ClassHead(labels(config), pool="last", bias=False)


def causal_pairs(model: spec.Model) -> Iterator[Pair]:
    """Pairs of the matrix that a decoder's head owns, where it owns one."""
    for name, kind in model.heads:
        tied = isinstance(kind, spec.VocabularyHead) and kind.tied
        if name in CAUSAL and not tied:
            yield same(f"heads.{name}.out.weight", CAUSAL[name].marker)


def saved_config(
    stems: Mapping[str, str], table: Mapping[str, Stored]
) -> Callable[[Config, spec.Model], Config]:
    """A `Family.saved_config` that names the class for the model's first head.

    `stems` are the beginnings of the class names by model type ("bert": "Bert").
    """

    def named(config: Config, model: spec.Model) -> Config:
        first = table.get(model.heads[0][0]) if model.heads else None
        if first is not None and _claims(config, first):
            return config
        end = "Model" if first is None else first.classes[0]
        return {**config, "architectures": [stems[config["model_type"]] + end]}

    return named
