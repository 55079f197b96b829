"""`pretrain`: plain text in, a model that knows the language out (T5's span corruption)."""

from mainspring.data.schema import Field
from mainspring.formulations import span_corruption
from mainspring.tasks import Task

TASK = Task(
    name="pretrain",
    help="learn a language from plain text, before fine-tuning",
    fields=(
        Field(
            name="text",
            kind="text",
            accepted=("text", "content", "document", "article", "body"),
            help="plain text",
        ),
    ),
    formulations=(span_corruption.FORMULATION,),
    output="text",
    best="loss",
)
