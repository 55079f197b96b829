"""A model opened for a task: what `run` and `evaluate` share."""

from dataclasses import dataclass
from typing import Any

from mainspring import events
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.compute.devices import choose_device
from mainspring.compute.precision import prepare
from mainspring.errors import BadOption
from mainspring.formulations import Limits
from mainspring.formulations.prediction import OnLong, Settings, generation_options
from mainspring.tasks import Task, choose_formulation
from mainspring.tasks.settings import settings_of

SAMPLING = ("temperature", "top_k", "top_p", "min_p")


@dataclass(frozen=True)
class Opened:
    """A checkpoint and how it is to be used for one task; `megabytes` are its weights in memory."""

    name: str
    bundle: Bundle
    settings: Settings
    precision: str
    megabytes: float


def open_for(
    task: Task,
    model: str,
    max_source: int | None,
    generation: dict[str, Any],
    on_long: OnLong,
    precision: str,
    device: str,
) -> Opened:
    """Loads `model`, checks that it can do `task`, and prepares it for inference."""
    if max_source is not None and max_source < 4:
        raise BadOption("--max-source must be at least 4")
    bundle = load(model)
    if not choose_formulation(task, bundle.spec).generates:
        raise BadOption(f"`{task.name}` is for training; it has no predictions")
    found = settings_of(bundle, task)
    limits = Limits(max_source or found.limits.source, found.limits.target)
    options = generation_options(bundle.generation, limits, generation)
    idle = [name for name in SAMPLING if name in generation and not options.do_sample]
    if idle:
        names = ", ".join("--" + name.replace("_", "-") for name in idle)
        events.warn(f"{names}: no effect without --do-sample")
    bundle.model.to(choose_device(device))
    prepared = prepare(bundle.model, precision)
    events.note(f"{model}: reads {limits.source} tokens, prefix {found.prefix!r}")
    settings = Settings(found.prefix, limits, options, on_long)
    return Opened(model, bundle, settings, prepared.precision, prepared.bytes_after / 1e6)
