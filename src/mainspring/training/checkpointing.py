"""The state of a run on disk: safetensors and JSON, written whole or not at all.

    OUT/state/step-00000120/
        weights.safetensors      the float32 weights that learn, in our names
        optimizer.safetensors    the optimizer's tensors, `weight name|state name`
        state.json               step, scores, hashes: everything else

A folder is filled under a temporary name and then renamed, which is atomic: whenever the process
dies, the last whole folder is still there, and what it was writing is removed by the next save. No
generator states are saved, because every random number of a run is drawn from (seed, step,
micro-batch).
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.errors import BadWeights
from mainspring.weights.files import TensorFiles, write_tensors, write_text

FOLDER = "state"
WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"


def parameter_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The model's names of the optimizer's parameters, in the optimizer's order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def learned_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's state but for the weights that are frozen."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def save_state(
    out: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    *,
    keep: int = 1,
) -> Path:
    """Writes the state of a run after `step` steps and removes all but the newest `keep`.

    Where this step is saved already its weights are the same, and only `state.json` is written.
    """
    folder = out / FOLDER / f"step-{step:08d}"
    record = json.dumps({"step": step, **state}, indent=1)
    if folder.is_dir():
        write_text(record, folder / STATE)
        return folder
    for left_over in folder.parent.glob(".step-*.tmp"):
        shutil.rmtree(left_over, ignore_errors=True)
    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise BadWeights(f"{temporary}: could not be made ({error})") from error
    try:
        write_tensors(learned_weights(model), temporary / WEIGHTS)
        names = parameter_names(model, optimizer)
        tensors = {
            f"{names[index]}|{key}": value
            for index, values in optimizer.state_dict()["state"].items()
            for key, value in values.items()
            if isinstance(value, Tensor)
        }
        write_tensors(tensors, temporary / OPTIMIZER)
        write_text(record, temporary / STATE)
        _sync(temporary)
        temporary.replace(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in saved_states(out)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _sync(folder: Path) -> None:
    """Makes a folder's entries durable, so that a rename survives a power cut too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def forget_states(out: Path) -> None:
    """Removes what an older run left in the folder."""
    shutil.rmtree(out / FOLDER, ignore_errors=True)


def saved_states(out: Path) -> list[Path]:
    """The whole states under a run's folder, oldest first."""
    found = (out / FOLDER).glob("step-*") if (out / FOLDER).is_dir() else ()
    return sorted(folder for folder in found if re.fullmatch(r"step-\d{8,}", folder.name))


def read_state(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadWeights(f"{folder / STATE}: cannot be read ({error})") from None


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts saved weights and optimizer tensors back, in place."""
    with TensorFiles([folder / WEIGHTS]) as weights, torch.no_grad():
        ours = learned_weights(model)
        if set(weights) != set(ours):
            odd = sorted(set(weights) ^ set(ours))
            raise BadWeights(f"{folder / WEIGHTS}: not of this model (first difference: {odd[0]})")
        for name, tensor in ours.items():
            tensor.copy_(weights[name])
    names = parameter_names(model, optimizer)
    state: dict[int, dict[str, Tensor]] = {}
    places = {name: index for index, name in enumerate(names)}
    with TensorFiles([folder / OPTIMIZER]) as tensors:
        for full in tensors:
            name, _, key = full.rpartition("|")
            if name not in places:
                raise BadWeights(f"{folder / OPTIMIZER}: `{name}` is no weight of this model")
            state.setdefault(places[name], {})[key] = tensors[full]
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
