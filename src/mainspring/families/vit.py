"""Vision Transformers: ViT (Dosovitskiy et al., 2021), DeiT (Touvron et al., 2021) with its
distillation token, and YOLOS (Fang et al., 2021), which detects objects by learned slots.

One encoder of patches with norms before each part; they differ in the tokens around the patches
and in the heads.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from mainspring import spec
from mainspring.errors import BadOption
from mainspring.families import Config, Family
from mainspring.families.heads import Stored, find_heads, saved_config
from mainspring.families.keys import Keys, activation, check_divides, labels, words
from mainspring.families.layout import layer_pairs, module, norm
from mainspring.weights.maps import LeadingAxis, Pair, Stacked

_DEFAULTS: Config = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
}
_POOLER: Config = {"pooler_output_size": None, "pooler_act": "tanh"}
KEYS = Keys(
    defaults={
        "vit": {**_DEFAULTS, **_POOLER},
        "deit": {**_DEFAULTS, **_POOLER},
        "yolos": {
            **_DEFAULTS,
            "image_size": (512, 864),
            "num_detection_tokens": 100,
            "use_mid_position_embeddings": True,
        },
    },
    # Of masked image modelling, and of the loss of detection.
    harmless=words(
        "encoder_stride auxiliary_loss class_cost bbox_cost giou_cost bbox_loss_coefficient "
        "giou_loss_coefficient eos_coefficient"
    ),
)
HEADS = {
    "classes": Stored("classifier.weight", ("ForImageClassification",)),
    "averaged_classes": Stored("cls_classifier.weight", ("ForImageClassificationWithTeacher",)),
    "detected_classes": Stored("class_labels_classifier.layers.0.weight", ("ForObjectDetection",)),
    "boxes": Stored("bbox_predictor.layers.0.weight", ("ForObjectDetection",)),
    "pooled": Stored("pooler.dense.weight", ("Model",)),
}
SLOTS = {"detected_classes": "class_labels_classifier", "boxes": "bbox_predictor"}
LAYER = {
    "self_attention.qkv.q": "attention.attention.query",
    "self_attention.qkv.k": "attention.attention.key",
    "self_attention.qkv.v": "attention.attention.value",
    "self_attention.o": "attention.output.dense",
    "self_residual.norm": "layernorm_before",
    "feed_forward.expand.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
    "feed_residual.norm": "layernorm_after",
}


def head(name: str, config: Config) -> spec.Head:
    """A head as these models have it."""
    c = KEYS.read(config)
    match name:
        case "classes":
            return spec.ClassHead(labels(config))
        case "averaged_classes":
            return spec.AveragedClassHead(labels(config))
        case "detected_classes":  # one class more: nothing there
            return spec.SlotHead(c["num_detection_tokens"], labels(config) + 1)
        case "boxes":
            return spec.SlotHead(c["num_detection_tokens"], 4, sigmoid=True)
        case _:
            if c["pooler_output_size"] not in (None, c["hidden_size"]):
                raise BadOption("config.json: `pooler_output_size` must equal `hidden_size`")
            return spec.EmbeddingHead(hidden=activation(c, "pooler_act"))


def _pair_of(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, list | tuple) else (value, value)


def model_spec(config: Config, names: Collection[str]) -> spec.Model:
    """The spec of a ViT, DeiT or YOLOS `config.json`. `names` are the tensors its files hold."""
    c, kind = KEYS.read(config), config.get("model_type", "vit")
    height, width = _pair_of(c["image_size"])
    patch, other = _pair_of(c["patch_size"])
    if patch != other:
        raise BadOption(f"config.json: `patch_size` {c['patch_size']}: patches must be square")
    embedding = spec.PatchEmbedding(
        patch,
        c["num_channels"],
        height // patch,
        width // patch,
        before=2 if kind == "deit" else 1,
        after=c.get("num_detection_tokens", 0),
        every_layer=c.get("use_mid_position_embeddings", False),
    )
    heads, layer_norm = c["num_attention_heads"], spec.LayerNorm(c["layer_norm_eps"])
    layer = spec.Layer(
        spec.Attention(
            heads,
            heads,
            check_divides(c, "hidden_size", "num_attention_heads"),
            biases="qkvo" if c["qkv_bias"] else "o",
            dropout=c["attention_probs_dropout_prob"],
        ),
        spec.FeedForward(c["intermediate_size"], activation(c, "hidden_act"), bias=True),
        layer_norm,
        dropout=c["hidden_dropout_prob"],
    )
    encoder = spec.Stack(
        c["hidden_size"],
        embedding,
        (layer,) * c["num_hidden_layers"],
        final_norm=layer_norm,
        dropout=c["hidden_dropout_prob"],
    )
    stored = [name.removeprefix("vit.").removeprefix("deit.") for name in names]
    found = find_heads(config, stored, HEADS)
    return spec.Model(encoder, heads=tuple((name, head(name, config)) for name in found))


def pairs(model: spec.Model, prefix: str) -> Iterator[Pair]:
    """Our tensor names beside theirs, which begin with the `prefix`."""
    stack = model.encoder
    assert stack is not None and isinstance(stack.embedding, spec.PatchEmbedding)
    assert stack.final_norm is not None
    ours, theirs = "encoder.embedding", f"{prefix}.embeddings"
    tokens = ["cls_token", "distillation_token"][: stack.embedding.before]
    stored = tuple(f"{theirs}.{token}" for token in tokens)
    yield Pair((f"{ours}.before",), stored, LeadingAxis(len(tokens)))
    if stack.embedding.after:
        yield Pair((f"{ours}.after",), (f"{theirs}.detection_tokens",), LeadingAxis())
    table, stored = f"{ours}.positions.table.weight", (f"{theirs}.position_embeddings",)
    yield Pair((table,), stored, LeadingAxis())
    yield from module(f"{ours}.project", f"{theirs}.patch_embeddings.projection", bias=True)
    yield from norm(stack.final_norm, "encoder.final_norm", f"{prefix}.layernorm")
    for i, layer in enumerate(stack.layers):
        at = f"{prefix}.encoder.layer.{i}"
        yield from layer_pairs(layer, f"encoder.layers.{i}", at, LAYER)
    if stack.embedding.every_layer:
        tables = (f"encoder.layer_positions.{i}.table.weight" for i in range(len(stack.layers) - 1))
        yield Pair(tuple(tables), (f"{prefix}.encoder.mid_position_embeddings",), Stacked())
    for name, kind in model.heads:
        ours = f"heads.{name}"
        match kind:
            case spec.ClassHead():
                yield from module(f"{ours}.out", "classifier", bias=True)
            case spec.AveragedClassHead():
                yield from module(f"{ours}.out.0", "cls_classifier", bias=True)
                yield from module(f"{ours}.out.1", "distillation_classifier", bias=True)
            case spec.SlotHead():
                for i in range(kind.depth - 1):
                    stored_at = f"{SLOTS[name]}.layers.{i}"
                    yield from module(f"{ours}.hidden.{i}.project", stored_at, bias=True)
                last = f"{SLOTS[name]}.layers.{kind.depth - 1}"
                yield from module(f"{ours}.out", last, bias=True)
            case _:
                yield from module(f"{ours}.hidden.project", f"{prefix}.pooler.dense", bias=True)


def renames(prefix: str) -> tuple[tuple[str, str], ...]:
    """For a model stored without a head."""
    return ((r"^(embeddings|encoder|layernorm|pooler)\.", rf"{prefix}.\1."),)


# The modules of ViT and DeiT since transformers 5, as adapters name them.
MODULES = (
    (r"\.encoder\.layer\.", ".layers."),
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.attention\.query\b", ".attention.q_proj"),
    (r"\.attention\.attention\.key\b", ".attention.k_proj"),
    (r"\.attention\.attention\.value\b", ".attention.v_proj"),
    (r"\.attention\.output\.dense\b", ".attention.o_proj"),
    (r"\.intermediate\.dense\b", ".mlp.fc1"),
    (r"\.output\.dense\b", ".mlp.fc2"),
)

EXAMPLE: Config = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "image_size": [12, 8],
    "patch_size": 4,
    "num_labels": 3,
}
VIT: Config = {**EXAMPLE, "model_type": "vit"}
FAMILY = Family(
    name="vit",
    model_types=("vit",),
    architecture="ViTModel",
    spec=model_spec,
    pairs=partial(pairs, prefix="vit"),
    saved_config=saved_config({"vit": "ViT", "deit": "DeiT", "yolos": "Yolos"}, HEADS),
    renames=renames("vit"),
    modules=MODULES,
    head=head,
    examples=(
        {**VIT, "architectures": ["ViTForImageClassification"], "qkv_bias": False},
        {**VIT, "architectures": ["ViTModel"], "image_size": 8, "hidden_act": "gelu_new"},
    ),
)
_DEIT: Config = {**EXAMPLE, "model_type": "deit"}
DEIT = replace(
    FAMILY,
    name="deit",
    model_types=("deit",),
    architecture="DeiTModel",
    pairs=partial(pairs, prefix="deit"),
    renames=renames("deit"),
    examples=(
        {**_DEIT, "architectures": ["DeiTForImageClassification"]},
        {**_DEIT, "architectures": ["DeiTForImageClassificationWithTeacher"]},
    ),
)
_YOLOS: Config = {**EXAMPLE, "model_type": "yolos", "num_detection_tokens": 4}
YOLOS = replace(
    FAMILY,
    name="yolos",
    modules=(),
    model_types=("yolos",),
    architecture="YolosForObjectDetection",
    examples=tuple(
        {
            **_YOLOS,
            "architectures": ["YolosForObjectDetection"],
            "use_mid_position_embeddings": every_layer,
        }
        for every_layer in (True, False)
    ),
)
