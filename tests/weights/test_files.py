"""safetensors files: read lazily, written whole."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from mainspring.errors import BadWeights
from mainspring.weights.files import (
    DTYPES,
    INDEX,
    TensorFiles,
    hint,
    weight_files,
    write_sharded,
    write_tensors,
    write_text,
)


def tensors() -> dict[str, torch.Tensor]:
    return {
        "a": torch.rand(4, 6),
        "b": torch.rand(3).bfloat16(),
        "turned": torch.rand(2, 5).T,
        "number": torch.tensor(1.5),
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = tensors()
    write_tensors(written, tmp_path / "model.safetensors")
    with TensorFiles(weight_files(tmp_path)) as files:
        assert set(files) == set(written)
        assert len(files) == 4
        assert "a" in files
        assert "c" not in files
        assert all(torch.equal(files[name], tensor) for name, tensor in written.items())
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("size", [1, 50, 100, 10_000])
def test_shards_hold_everything_once(tmp_path: Path, size: int) -> None:
    written = tensors()
    write_sharded(written, tmp_path, size)
    names = weight_files(tmp_path)
    assert len(names) == {1: 4, 50: 2, 100: 2, 10_000: 1}[size]
    assert (tmp_path / INDEX).exists() is (size < 10_000)
    with TensorFiles(names) as files:
        assert set(files) == set(written)
        assert all(torch.equal(files[name], tensor) for name, tensor in written.items())


def test_every_type_of_number_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 255, (6, 16), generator=draw, dtype=torch.uint8)
    written = {
        str(dtype): (noise > 99 if dtype is torch.bool else noise.clone().view(dtype))
        for dtype in DTYPES.values()
    }
    written |= {"empty": torch.empty(0, 3), "one": torch.tensor(True)}
    file = tmp_path / "model.safetensors"
    write_tensors(written, file)
    expected = load_file(file)
    with TensorFiles([file]) as files:
        found = dict(files)
    assert found.keys() == written.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype and tensor.shape == expected[name].shape
        assert torch.equal(*(one.reshape(-1).view(torch.uint8) for one in (tensor, expected[name])))


def test_a_file_that_is_replaced_while_it_is_read(tmp_path: Path) -> None:
    file, written = tmp_path / "model.safetensors", tensors()
    write_tensors(written, file)
    with TensorFiles([file]) as found:
        write_tensors({"other": torch.rand(3)}, file)
        assert all(torch.equal(found[name], tensor) for name, tensor in written.items())


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_tensors({"long": torch.rand(100_000)}, file)
    with TensorFiles([file]) as found:
        os.truncate(file, file.stat().st_size - 1)
        with pytest.raises(BadWeights, match="ends within `long`"):
            found["long"]


def test_numbers_that_torch_has_no_type_for_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}
    header = json.dumps({"odd": entry}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(BadWeights, match="type F4 are not read"), TensorFiles([file]):
        pass


def test_a_name_in_two_files_is_refused(tmp_path: Path) -> None:
    files = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for file in files:
        write_tensors({"a": torch.rand(2)}, file)
    with (
        pytest.raises(BadWeights, match=r"tensor `a` is also in one\.safetensors"),
        TensorFiles(files),
    ):
        pass


def test_a_failed_write_leaves_the_former_file(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    write_text("before\n", file)
    with pytest.raises(UnicodeEncodeError):
        write_text("\ud800", file)
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadWeights, match="could not be written"):
        write_text("x", tmp_path / "folder")
    with pytest.raises(BadWeights, match="could not be written"):
        write_tensors({"a": torch.rand(2)}, tmp_path / "absent" / "model.safetensors")
    assert file.read_text() == "before\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "notes.txt"]


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    """The mode follows the umask, as for any other file; safetensors alone writes 0600."""
    before = os.umask(0o022)
    try:
        write_tensors({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o644


def test_the_disk_is_only_suspected_where_the_system_says_so() -> None:
    for number in (errno.ENOSPC, errno.EDQUOT):
        assert hint(OSError(number, os.strerror(number))) == "; is the disk full?"
    said = "Error while serializing: I/O error: {} (os error {})"
    for number in (errno.EACCES, errno.ENOENT, errno.EFBIG):
        assert hint(OSError(number, os.strerror(number))) == ""
        assert hint(SafetensorError(said.format(os.strerror(number), number))) == ""
    assert hint(SafetensorError(said.format("No space left on device", errno.ENOSPC)))
