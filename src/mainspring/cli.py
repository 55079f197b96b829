"""The command line: names to verbs, each imported when it is asked for. The only place that prints.

A verb's options are the parameters of its Python function, read from its signature and docstring.
Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 the answer
is no, 2 the user's input or options, 3 anything else; 130 stopped by Ctrl-C and 143 by SIGTERM, as
shells have it.
"""

import json
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from mainspring import __version__, registry, streams
from mainspring.errors import BadOption, MainspringError, NotFetched

if TYPE_CHECKING:
    from cyclopts import MissingArgumentError

# verb -> (module:function, the line shown by `mainspring --help`)
COMMANDS = {
    "fit": ("mainspring.verbs.fit:fit", "train or fine-tune a model on your data"),
    "run": (
        "mainspring.verbs.run:command",
        "apply a model to texts, files, folders, tables or stdin",
    ),
    "evaluate": ("mainspring.verbs.evaluate:evaluate", "score a model, with baseline and interval"),
    "get": ("mainspring.verbs.get:get", "fetch a small pretrained model: starter, minilm"),
    "export": ("mainspring.verbs.export:export", "write a model for other programs, as GGUF …"),
    "embed": ("mainspring.verbs.embed:command", "sentence vectors of texts, as .npy or .jsonl"),
    "graph build": ("mainspring.verbs.graph:build", "read documents into a knowledge graph"),
    "graph import": ("mainspring.verbs.graph:import_", "put triples into a knowledge graph"),
    "graph query": ("mainspring.verbs.graph:query", "ask a knowledge graph in SPARQL"),
    "graph ask": ("mainspring.verbs.graph:ask", "ask a knowledge graph in words"),
    "graph export": ("mainspring.verbs.graph:export", "Turtle, N-Triples, N-Quads, CSV, GraphML"),
    "graph page": ("mainspring.verbs.graph:page", "draw a knowledge graph on an HTML page"),
    "graph withdraw": ("mainspring.verbs.graph:withdraw", "take documents out again"),
    "tasks": ("mainspring.verbs.listing:tasks", "the tasks, and the columns their data may have"),
    "models": ("mainspring.verbs.listing:models", "the families of models, and what is on disk"),
    "doctor": ("mainspring.verbs.doctor:doctor", "what this machine has, and what follows from it"),
}

# Verbs of two words: the first is a group, which lists its verbs.
GROUPS = tuple(dict.fromkeys(name.split()[0] for name in COMMANDS if " " in name))

# Stands for the word "-", standard input, which Cyclopts takes for an option without a name.
HYPHEN = "\0"

GLOBAL = {
    "--json": "print one JSON object (or one a row) on standard output",
    "--quiet": "no progress, no notes: results and errors only",
}


def listing(group: str = "") -> str:
    """The verbs, or those of one group, with what each does."""
    named = {name: line for name, (_, line) in COMMANDS.items() if name.startswith(group)}
    width = max(map(len, named))
    return "\n".join(f"  {name:<{width}}  {line}" for name, line in named.items())


def overview() -> str:
    """The text of `mainspring --help`, made without importing anything heavy."""
    options = "\n".join(f"  {name:<8}  {line}" for name, line in GLOBAL.items())
    return f"""Mainspring {__version__}: train, measure and run Transformers on your own data.

usage: mainspring VERB ... [--json] [--quiet]

{listing()}

Every verb:
{options}
  --help    what a verb does and its options

  mainspring fit summarize news.csv --model google-t5/t5-small --out runs/news
  mainspring run summarize article.txt --model runs/news
  mainspring evaluate summarize test.csv --model runs/news"""


def call(argv: Sequence[str]) -> Any:
    """Parses the words of one command and runs its verb; None for help."""
    import cyclopts
    from rich.console import Console

    help = streams.Held()
    app = cyclopts.App(
        name="mainspring",
        version=__version__,
        help_epilogue="Every verb: "
        + "; ".join(f"`{name}` {line}" for name, line in GLOBAL.items())
        + ".",
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        # --choices yes no: all words up to the next option.
        default_parameter=cyclopts.Parameter(
            consume_multiple=True, negative_iterable=(), converter=converted
        ),
    )
    groups = {name: cyclopts.App(name=name, result_action="return_value") for name in GROUPS}
    for group in groups.values():
        app.command(group)
    for name, (place, _) in COMMANDS.items():
        parent, _, verb = name.rpartition(" ")
        groups.get(parent, app).command(place, name=verb)
    try:
        words = [HYPHEN if word == "-" else word for word in argv]
        made = app(words, exit_on_error=False, print_error=False, console=Console(file=help))
    except cyclopts.MissingArgumentError as error:
        raise UsageError(lacking(error), argv) from None
    except cyclopts.CycloptsError as error:
        raise UsageError(str(error).replace(HYPHEN, "-"), argv) from None
    streams.put(help.getvalue(), end="")
    return made


def lacking(error: "MissingArgumentError") -> str:
    """What is said of an argument that is not there, or of an option without a value."""
    assert error.argument is not None
    if error.keyword or error.argument.tokens:
        return str(error).replace(HYPHEN, "-")
    return f"{error.argument.name} is missing"


def converted(kind: Any, tokens: Any) -> Any:
    """An option's words as a value of its kind. By itself Cyclopts rounds where it wants a whole
    number; here such words are refused."""
    import cyclopts

    tokens = _with_hyphens(tokens)
    if kind is int:
        [token] = tokens
        if "." in token.value and not float(token.value).is_integer():
            raise BadOption(f"{token.keyword} must be a whole number, not {token.value}")
    return cyclopts.convert(kind, tokens)


def _with_hyphens(tokens: Any) -> Any:
    """Words, or words by key (`--columns.text body`), as they were given."""
    if isinstance(tokens, dict):
        return {key: _with_hyphens(words) for key, words in tokens.items()}
    return [token.evolve(value="-") if token.value == HYPHEN else token for token in tokens]


class UsageError(MainspringError):
    """Words that are no command."""

    def __init__(self, problem: str, argv: Sequence[str]):
        named = (" ".join(argv[:2]), argv[0] if argv else "")
        verb = next((name for name in named if name in COMMANDS), "")
        if argv and argv[0] in registry.names("tasks"):
            problem = f"`{argv[0]}` is a task; say what to do first: `mainspring run {argv[0]} …`"
        help_line = " ".join(word for word in ("mainspring", verb, "--help") if word)
        super().__init__(f"{problem}\nSee `{help_line}`.")


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point of the `mainspring` command."""
    given = list(sys.argv[1:] if argv is None else argv)
    # What follows `--` is taken as it is: a text to summarize may be called anything.
    options = given[: given.index("--")] if "--" in given else given
    as_json, quiet = "--json" in options, "--quiet" in options
    words = [word for word in options if word not in GLOBAL] + given[len(options) :]
    streams.prepare(as_json)
    told = ""
    if words in ([], ["--help"], ["-h"], ["help"]):
        told = overview()
    elif words[1:] in ([], ["--help"], ["-h"]) and words[0] in GROUPS:
        told = f"usage: mainspring {words[0]} VERB ...\n\n{listing(words[0] + ' ')}"
    elif words == ["--version"]:
        told = __version__
    if told:
        if code := guarded(lambda: tell(told), as_json):
            sys.exit(code)
        return
    with interruptible():
        code = guarded(lambda: answer(words, as_json, quiet), as_json)
    sys.exit(code)


def tell(text: str) -> int:
    streams.put(text)
    return 0


def answer(words: Sequence[str], as_json: bool, quiet: bool) -> int:
    """Runs a command and prints its result; the exit code."""
    from mainspring.console import printing

    with printing(as_json, quiet):
        try:
            result = call(words)
        except NotFetched as error:
            if as_json or quiet or not wanted(error):
                raise
            call(["get", error.name])
            result = call(words)
        if result is None:
            return 0
        for line in result.lines(as_json):
            streams.put(line)
        return int(result.exit_code)


def wanted(error: NotFetched) -> bool:
    """Asks a person who sits at a terminal whether the model is to be fetched now."""
    if not (streams.is_typed() and sys.stderr.isatty()):
        return False
    print(f"{error.told} now, {error.terms}? [Y/n] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("", "y", "yes")


class Stopped(KeyboardInterrupt):
    """A signal that asks the process to end."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block SIGTERM ends the work in order, as Ctrl-C does. The next signal finds the
    system's own handlers, and ends the process at once. What is ignored (by `nohup`, or for what a
    script put into the background) stays so; in another than the main thread nothing is caught."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    caught = [number for number, handler in before.items() if handler != signal.SIG_IGN]

    def stop(number: int, frame: FrameType | None) -> None:
        for each in caught:
            signal.signal(each, signal.SIG_DFL)
        raise Stopped(number)

    for number in caught:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])


def guarded(work: Callable[[], int], as_json: bool) -> int:
    """Turns errors into a message and an exit code; a traceback only for our own mistakes. What was
    noted with an error, such as what goes on after it, is part of the message."""

    def say(error: BaseException, message: str) -> None:
        message = "; ".join([message, *vars(error).get("__notes__", ())])
        if as_json:
            streams.put(json.dumps({"error": type(error).__name__, "message": message}))
        print(f"error: {message}", file=sys.stderr)

    try:
        return work()
    except MainspringError as error:
        say(error, str(error))
        return error.exit_code
    except KeyboardInterrupt as error:
        number = signal.Signals(error.number if isinstance(error, Stopped) else signal.SIGINT)
        say(error, f"stopped by {'Ctrl-C' if number == signal.SIGINT else number.name}")
        return 128 + number
    except BrokenPipeError:
        streams.drop_output()  # its reader went away (`| head`), which is no error
        return 0
    except OSError as error:  # the user's disk, folders and permissions
        place = f"{error.filename}: " if error.filename else ""
        say(error, f"{place}{error.strerror or error}")
        return 2
    except Exception as error:  # noqa: BLE001  (the last frame there is)
        traceback.print_exc()
        say(error, f"{type(error).__name__}: {error}; this is a mistake in Mainspring, not yours")
        return 3


if __name__ == "__main__":
    main()
