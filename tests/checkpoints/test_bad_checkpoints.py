"""Every way a checkpoint can be wrong has its own error: what, where, and what to do."""

import errno
import json
import pickle
import resource
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mainspring.checkpoints.bundle import Bundle, load
from mainspring.checkpoints.tokenizer import train_tokenizer
from mainspring.errors import BadOption, BadWeights, Mismatch, Missing, Refused
from mainspring.weights import files


def change_config(folder: Path, remove: str | None = None, **more: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | more
    config.pop(remove, None)
    (folder / "config.json").write_text(json.dumps(config))


def change_tensors(folder: Path, **more: torch.Tensor | None) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file) | {name.replace("__", "."): t for name, t in more.items()}
    save_file({name: t for name, t in tensors.items() if t is not None}, file)


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(Missing, match=r"no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(Missing, match=r"no model\.safetensors and no model\.safetensors\.index"):
        load(tmp_path)


def test_an_unknown_model_type_offers_the_nearest(folder: Path) -> None:
    change_config(folder, model_type="mt55")
    with pytest.raises(BadOption, match=r"config\.json: unknown model_type `mt55`.*`mt5`"):
        load(folder)
    change_config(folder, "model_type")
    with pytest.raises(Missing, match=r"config\.json: no `model_type`"):
        load(folder)


def test_broken_json_is_shown_with_its_place(folder: Path) -> None:
    (folder / "config.json").write_text('{\n "model_type": "t5",\n "d_model": ,\n}')
    with pytest.raises(BadWeights, match=r"config\.json:3:13: not valid JSON"):
        load(folder)
    (folder / "config.json").write_text("[1, 2]")
    with pytest.raises(BadWeights, match="JSON list where an object is expected"):
        load(folder)
    (folder / "config.json").write_bytes(b'{"model_type": "\xff"}')
    with pytest.raises(BadWeights, match="not UTF-8 text"):
        load(folder)


@pytest.mark.parametrize("key", ["d_model", "vocab_size", "num_layers", "d_kv"])
def test_a_missing_key_is_named(folder: Path, key: str) -> None:
    change_config(folder, key)
    with pytest.raises(Missing, match=rf"config\.json: no key `{key}`, which a t5 model needs"):
        load(folder)


@pytest.mark.parametrize("value", ["512", -3, None, 2.5, {}])
def test_values_that_describe_no_model(folder: Path, value: object) -> None:
    change_config(folder, d_model=value)
    with pytest.raises(BadOption, match=r"config\.json: describes no model"):
        load(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_layers", 0), ("feed_forward_proj", None), ("num_heads", "x")],
)
def test_values_of_kinds_that_nobody_expects(folder: Path, key: str, value: object) -> None:
    change_config(folder, **{key: value})
    with pytest.raises(BadOption, match=r"config\.json"):
        load(folder)


def test_pickles_are_refused_and_the_way_out_works(bundle: Bundle, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    torch.save([1], folder / "optimizer.pt")
    with pytest.raises(Refused, match=r"pytorch_model\.bin, a pickle") as caught:
        load(folder)
    command = str(caught.value).split("python -c ")[1].strip().strip('"')
    exec(command, {})  # the command that the message tells people to run
    again = load(folder).model.state_dict()
    assert all(torch.equal(again[name], t) for name, t in bundle.model.state_dict().items())


def test_several_pickles_are_converted_together(bundle: Bundle, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for i in range(2):
        part = {name: t for j, (name, t) in enumerate(weights.items()) if j % 2 == i}
        torch.save(part, folder / f"pytorch_model-0000{i + 1}-of-00002.bin")
    with pytest.raises(Refused) as caught:
        load(folder)
    exec(str(caught.value).split("python -c ")[1].strip().strip('"'), {})
    again = load(folder).model.state_dict()
    assert all(torch.equal(again[name], t) for name, t in bundle.model.state_dict().items())


def test_no_pickle_is_ever_opened(folder: Path, tmp_path: Path) -> None:
    """Not even one that is called model.safetensors."""
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (trap,)

    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BadWeights, match="not a whole safetensors file"):
        load(folder)
    assert not trap.exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused(folder: Path, file: str) -> None:
    data = json.loads((folder / file).read_text())
    data["auto_map"] = {"AutoModel": "modeling_mine.Mine"}
    (folder / file).write_text(json.dumps(data))
    with pytest.raises(Refused, match=rf"{file}: `auto_map` asks for code"):
        load(folder)


def test_a_truncated_file(folder: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(BadWeights, match=r"model\.safetensors: not a whole safetensors file"):
            load(folder)


def test_a_corrupt_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    for spoilt in (
        b"\xff" * 8 + whole[8:],
        whole[:8] + b"x" * size + whole[8 + size :],
        whole.replace(b"F32", b"F99", 1),
        whole.replace(b"[12]", b"[13]", 1),
    ):
        assert spoilt != whole
        file.write_bytes(spoilt)
        with pytest.raises(BadWeights, match=r"model\.safetensors"):
            load(folder)


def test_all_tensors_that_do_not_fit_are_said_at_once(folder: Path) -> None:
    change_tensors(
        folder,
        shared__weight=torch.zeros(448, 11),
        encoder__final_layer_norm__weight=None,
        decoder__final_layer_norm__weight=None,
        something__else=torch.zeros(3),
    )
    with pytest.raises(BadWeights) as caught:
        load(folder)
    text = str(caught.value)
    assert "4 tensors do not fit" in text
    assert "wrong shape shared.weight: the config asks for (448, 12), the file holds (448, 11)" in (
        text
    )
    assert "missing     encoder.final_layer_norm.weight" in text
    assert "missing     decoder.final_layer_norm.weight" in text
    assert "left over   something.else (3,)" in text


def test_a_config_of_another_checkpoint(folder: Path) -> None:
    change_config(folder, d_ff=99, num_layers=3)
    with pytest.raises(BadWeights, match=r"Is config\.json from the same checkpoint"):
        load(folder)


def test_quantised_weights_are_not_taken_for_plain_ones(folder: Path) -> None:
    change_tensors(folder, shared__weight=torch.zeros(448, 12, dtype=torch.int8))
    with pytest.raises(BadWeights, match=r"`shared\.weight` holds torch\.int8"):
        load(folder)


def test_a_tokenizer_with_more_ids_than_rows(bundle: Bundle, folder: Path, texts: list) -> None:
    larger = train_tokenizer(texts * 3, 600, "byte-bpe")
    assert larger.vocabulary > 448
    larger.save(folder)
    with pytest.raises(Mismatch, match=r"ids up to \d+, and the embedding only 448 rows"):
        load(folder)


def test_an_index_that_names_an_absent_shard(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path, shard_bytes=4000)
    gone = sorted(tmp_path.glob("model-*.safetensors"))[1]
    data = gone.read_bytes()
    gone.unlink()
    with pytest.raises(Missing, match=rf"{gone.name} are not there"):
        load(tmp_path)
    gone.write_bytes(data)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(gone.name, "../" + gone.name))
    with pytest.raises(BadWeights, match="outside the folder"):
        load(tmp_path)
    index.write_text('{"weight_map": 3}')
    with pytest.raises(BadWeights, match="not a readable shard index"):
        load(tmp_path)


def test_a_broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(BadWeights, match=r"tokenizer\.json: not a tokenizer"):
        load(folder)
    (folder / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(BadWeights, match=r"tokenizer\.json:1:\d+: not valid JSON"):
        load(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(b"\x0a\xff\xff")
    with pytest.raises(BadWeights, match=r"spiece\.model: not a SentencePiece model"):
        load(folder)


class FullDisk:
    """Writes `room` bytes, then says that the disk is full."""

    def __init__(self, room: int, monkeypatch: pytest.MonkeyPatch):
        self.room = room
        save, write = files.save_file, files.write_bytes

        def small_save(tensors: dict, file: Path, metadata: dict) -> None:
            self.use(sum(tensor.nbytes for tensor in tensors.values()))
            save(tensors, file, metadata)

        def small_write(data: bytes, file: Path) -> None:
            self.use(len(data))
            write(data, file)

        monkeypatch.setattr(files, "save_file", small_save)
        monkeypatch.setattr(files, "write_bytes", small_write)

    def use(self, wanted: int) -> None:
        self.room -= wanted
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("room", [0, 30_000, 35_000])
def test_a_full_disk_leaves_the_former_checkpoint(
    bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with torch.no_grad():
        bundle.model.tables["tokens"].weight.add_(1)
    with monkeypatch.context() as patch:
        FullDisk(room, patch)
        with pytest.raises(BadWeights, match="is the disk full"):
            bundle.save(folder)
        with pytest.raises(BadWeights, match="is the disk full"):
            bundle.save(folder.parent / "new")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert not (folder.parent / "new").exists()
    bundle.save(folder)
    assert (folder / "model.safetensors").read_bytes() != before["model.safetensors"]


def test_a_write_that_the_system_stops(bundle: Bundle, folder: Path) -> None:
    """A limit on the size of files stands for the full disk: the system itself says no."""
    before = (folder / "model.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(BadWeights, match=r"could not be written .*too large"):
            bundle.save(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_a_place_that_cannot_be_written(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadWeights, match="could not be written"):
        bundle.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "in the way"
