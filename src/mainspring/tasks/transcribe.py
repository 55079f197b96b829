"""`transcribe`: speech in, the words with their times out.

Data are sound files, or a table whose rows name them (`file_name`, as in folders of sound with a
`metadata.csv`).
"""

from mainspring.data.schema import Field
from mainspring.formulations import Limits, transcription
from mainspring.metrics.words import METRIC
from mainspring.tasks import Option, Task

TASK = Task(
    name="transcribe",
    help="write down what is spoken, with times",
    fields=(
        Field(
            name="audio",
            kind="audio",
            accepted=("audio", "file_name", "path", "file"),
            help="the sound file, found from where the table lies",
        ),
        Field(
            name="target",
            kind="text",
            accepted=("transcription", "text", "sentence", "transcript", "target"),
            help="what is spoken",
            role="target",
        ),
    ),
    formulations=(transcription.FORMULATION,),
    output="transcript",
    best="wer",
    metric=METRIC,
    limits=Limits(1500, 448),
    options=(
        Option(
            "language",
            "language that is spoken: de; the model finds it out where it is not told",
            learnt=False,
        ),
        Option(
            "translate",
            "write an English translation in place of the words",
            default="no",
            choices=("no", "yes"),
            learnt=False,
        ),
        Option(
            "timestamps",
            "write times; recordings longer than a window have them always",
            default="yes",
            choices=("no", "yes"),
            learnt=False,
        ),
        Option(
            "second_tries",
            "write a window anew, with some chance, where its text is unlikely or repeats itself",
            default="no",
            choices=("no", "yes"),
            learnt=False,
        ),
    ),
)
