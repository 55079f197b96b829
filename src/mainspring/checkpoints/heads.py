"""Giving a model another head: the body of a checkpoint, a fresh head to be taught a task."""

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from mainspring import events, spec
from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.sentence import describes_embedding
from mainspring.core.init import build, initialise
from mainspring.errors import Mismatch

NAMES = ("id2label", "label2id", "num_labels")


def with_head(bundle: Bundle, head: str, labels: Sequence[str], seed: int) -> Bundle:
    """The bundle with the head of that name, for these labels (none: the head needs no names).

    A head that is there and has these labels is kept; any other is replaced by a fresh one, drawn
    from `seed`, and a note says so. Mismatch where the family has no such head.
    """
    named = {str(i): label for i, label in enumerate(labels)}
    config = dict(bundle.config)
    if labels:
        config["id2label"] = named
        config["label2id"] = {label: int(i) for i, label in named.items()}
        config.pop("num_labels", None)
    if head in dict(bundle.spec.heads) and config.get("id2label") == bundle.config.get("id2label"):
        return bundle
    if not labels:  # names of another head's outputs would be taken for this one's
        config = {key: v for key, v in config.items() if key not in NAMES}
    family = bundle.family
    if family.head is None:
        raise Mismatch(f"the family `{family.name}` has no `{head}` head to be given")
    described = dataclasses.replace(bundle.spec, heads=((head, family.head(head, config)),))
    model = build(described)
    model.heads.to_empty(device="cpu")
    initialise(model, seed, "heads.")
    body = {k: v for k, v in bundle.model.state_dict().items() if not k.startswith("heads.")}
    fresh = {k: v for k, v in model.state_dict().items() if k.startswith("heads.")}
    fresh |= _in_common(bundle, described)
    model.load_state_dict({**body, **fresh}, assign=True)
    what = f" of {len(labels)} labels" if labels else ""
    events.note(f"the model gets a fresh `{head}` head{what}")
    # What said that the body makes sentence vectors is true no more.
    extra = {k: v for k, v in bundle.extra_files.items() if not describes_embedding(k)}
    return dataclasses.replace(bundle, model=model.eval(), config=config, extra_files=extra)


def _in_common(bundle: Bundle, model: spec.Model) -> dict[str, Tensor]:
    """The weights of the heads of `model` that a head of the bundle's holds under the name that
    they are stored by: BERT's pooler, which several of its heads read."""
    pairs, weights = bundle.family.pairs, bundle.model.state_dict()
    had = {
        pair.theirs: weights[pair.ours[0]]
        for pair in pairs(bundle.spec)
        if len(pair.ours) == 1 and pair.ours[0].startswith("heads.")
    }
    return {
        pair.ours[0]: had[pair.theirs]
        for pair in pairs(model)
        if pair.theirs in had and ".hidden." in pair.ours[0]
    }
