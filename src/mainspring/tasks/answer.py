"""`answer`: a question and a text in, the answer out; or a question and a folder of documents."""

from dataclasses import replace

from mainspring.data.questions import ANSWER_COLUMNS, in_place, questions
from mainspring.data.schema import Field
from mainspring.errors import BadOption
from mainspring.extras import HNSW
from mainspring.formulations import (
    Limits,
    Values,
    generated_answers,
    retrieval,
    span_extraction,
)
from mainspring.formulations.pairs import STRIDE
from mainspring.metrics.answers import METRIC
from mainspring.tasks import Option, Task

CONTEXT = Field(
    name="context",
    kind="text",
    accepted=("context", "text", "passage", "paragraph", "document", "article", "body"),
    help="the text that holds the answer",
)
QUESTION = Field(
    name="question",
    kind="text",
    accepted=("question", "query", "query_text"),
    help="the question",
)
ANSWERS = Field(
    name="answers",
    kind="answers",
    accepted=ANSWER_COLUMNS,
    help="the right answers; none where the text holds no answer",
    role="target",
)
START = Field(
    name="start",
    kind="any",
    accepted=("answer_start", "start"),
    help="where the answer begins in the text, in characters",
    required=False,
    role="target",
)


def variant(task: Task, options: Values) -> Task:
    """Where documents are named the question alone is asked for, and the context looked for."""
    if "documents" not in options:
        for name in ("retriever", "passages", "search", "index"):
            if name in options:
                raise BadOption(f"--{name} has no meaning without --documents FOLDER")
        return task
    if options.get("search") == "hnsw":
        HNSW.check()
    return replace(
        task,
        fields=(QUESTION, replace(ANSWERS, required=True)),
        values=lambda values: values,
        formulations=(retrieval.SPANS, retrieval.SEQUENCE_TO_SEQUENCE, retrieval.CAUSAL),
        metric=replace(METRIC, baselines={}),
    )


TASK = Task(
    name="answer",
    help="answer questions about a text, or from a folder of documents",
    fields=(CONTEXT, QUESTION, ANSWERS, START),
    values=in_place,
    unfold=questions,
    formulations=(
        span_extraction.FORMULATION,
        generated_answers.SEQUENCE_TO_SEQUENCE,
        generated_answers.CAUSAL,
    ),
    output="answer",
    best="f1",
    metric=METRIC,
    instruction="Answer the question with words of the text, as briefly as possible.\n\n",
    cue="\nanswer:",
    limits=Limits(384, 32),
    options=(
        Option("stride", f"tokens that windows of a long text share ({STRIDE})", int, least=0),
        Option("max_answer", "longest span that is an answer, in tokens (30)", int, least=1),
        Option(
            "no_answer_threshold",
            "how much likelier no answer must be, in logits; by default what fit found",
            float,
        ),
        Option("n_best", "answers to list for each question (1)", int, least=1, learnt=False),
        Option("documents", "folder (or file) of documents to answer from", learnt=False),
        Option(
            "retriever",
            f"sentence encoder that finds their passages ({retrieval.RETRIEVER})",
            learnt=False,
        ),
        Option(
            "passages",
            f"passages to read for each question ({retrieval.PASSAGES})",
            int,
            least=1,
            learnt=False,
        ),
        Option(
            "search",
            "all vectors compared, or FAISS's approximate graph (exact)",
            choices=("exact", "hnsw"),
            learnt=False,
        ),
        Option("index", "folder for the passages and their vectors, kept for later", learnt=False),
    ),
    variant=variant,
    model="starter",
)
