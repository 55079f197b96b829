"""`pretrain`: plain text in, a model that knows the language out.

An encoder-decoder by T5's span corruption, an encoder by BERT's masked tokens.
"""

from mainspring.data.schema import Field
from mainspring.formulations import masked_tokens, span_corruption
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
    formulations=(span_corruption.FORMULATION, masked_tokens.FORMULATION),
    output="text",
    best="loss",
)
