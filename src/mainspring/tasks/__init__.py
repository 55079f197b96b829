"""Tasks: the words people use. One short file each; the machinery is in `formulations`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mainspring.data.schema import Field
from mainspring.errors import Mismatch
from mainspring.formulations import Formulation, Limits
from mainspring.metrics import Metric
from mainspring.spec import Model


@dataclass(frozen=True)
class Task:
    """What a task is called, what it reads, how it is posed, and how it is scored.

    `fields` feed the reader, the command line and the docs: the first is the input, the second
    (where there is one) the target. `formulations` are tried in order: the first whose needs the
    model meets serves. `output` names the column a prediction is written to. `limits` are the
    token limits used where neither the user nor the checkpoint says any. `prompt` is the key under
    which a checkpoint's `task_specific_params` may keep this task's prefix. `metric` is None where
    the loss itself is the score; `best` is the score that picks the best checkpoint.
    """

    name: str
    help: str
    fields: tuple[Field, ...]
    formulations: tuple[Formulation, ...]
    output: str
    best: str
    metric: Metric | None = None
    prompt: str = ""
    limits: Limits = field(default_factory=lambda: Limits(512, 128))

    @property
    def higher_is_better(self) -> bool:
        """Losses fall, every other score rises."""
        return self.best != "loss"


def choose_formulation(task: Task, model: Model) -> Formulation:
    """The first of the task's formulations that the model can serve; Mismatch where none can."""
    reasons = []
    for formulation in task.formulations:
        lack = formulation.lacks(model)
        if lack is None:
            return formulation
        reasons.append(f"{formulation.name} needs {lack}")
    raise Mismatch(f"this model cannot do `{task.name}`: {'; '.join(reasons)}")


def checkpoint_prefix(task: Task, config: Mapping) -> str:
    """The prefix a checkpoint's config asks for before this task's input, or none."""
    params = config.get("task_specific_params") or {}
    return str((params.get(task.prompt) or {}).get("prefix", ""))
