"""What a fine-tuned folder remembers of its task: `mainspring.json` beside the weights."""

import json
from dataclasses import asdict, dataclass

from mainspring.checkpoints.bundle import Bundle
from mainspring.errors import BadWeights, Mismatch
from mainspring.formulations import Limits
from mainspring.tasks import Task, checkpoint_prefix

FILE = "mainspring.json"
FORMAT = 1


@dataclass(frozen=True)
class TaskSettings:
    """How a model was taught its task: the prefix before the text and the token limits."""

    task: str
    prefix: str
    limits: Limits

    def to_bytes(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False).encode()


def settings_of(bundle: Bundle, task: Task) -> TaskSettings:
    """The settings a checkpoint carries for `task`, or those its config and the task suggest."""
    data = bundle.extra_files.get(FILE)
    if data is not None:
        try:
            stored = json.loads(data)
            limits = Limits(**stored["limits"])
            settings = TaskSettings(stored["task"], stored["prefix"], limits)
        except (ValueError, KeyError, TypeError) as error:
            raise BadWeights(f"{FILE}: cannot be read ({error}); fit writes it anew") from None
        if stored.get("format") != FORMAT:
            raise Mismatch(f"{FILE}: format {stored.get('format')}, this release reads {FORMAT}")
        if settings.task == task.name:
            return settings
    limits = task.limits
    longest = bundle.config.get("n_positions")  # T5 v1.0 states what it was trained on
    if isinstance(longest, int):
        limits = Limits(longest, limits.target)
    return TaskSettings(task.name, checkpoint_prefix(task, bundle.config), limits)
