import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
import torch

import nano
from mainspring.checkpoints.bundle import Bundle
from mainspring.errors import BadWeights
from mainspring.training import checkpointing
from mainspring.training.checkpointing import (
    load_state,
    parameter_names,
    read_state,
    save_state,
    saved_states,
)
from mainspring.training.loop import train
from mainspring.training.optimizer import LearningRate, build_optimizer

Pair = tuple[Bundle, torch.optim.Optimizer]


@pytest.fixture(params=["adamw", "adafactor"])
def stepped(request: pytest.FixtureRequest, source_of) -> Pair:
    """A model and an optimizer that have made two steps."""
    bundle = nano.bundle()
    optimizer = build_optimizer(bundle.model, request.param, weight_decay=0.01)
    rate = LearningRate(1e-3, 10, 0.1, "linear").at
    list(islice(train(bundle.model, optimizer, source_of(bundle), rate), 2))
    return bundle, optimizer


def fresh(like: torch.optim.Optimizer) -> Pair:
    bundle = nano.bundle(seed=5)
    kind = "adafactor" if isinstance(like, torch.optim.Adafactor) else "adamw"
    return bundle, build_optimizer(bundle.model, kind, weight_decay=0.01)  # type: ignore[arg-type]


def test_a_state_comes_back_bit_for_bit(tmp_path: Path, stepped: Pair) -> None:
    bundle, optimizer = stepped
    folder = save_state(tmp_path, 2, bundle.model, optimizer, {"loss": 1.5})
    other, its_optimizer = fresh(optimizer)
    load_state(folder, other.model, its_optimizer)
    assert read_state(folder) == {"step": 2, "loss": 1.5}
    ours = bundle.model.state_dict()
    for name, tensor in other.model.state_dict().items():
        assert torch.equal(tensor, ours[name]), name
    before, after = (o.state_dict()["state"] for o in (optimizer, its_optimizer))
    assert before.keys() == after.keys() == set(range(len(ours)))
    for index in before:
        assert before[index].keys() == after[index].keys()
        for key, value in before[index].items():
            assert torch.equal(value, after[index][key]), key
            assert value.dtype == after[index][key].dtype


def test_the_names_are_those_of_the_model(stepped: Pair) -> None:
    bundle, optimizer = stepped
    names = parameter_names(bundle.model, optimizer)
    assert sorted(names) == sorted(name for name, _ in bundle.model.named_parameters())


def test_a_state_is_safetensors_and_json_and_no_pickle(tmp_path: Path, stepped: Pair) -> None:
    folder = save_state(tmp_path, 2, stepped[0].model, stepped[1], {})
    assert sorted(file.name for file in folder.iterdir()) == [
        "optimizer.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    for file in folder.glob("*.safetensors"):
        data = file.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name[0] != "_"]
        assert 8 + size + max(ends) == len(data)  # numbers to the last byte


def test_only_the_newest_state_stays(tmp_path: Path, stepped: Pair) -> None:
    for step in (2, 10, 100_000_001):
        save_state(tmp_path, step, stepped[0].model, stepped[1], {})
    assert [folder.name for folder in saved_states(tmp_path)] == ["step-100000001"]
    save_state(tmp_path, 100_000_002, stepped[0].model, stepped[1], {}, keep=2)
    assert len(saved_states(tmp_path)) == 2


def test_the_same_step_again_changes_only_the_record(tmp_path: Path, stepped: Pair) -> None:
    folder = save_state(tmp_path, 2, stepped[0].model, stepped[1], {"evaluated": 0})
    weights = (folder / checkpointing.WEIGHTS).stat().st_ino
    save_state(tmp_path, 2, stepped[0].model, stepped[1], {"evaluated": 2})
    assert read_state(folder) == {"step": 2, "evaluated": 2}
    assert (folder / checkpointing.WEIGHTS).stat().st_ino == weights


def test_what_a_dead_process_left_is_ignored_and_then_removed(
    tmp_path: Path, stepped: Pair
) -> None:
    whole = save_state(tmp_path, 2, stepped[0].model, stepped[1], {})
    half = whole.with_name(".step-00000003.tmp")
    half.mkdir()
    (half / checkpointing.WEIGHTS).write_bytes(b"half")
    assert saved_states(tmp_path) == [whole]
    save_state(tmp_path, 4, stepped[0].model, stepped[1], {})
    assert not half.exists()


@contextmanager
def small_disk(most: int) -> Iterator[None]:
    """No file can grow beyond `most` bytes: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("most", [0, 1000, 60_000, 150_000])
def test_a_full_disk_is_said_and_the_last_state_is_whole(
    tmp_path: Path, stepped: Pair, most: int
) -> None:
    bundle, optimizer = stepped
    whole = save_state(tmp_path, 2, bundle.model, optimizer, {})
    bytes_before = {file.name: file.read_bytes() for file in whole.iterdir()}
    if max(map(len, bytes_before.values())) <= most:
        pytest.skip("Adafactor's state is small")
    with small_disk(most), pytest.raises(BadWeights, match=r"not be written .*too large"):
        save_state(tmp_path, 3, bundle.model, optimizer, {})
    assert saved_states(tmp_path) == [whole]
    assert {file.name: file.read_bytes() for file in whole.iterdir()} == bytes_before
    assert [entry.name for entry in whole.parent.iterdir()] == [whole.name]


def test_a_state_of_another_model_is_refused(tmp_path: Path, stepped: Pair) -> None:
    folder = save_state(tmp_path, 2, stepped[0].model, stepped[1], {})
    other = nano.bundle(num_decoder_layers=1)
    optimizer = build_optimizer(other.model, "adamw", weight_decay=0.0)
    with pytest.raises(BadWeights, match=r"not of this model.*decoder\.layers\.1"):
        load_state(folder, other.model, optimizer)


def test_a_broken_record_is_said(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadWeights, match=r"state\.json: cannot be read"):
        read_state(tmp_path)
