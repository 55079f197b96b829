"""`summarize`: a text in, a shorter text out."""

from mainspring.data.schema import Field
from mainspring.formulations import causal, sequence_to_sequence
from mainspring.metrics.rouge import METRIC
from mainspring.tasks import Task

TASK = Task(
    name="summarize",
    help="make a short text of a long one",
    fields=(
        Field(
            name="text",
            kind="text",
            accepted=("text", "article", "document", "dialogue", "body", "source", "input"),
            help="what is to be summarized",
        ),
        Field(
            name="target",
            kind="text",
            accepted=("summary", "highlights", "abstract", "target", "title", "output"),
            help="the summary to learn from or to compare with",
            role="target",
        ),
    ),
    formulations=(sequence_to_sequence.FORMULATION, causal.FORMULATION),
    output="summary",
    best="rougeLsum",
    metric=METRIC,
    prompt="summarization",
    instruction="Summarize the following text in one sentence.\n\n",
    cue="\nTL;DR:",
    model="starter",
)
