"""Sentence encoders: the pooling that the files beside the encoder describe."""

import json

import pytest
import torch
import torch.nn.functional as F
from family_oracle import assert_same, padded_rows

from mainspring import load
from mainspring.errors import BadOption, Missing
from mainspring.families.sentence import embedding_head

ENCODER = {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}


def write(folder, modules: list[dict], pooling: dict) -> None:
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.mark.parametrize("stem", ["Bert", "Roberta", "DistilBert"])
@pytest.mark.parametrize(
    "pooling",
    [
        {"word_embedding_dimension": 24, "pooling_mode_mean_tokens": True},
        {"embedding_dimension": 24, "pooling_mode": "cls", "include_prompt": True},
        {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False},
    ],
)
def test_one_vector_is_made_of_a_text_as_the_files_say(stem, pooling, tmp_path):
    import transformers

    sizes = {"vocab_size": 40, "max_position_embeddings": 20}
    if stem == "DistilBert":
        sizes |= {"dim": 24, "n_heads": 3, "n_layers": 1, "hidden_dim": 32}
    else:
        sizes |= {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 1}
        sizes |= {"intermediate_size": 32}
    config = getattr(transformers, f"{stem}Config")(**sizes)
    theirs = getattr(transformers, f"{stem}Model")(config).eval()
    theirs.save_pretrained(tmp_path / "model")
    write(tmp_path / "model", [ENCODER, POOLING, NORMALIZE], pooling)
    ids, mask = padded_rows(40, 12, config.pad_token_id)
    ids, mask = ids[[0, 2]], mask[[0, 2]]
    bundle = load(tmp_path / "model")
    bundle.save(tmp_path / "again")
    with torch.no_grad():
        x = theirs(ids, attention_mask=mask).last_hidden_state
        share = mask[..., None]
        wanted = {
            "mean": (x * share).sum(1) / share.sum(1),
            "first": x[:, 0],
            "max": x.masked_fill(share == 0, -1e9).amax(1),
        }[dict(bundle.spec.heads)["embedding"].pool]
        for model in (bundle.model, load(tmp_path / "again").model):
            assert_same(model(ids, mask).readings["embedding"], F.normalize(wanted, dim=-1))
    again = tmp_path / "again" / "1_Pooling" / "config.json"
    assert json.loads(again.read_text()) == pooling


@pytest.mark.parametrize(
    ("modules", "pooling", "named"),
    [
        ([ENCODER, POOLING, {"type": "x.Dense"}], {"pooling_mode": "mean"}, "Dense"),
        ([ENCODER, POOLING], {"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len"),
        ([ENCODER, POOLING], {"pooling_mode": "mean", "pooling_mode_cls_token": True}, "cls"),
        ([ENCODER, POOLING], {"pooling_mode": "mean", "include_prompt": False}, "include_prompt"),
        ([ENCODER, POOLING], {"pooling_moed": "mean"}, "pooling_mode"),
        ([ENCODER, POOLING], {}, "no way"),
    ],
)
def test_what_is_not_supported_is_named(modules, pooling, named):
    with pytest.raises(BadOption, match=named):
        embedding_head(modules, pooling)


def test_a_pooling_without_its_file_is_missing(tmp_path):
    from mainspring.checkpoints.sentence import read_embedding_head

    (tmp_path / "modules.json").write_text(json.dumps([ENCODER, POOLING]))
    with pytest.raises(Missing, match="pooling"):
        read_embedding_head(tmp_path)
