"""ViT, DeiT and YOLOS against `transformers`."""

import pytest
import torch
import transformers
from family_oracle import assert_same, lean, twins
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import BadOption
from mainspring.families.vit import FAMILY, VIT

options = st.fixed_dictionaries(
    {
        "num_hidden_layers": st.sampled_from((2, 3)),
        "hidden_act": st.sampled_from(("gelu", "relu", "gelu_new")),
        "qkv_bias": st.booleans(),
        "num_channels": st.sampled_from((1, 3)),
        "image_size": st.sampled_from(((8, 8), (8, 16))),
        "num_labels": st.sampled_from((2, 4)),
        "layer_norm_eps": st.sampled_from((1e-12, 1e-2)),
    }
)
HEADS = {
    "ViTForImageClassification": ("ViT", "classes", "logits"),
    "ViTModel": ("ViT", "pooled", "pooler_output"),
    "DeiTForImageClassification": ("DeiT", "classes", "logits"),
    "DeiTForImageClassificationWithTeacher": ("DeiT", "averaged_classes", "logits"),
}


def small(stem: str, **more):
    sizes = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 32}
    return getattr(transformers, f"{stem}Config")(patch_size=4, **sizes, **more)


@lean
@given(st.sampled_from(sorted(HEADS)), options, st.sampled_from(("tanh", "relu")), st.booleans())
def test_images_are_read_as_by_transformers(cls, more, pooler, resized):
    stem, head, field = HEADS[cls]
    more["pooler_act"] = pooler
    height, width = more["image_size"]
    resized = resized and height == width  # theirs cannot resize an oblong table of positions
    if resized:
        height, width = height + 8, width + 5
    pixels = torch.randn(2, more["num_channels"], height, width)
    with twins(cls, small(stem, **more)) as pair:
        out = pair.theirs(pixels, interpolate_pos_encoding=resized)
        assert_same(pair.ours(pixel_values=pixels).readings[head], out[field])


@lean
@given(options, st.booleans(), st.booleans())
def test_objects_are_detected_as_by_transformers(more, mid, resized):
    config = small("Yolos", num_detection_tokens=5, use_mid_position_embeddings=mid, **more)
    height, width = more["image_size"]
    if resized:
        height, width = height + 6, width + 8
    pixels = torch.randn(2, more["num_channels"], height, width)
    with twins("YolosForObjectDetection", config) as pair:
        out, ours = pair.theirs(pixels), pair.ours(pixel_values=pixels)
        assert_same(ours.logits, out.logits)
        assert_same(ours.readings["boxes"], out.pred_boxes)


def test_oblong_patches_are_an_error():
    with pytest.raises(BadOption, match="patch_size"):
        FAMILY.spec({**VIT, "patch_size": [4, 8]}, ())
