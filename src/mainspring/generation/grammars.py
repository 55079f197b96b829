"""What an output is to fit, checked: a JSON schema, a regular expression, a grammar, choices.

Each becomes a grammar in `llguidance`'s own form. What is wrong with one is said before anything is
written, of a schema with the place as a JSON pointer (RFC 6901).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mainspring.errors import BadOption
from mainspring.extras import CONSTRAINED

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

Schema = Mapping[str, Any] | bool

# Without bounds a model may write blanks for ever.
JSON_STYLE: "JsonCompileOptions" = {"whitespace_pattern": " ?"}
REGEX_SIGNS = frozenset("\\.+*?()|[]{}^$#&-~")
# Where a JSON schema holds others.
DEFINITIONS = ("$defs", "definitions")
WITHIN = ("items", "additionalProperties", "not", "if", "then", "else")
NAMED_WITHIN = ("properties", "patternProperties", "dependentSchemas", *DEFINITIONS)
LISTED_WITHIN = ("allOf", "anyOf", "oneOf", "prefixItems")


def compiled(
    name: str,
    *,
    json_schema: str | Schema | None = None,
    regex: str | None = None,
    grammar: str | None = None,
    choices: Sequence[str] | None = None,
) -> str:
    """The one that is given of these, checked, in the form of a `Constraint`. Errors begin with
    `name`."""
    try:
        from llguidance import LLMatcher
    except ModuleNotFoundError:
        raise CONSTRAINED.missing() from None
    if json_schema is not None:
        schema = _read_schema(json_schema, name)
        made = _of_schema(schema)
        place = _faulty(schema) if _problem(made) else ""
        name = f"{name} at {place}" if place else name
    elif grammar is not None:
        made = LLMatcher.grammar_from_lark(grammar)
    else:
        made = LLMatcher.grammar_from_regex(_any_of(choices, name) if regex is None else regex)
    problem = _problem(made)
    if problem:
        raise BadOption(f"{name}: {problem}")
    return made


def _problem(grammar: str) -> str:
    """What is wrong with a grammar in llguidance's form; "" where nothing is."""
    from llguidance import LLMatcher

    failed, problems = LLMatcher.validate_grammar_with_warnings(grammar)
    return problems[0].strip() if failed else ""


def _any_of(choices: Sequence[str] | None, name: str) -> str:
    """The regular expression of the texts themselves."""
    texts = list(choices or ())
    if isinstance(choices, str) or not texts or not all(texts):
        raise BadOption(f"{name} must be texts to choose from, none of them empty")
    escaped = ("".join("\\" + c if c in REGEX_SIGNS else c for c in text) for text in texts)
    return "|".join(escaped)


def _of_schema(schema: Schema) -> str:
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=JSON_STYLE)


def _read_schema(schema: str | Schema, name: str) -> Schema:
    try:
        parsed = json.loads(schema) if isinstance(schema, str) else schema
    except json.JSONDecodeError as error:
        raise BadOption(
            f"{name} is no JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    if not isinstance(parsed, Mapping | bool):
        raise BadOption(f"{name} must be an object such as {{}}, and is {str(schema)[:60]}")
    try:
        json.dumps(parsed)
    except (TypeError, ValueError) as error:
        raise BadOption(f"{name} is no JSON: {error}") from None
    return parsed


def _faulty(schema: Schema, shared: Mapping[str, Any] | None = None) -> str:
    """The place of the innermost part of a schema that is wrong by itself, as a JSON pointer; ""
    where it is the whole. `shared` are the definitions that its parts may refer to."""
    if isinstance(schema, bool):
        return ""
    if shared is None:
        shared = {key: schema[key] for key in DEFINITIONS if key in schema}
    for place, part in _parts(schema):
        alone = {**shared, **part} if isinstance(part, Mapping) else part
        if _problem(_of_schema(alone)):
            return place + _faulty(part, shared)
    return ""


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Schema]]:
    """The schemas within a schema, each with its place; definitions first, as others refer to
    them."""
    for key, value in sorted(schema.items(), key=lambda item: item[0] not in DEFINITIONS):
        found: Iterable[tuple[str, Any]] = ()
        if key in WITHIN:
            found = [(f"/{key}", value)]
        elif key in NAMED_WITHIN and isinstance(value, Mapping):
            found = [(f"/{key}/{name}", part) for name, part in value.items()]
        elif key in LISTED_WITHIN and isinstance(value, list):
            found = [(f"/{key}/{number}", part) for number, part in enumerate(value)]
        yield from ((place, part) for place, part in found if isinstance(part, Mapping | bool))
