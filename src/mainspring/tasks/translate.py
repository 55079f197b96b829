"""`translate`: a text in one language in, the same text in another out.

The languages are columns of the data (`en`, `de`), or a pair of columns holds source and target;
options name them. Reversed options translate the other way.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from mainspring import events
from mainspring.data.kinds import Flaw
from mainspring.data.rows import Row
from mainspring.data.schema import Field, Values
from mainspring.errors import BadOption
from mainspring.formulations import Limits, translation
from mainspring.languages import base, is_code, nearest, subtags
from mainspring.metrics.translation import METRIC
from mainspring.tasks import Option, Task
from mainspring.text import listed

SOURCE, TARGET = "source_language", "target_language"
TEXT = Field(
    name="text",
    kind="text",
    accepted=("text", "source", "src", "input", "sentence"),
    help="what is to be translated",
)
TRANSLATION = Field(
    name="target",
    kind="text",
    accepted=("translation", "target", "tgt", "output"),
    help="the translation to learn from or to compare with",
    role="target",
)
# Columns with these names are hardly ever Indonesian or Norwegian.
UNLIKELY = ("id", "no")


def unfold(row: Row) -> Iterable[Row]:
    """A row whose `translation` holds a text for each language, as columns of its own."""
    pair = row.values.get("translation")
    if isinstance(pair, str) and pair.lstrip().startswith("{"):
        try:
            pair = json.loads(pair)
        except ValueError:
            return [row]  # a text that begins with a bracket
    if not isinstance(pair, dict):
        return [row]
    if len(pair) < 2:
        raise Flaw("missing partner", f" holds {len(pair)} languages in `translation`, not two")
    others = {name: value for name, value in row.values.items() if name != "translation"}
    return [replace(row, values={**others, **pair})]


def by_columns(
    task: Task, options: Values, columns: Sequence[str], named: Mapping[str, str]
) -> tuple[Task, Values]:
    """The task with the columns of its two languages, and a language that is told by the other.

    Columns named by the user tell their languages too, where they have the names of such.
    """
    languages = {SOURCE: options.get(SOURCE), TARGET: options.get(TARGET)}
    for option, field in ((SOURCE, TEXT), (TARGET, TRANSLATION)):
        column = named.get(field.name, "")
        if languages[option] is None and is_code(column):
            languages[option] = column
    codes = [column for column in columns if is_code(column)]
    likely = [code for code in codes if code.casefold() not in UNLIKELY]
    for one, other in ((SOURCE, TARGET), (TARGET, SOURCE)):
        known = languages[other]
        if languages[one] is None and known is not None and len(likely) == 2:
            left = [code for code in likely if code != nearest(known, likely)]
            languages[one] = left[0] if len(left) == 1 else None
    source, target = languages[SOURCE], languages[TARGET]
    if source is not None and target is not None and source.casefold() == target.casefold():
        raise BadOption(f"--source-language and --target-language are the same: {source}")
    if source is target is None and len(likely) > 1 and not named and not _has_pair(columns):
        shown = f"--source-language {likely[0]} --target-language {likely[1]}"
        raise BadOption(
            f"the columns {', '.join(likely)} are languages: say which is translated into which, "
            f"{shown} or the other way round"
        )
    fields = tuple(
        _with_column(field, option, languages[option], codes)
        for field, option in ((TEXT, SOURCE), (TRANSLATION, TARGET))
    )
    variants = {code: _variants(code, codes) for code in (source, target) if code}
    several = {found[0]: tuple(found) for found in variants.values() if len(found) > 1}
    if several:
        task = replace(task, unfold=partial(unified, several))
    found = {name: code for name, code in languages.items() if code is not None}
    return replace(task, fields=fields), found


def _variants(code: str, codes: Sequence[str]) -> list[str]:
    """The columns that hold a language: the one with its code, or all that are of the language, as
    "en-US" and "en-GB" are of "en"; the one that is nearest to the code first."""
    first = nearest(code, list(codes))
    if first is None or (subtags(first) == subtags(code) and len(subtags(code)) > 1):
        return [] if first is None else [first]
    return [first, *(other for other in codes if other != first and base(other) == base(code))]


def unified(several: Mapping[str, Sequence[str]], row: Row) -> Iterable[Row]:
    """The rows of `unfold` with a language in the first of the columns that may hold it. Flaw where
    a row says it in several others, and none is nearer to what was asked for."""
    for whole in unfold(row):
        values = dict(whole.values)
        for column, variants in several.items():
            there = [name for name in variants if values.get(name)]
            if len(there) > 1 and subtags(column) != subtags(column)[:1]:
                raise Flaw("several variants of a language", f"{', '.join(there)}: ask for one")
            if there and not values.get(column):
                values[column] = values[there[0]]
        yield replace(whole, values=values)


def _has_pair(columns: Sequence[str]) -> bool:
    lower = {column.strip().casefold() for column in columns}
    return all(lower & set(field.accepted) for field in (TEXT, TRANSLATION))


def _with_column(field: Field, option: str, code: str | None, codes: Sequence[str]) -> Field:
    """The field, which a column of the language may hold; a warning where only another variant of
    what was asked for is there."""
    column = nearest(code, list(codes)) if code else None
    if code is None or column is None:
        flag = f"--{option.replace('_', '-')} {code or 'is not said'}"
        shown = f"{flag}: the languages are {listed(codes)}; or name its column with {field.option}"
        return replace(field, lacking=shown) if codes else field
    if len(subtags(code)) > 1 and subtags(column) != subtags(code):
        events.warn(f"`{code}` is not there: `{column}` is taken")
    return replace(field, accepted=(column, *field.accepted))


TASK = Task(
    name="translate",
    help="write a text in another language",
    fields=(TEXT, TRANSLATION),
    unfold=unfold,
    by_columns=by_columns,
    formulations=(translation.SEQUENCES, translation.PROMPTS),
    output="translation",
    best="chrf2",
    metric=METRIC,
    prompt="translation_",
    prefix="translate {source} to {target}: ",
    instruction=(
        "Translate the following text from {source} to {target}. "
        "Answer with the translation only.\n\n"
    ),
    cue="\n\n{target}:",
    limits=Limits(256, 256),
    options=(
        Option(SOURCE, "language of the text, by its code: en", taught=True),
        Option(TARGET, "language to translate into: de", taught=True),
        Option(
            "split_at",
            "what is translated at a time: lines as they are, or their sentences one by one",
            default="line",
            choices=("line", "sentence"),
        ),
        Option(
            "terms",
            "file of words that must be translated so: source, tab, target; one a line",
            learnt=False,
        ),
    ),
)
