"""Checkpoints opened, saved, opened again: here and in `transformers`."""

import fcntl
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

import mainspring
from mainspring.checkpoints.bundle import Bundle, load, new_bundle
from mainspring.checkpoints.settle import MANIFEST, READY, settle
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.errors import BadOption

SOURCE = torch.tensor([[5, 6, 7, 1], [9, 1, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def same_weights(first: Bundle, second: Bundle) -> bool:
    one, two = first.model.state_dict(), second.model.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def theirs(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForSeq2SeqLM.from_pretrained(folder).eval()


def test_load_gives_back_what_save_was_given(bundle: Bundle, folder: Path) -> None:
    again = mainspring.load(str(folder))
    assert same_weights(bundle, again)
    assert again.spec == bundle.spec
    assert again.generation == bundle.generation
    assert again.tokenizer.encode("The fox\n🙂") == bundle.tokenizer.encode("The fox\n🙂")
    assert not again.model.training
    assert all(p.requires_grad for p in again.model.parameters())


def test_saving_again_writes_the_same_bytes(folder: Path) -> None:
    second = folder.parent / "second"
    load(folder).save(second)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    files.pop("README.md")
    for name, data in files.items():
        assert (second / name).read_bytes() == data, name


def test_transformers_opens_the_folder_with_the_same_answers(bundle: Bundle, folder: Path) -> None:
    model = theirs(folder)
    target = torch.tensor([[0, 4], [0, 8]])
    with torch.no_grad():
        wanted = model(input_ids=SOURCE, attention_mask=MASK, decoder_input_ids=target).logits
        torch.testing.assert_close(
            bundle.model(SOURCE, MASK, target).logits, wanted, atol=1e-5, rtol=1e-5
        )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "The lazy fox;\n  摘要 🙂"
    assert tokenizer(text).input_ids == bundle.tokenizer.encode(text)
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert GenerationConfig.from_pretrained(folder).decoder_start_token_id == 0


@pytest.mark.parametrize("more", [{}, {"num_beams": 3, "length_penalty": 0.7}])
def test_generate_returns_what_transformers_returns(folder: Path, more: dict) -> None:
    model, ours = theirs(folder), load(folder)
    options = {"max_new_tokens": 7, **more}
    wanted = model.generate(SOURCE, attention_mask=MASK, **options)
    assert torch.equal(ours.generate(SOURCE, MASK, **options), wanted)


def test_an_unknown_generation_option_offers_the_nearest(bundle: Bundle) -> None:
    with pytest.raises(BadOption, match="num_beams"):
        bundle.generate(SOURCE, num_beam=2)


def test_shards_hold_the_same_model(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path, shard_bytes=4000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 2
    assert shards == sorted(file.name for file in tmp_path.glob("*.safetensors"))
    assert index["metadata"]["total_size"] == sum(
        tensor.nbytes for file in shards for tensor in load_file(tmp_path / file).values()
    )
    for file in shards:
        held = load_file(tmp_path / file)
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held.values()) <= 4000
    assert same_weights(load(tmp_path), bundle)
    assert torch.equal(theirs(tmp_path).shared.weight, bundle.model.tables["tokens"].weight)


def test_a_later_save_leaves_no_file_of_the_former_one(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "training.log").write_text("mine")
    bundle.save(tmp_path, shard_bytes=4000)
    bundle.tokenizer = None
    bundle.generation = {}
    bundle.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "training.log",
    ]
    again = load(tmp_path)
    assert same_weights(again, bundle)
    assert again.tokenizer is None


def test_weights_become_float32_unless_asked_and_half_files_come_back_bit_for_bit(
    bundle: Bundle, tmp_path: Path
) -> None:
    bundle.save(tmp_path / "half", dtype=torch.bfloat16)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert bundle.model.tables["tokens"].weight.dtype == torch.float32

    whole = load(tmp_path / "half")
    assert {p.dtype for p in whole.model.parameters()} == {torch.float32}
    half = load(tmp_path / "half", dtype=torch.bfloat16)
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    for again in (whole, half):
        again.save(tmp_path / "again", dtype=torch.bfloat16)
        saved = load_file(tmp_path / "again" / "model.safetensors")
        assert all(torch.equal(saved[name], tensor) for name, tensor in stored.items())


def test_the_loaded_weights_do_not_hang_on_the_file(bundle: Bundle, folder: Path) -> None:
    again = load(folder)
    file = folder / "model.safetensors"
    file.write_bytes(b"\0" * file.stat().st_size)
    assert same_weights(again, bundle)


OPENING = """
import sys
from pathlib import Path
from mainspring.checkpoints.bundle import load

def peak():  # KB
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = peak()
load(sys.argv[1])
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opening_takes_no_more_than_the_weights(
    small_tokenizer: Tokenizer, tmp_path: Path, dtype: torch.dtype
) -> None:
    new_bundle("t5-small", small_tokenizer, 0).save(tmp_path, dtype=dtype)
    stored = (tmp_path / "model.safetensors").stat().st_size
    ran = subprocess.run(
        [sys.executable, "-c", OPENING, str(tmp_path)], capture_output=True, text=True, check=True
    )
    weights = stored * (4 // dtype.itemsize)
    assert weights > 100e6
    assert int(ran.stdout) * 1024 < 1.25 * weights


def test_repeats_of_the_tied_table_are_dropped(bundle: Bundle, folder: Path) -> None:
    """As in files made from pickles, where the head and both embeddings are written out."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name in ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        tensors[name] = tensors["shared.weight"].clone()
    save_file(tensors, file)
    again = load(folder)
    assert again.spec == bundle.spec
    assert same_weights(again, bundle)


def test_small_files_are_carried_along(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    (folder / "preprocessor_config.json").write_text('{"size": 224}\n')
    (folder / "special_tokens_map.json").write_text('{"eos_token": "</s>"}\n')
    load(folder).save(tmp_path / "copy")
    assert (tmp_path / "copy" / "preprocessor_config.json").read_text() == '{"size": 224}\n'
    assert (tmp_path / "copy" / "special_tokens_map.json").exists()


def test_unknown_keys_of_the_config_are_kept(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["task_specific_params"] = {"summarization": {"prefix": "summarize: "}}
    (folder / "config.json").write_text(json.dumps(config))
    load(folder).save(tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "config.json").read_text()) == config


def test_an_older_config_holds_the_generation_settings(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_beams": 4, "max_length": 9}))
    assert load(folder).generation == {
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "num_beams": 4,
        "max_length": 9,
    }


def test_an_older_config_that_asks_for_what_is_not_there_is_refused(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_beam_groups": 2}))
    with pytest.raises(BadOption, match="num_beam_groups"):
        load(folder).generate(torch.tensor([[5, 6, 1]]))


def test_a_model_from_nothing(small_tokenizer: Tokenizer) -> None:
    made = new_bundle("t5-tiny", small_tokenizer, seed=1)
    rows = made.config["vocab_size"]
    assert rows % 64 == 0
    assert 0 <= rows - small_tokenizer.vocabulary < 64
    assert made.generation == {
        "decoder_start_token_id": small_tokenizer.pad_id,
        "pad_token_id": small_tokenizer.pad_id,
        "eos_token_id": small_tokenizer.eos_id,
    }
    assert same_weights(made, new_bundle("t5-tiny", small_tokenizer, seed=1))
    assert not same_weights(made, new_bundle("t5-tiny", small_tokenizer, seed=2))
    assert made.generate(SOURCE, max_new_tokens=2).shape == (2, 3)


def test_a_save_stopped_at_its_end_is_finished_by_the_next_load(
    bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the process was killed once some of the files were in place."""
    former = load(folder)
    with torch.no_grad():
        bundle.model.tables["tokens"].weight.add_(1)
    moved: list[str] = []
    replace = Path.replace

    def dies(self: Path, target: Path) -> Path:
        if self.parent.name == READY:
            if len(moved) == 2:
                raise KeyboardInterrupt
            moved.append(self.name)
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            bundle.save(folder)
    assert (folder / READY).is_dir()
    again = load(folder)
    assert same_weights(again, bundle)
    assert not same_weights(again, former)
    assert not (folder / READY).exists()
    assert not list(folder.glob(".*"))


def test_what_is_no_checkpoint_of_ours_stays(bundle: Bundle, folder: Path) -> None:
    own = folder / "model_best_backup.safetensors"
    own.write_bytes(b"mine")
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"of the former checkpoint")
    bundle.save(folder)
    assert own.read_bytes() == b"mine"
    assert not (folder / "model-00001-of-00002.safetensors").exists()


def test_a_load_leaves_a_save_that_is_under_way_alone(bundle: Bundle, folder: Path) -> None:
    ready = folder / READY
    ready.mkdir()
    (ready / MANIFEST).write_text("[]", encoding="utf-8")
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # as a save holds it
    try:
        settle(folder)
        assert ready.is_dir()
    finally:
        os.close(handle)
    (ready / MANIFEST).unlink()
    settle(folder)
    assert not ready.exists() and (folder / "config.json").is_file()


@pytest.mark.slow
def test_loads_beside_saves(bundle: Bundle, folder: Path) -> None:
    program = (
        "import sys; from mainspring.checkpoints.settle import settle; from pathlib import Path\n"
        "while True: settle(Path(sys.argv[1]))"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(folder)]) as other:
        for _ in range(30):
            bundle.save(folder)
        assert other.poll() is None
        other.kill()
    assert same_weights(load(folder), bundle)
