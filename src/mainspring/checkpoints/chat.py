"""Chat templates: the Jinja text in a checkpoint that lays out a conversation for its model.

Rendered as transformers does it: in a sandbox that runs no foreign code, with `tojson`,
`raise_exception`, `strftime_now`, loop controls, and the `generation` tag, which marks what the
assistant says and changes nothing here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mainspring.errors import BadData, BadWeights

if TYPE_CHECKING:
    from jinja2 import Template

# How conversations are laid out for a model that has no template of its own: who speaks, then what
# is said and the model's own end token, which is where it learns to stop.
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    special: Mapping[str, str],
    answer: bool,
) -> str:
    """The text of a conversation. `special` are `bos_token` and its like; with `answer` it ends
    where the assistant begins to speak."""
    from jinja2 import TemplateError

    compiled = _compiled(template)
    given = {"messages": list(messages), "add_generation_prompt": answer}
    try:
        return compiled.render(**given, tools=None, documents=None, **special)
    except (TemplateError, TypeError, KeyError, IndexError) as error:
        raise BadData(f"the chat template refuses this conversation: {error}") from None


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own writes "<" as "\\u003c"; the arguments are those of `transformers`' filter."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: str) -> str:
    from jinja2 import TemplateError

    raise TemplateError(message)


@lru_cache(maxsize=16)
def _compiled(template: str) -> "Template":
    from jinja2 import TemplateSyntaxError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %} … {% endgeneration %}`: its body, as it is."""

        tags = {"generation"}  # noqa: RUF012  (the name and type are jinja2's)

        def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    now: Callable[[str], str] = lambda form: datetime.now().strftime(form)  # noqa: E731
    environment.globals |= {"raise_exception": _refuse, "strftime_now": now}
    try:
        return environment.from_string(template)
    except TemplateSyntaxError as error:
        raise BadWeights(f"chat template, line {error.lineno}: {error.message}") from None
