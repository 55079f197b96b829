"""`generate`: a text is continued, a prompt answered, a conversation held.

Data are plain texts, pairs of a prompt and its answer (also split into instruction and input, as
Alpaca has it), or conversations. Of answers and conversations only what the model is to say
carries loss.
"""

from mainspring.data.kinds import Flaw
from mainspring.data.schema import Field, Layout, Values
from mainspring.formulations import Limits, causal
from mainspring.tasks import Option, Task

TEXT = Field(
    name="text",
    kind="text",
    accepted=("text", "content", "document", "article", "body"),
    help="plain text to learn from, or a prompt to answer",
)
ANSWER = Field(
    name="target",
    kind="text",
    accepted=("completion", "response", "output", "answer", "target"),
    help="the answer to learn",
    role="target",
)


def with_input(values: Values) -> Values:
    """An instruction with the input it is about, as one prompt."""
    about = values.pop("input", None)
    return {**values, "text": f"{values['text']}\n\n{about}"} if about else values


def answered(values: Values) -> Values:
    """A conversation to learn from, or to score; Flaw where the assistant says nothing in it."""
    if not any(message["role"] == "assistant" for message in values["messages"]):
        raise Flaw("no answer", "a conversation in which the assistant says nothing")
    return values


def asked(values: Values) -> Values:
    """A conversation up to where the assistant is to speak: what it said last is left out, and
    said anew."""
    messages = values["messages"]
    while messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    if not messages:
        raise Flaw("no question", "a conversation in which the assistant alone speaks")
    return {**values, "messages": messages}


TASK = Task(
    name="generate",
    help="continue a text, answer a prompt, hold a conversation",
    fields=(TEXT,),
    layouts=(
        Layout(
            (
                Field(
                    name="messages",
                    kind="messages",
                    accepted=("messages", "conversations", "conversation"),
                    help="a conversation: a list of role and content",
                ),
            ),
            answered,
            first=True,
            asks=asked,
        ),
        Layout(
            (
                Field(
                    name="text",
                    kind="text",
                    accepted=("prompt", "instruction", "question"),
                    help="the prompt",
                ),
                Field(
                    name="input",
                    kind="text?",
                    accepted=("input", "context"),
                    help="what an instruction is about",
                    required=False,
                ),
                ANSWER,
            ),
            with_input,
            first=True,
        ),
    ),
    formulations=(causal.FORMULATION,),
    output="generated_text",
    best="loss",
    limits=Limits(768, 256),
    options=(
        Option(
            "samples",
            "how many texts the model writes in `evaluate`, to tell how varied they are",
            kind=int,
            default=8,
            least=0,
            learnt=False,
        ),
    ),
    model="starter",
)
