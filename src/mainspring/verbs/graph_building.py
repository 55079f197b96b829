"""What `graph build` needs before it builds: the documents and the extractor."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mainspring import events, registry
from mainspring.data.passages import document_files
from mainspring.data.rows import open_text
from mainspring.data.schema import Field
from mainspring.data.skipped import SkipLog
from mainspring.data.sources import TEXTS
from mainspring.errors import Missing
from mainspring.graph.documents import document_of
from mainspring.graph.extraction import Predict, by_models
from mainspring.graph.records import Document, Extractor
from mainspring.graph.vocabulary import digest
from mainspring.tasks import Task
from mainspring.verbs import given_inputs
from mainspring.verbs.applying import Request, input_rows
from mainspring.verbs.opening import Use, open_for

ACCEPTED = ("text", "content", "document", "article", "body", "context", "sentence")
WORD = re.compile(r"\w[\w.-]*", re.ASCII)  # more likely a name that is misspelt than a document

# -- documents -------------------------------------------------------------------------------------


def use_of(model: str, precision: str, device: str) -> Use:
    return Use(model, None, {}, "split", precision, device, {})


def request_for(
    docs: Sequence[str | Path], use: Use, text: str | None, lines: bool, strict: bool
) -> Request:
    """The documents, read as `run` reads the inputs of a task with one text; of folders all files
    that may hold documents. Missing where a word names nothing."""
    given: list[str] = []
    for one in given_inputs(docs):
        if one.strip() and Path(one).is_dir():
            files, _ = document_files(Path(one))
            given += map(str, files)
        elif WORD.fullmatch(one) and not Path(one).exists():
            raise Missing(f"no file or folder `{one}`; a text of one word comes by standard input")
        else:
            given.append(one)
    field = Field("text", "text", ACCEPTED, "the document's text")
    task = Task("graph", "a knowledge graph", (field,), (), output="graph", best="loss")
    return Request(
        task=task,
        inputs=tuple(given),
        use=use,
        out=None,
        named={} if text is None else {"text": text},
        given={},
        lines=lines,
        strict=strict,
    )


def documents_of(
    request: Request, skipped: SkipLog, column: str | None, seen: dict[str, str]
) -> Iterator[Document]:
    """Documents in order, each once; a second one under a name that is taken goes to `skipped`.
    `seen` is filled with their names, and what their texts are."""
    for example in input_rows(request, skipped):
        row = example.row
        document = document_of(row, example.values["text"], column, request.lines)
        said = digest(document.text)
        if seen.setdefault(document.iri, said) == said:
            yield document
        else:
            detail = f"two documents are called {document.iri}"
            skipped.add("repeated name", file=row.file, line=row.line, detail=detail)


def blank_files(request: Request) -> list[Path]:
    """The text files among the inputs in which nothing stands."""
    files = (Path(one) for one in request.inputs if one.endswith(TEXTS))
    return [file for file in files if file.is_file() and not _says_anything(file)]


def _says_anything(file: Path) -> bool:
    with open_text(file) as stream:
        return any(line.strip() for line in iter(lambda: stream.readline(1 << 16), ""))


# -- extractors ------------------------------------------------------------------------------------


def extractor_of(
    entities: str | None,
    relations: str | None,
    model: str | None,
    relation_names: str | None,
    use: Use,
) -> Extractor:
    if entities is None and relations is None:
        return _prompted(model or "starter", relation_names, use)
    if relations is None:
        events.note("no --relations: the graph holds entities only")
    extract = by_models(_opened("entities", entities, use), _opened("relations", relations, use))
    named = tuple(name for name in (entities, relations) if name is not None)
    key = "models " + " ".join(f"{name} {_weights(name)}" for name in named)
    return Extractor(named, key, extract)


def _opened(task: str, model: str | None, use: Use) -> Predict | None:
    if model is None:
        return None
    from mainspring.formulations import relation_pairs

    opened = open_for(registry.find("tasks", task), replace(use, model=model))
    if opened.formulation is relation_pairs.FORMULATION and relation_pairs.finds_everywhere(
        opened.setup
    ):
        events.warn(
            f"`{model}` has learnt no pair without a relation: it states one between any two "
            "entities of a passage (--min-score leaves out what it is not sure of)"
        )
    return lambda rows: opened.predict(rows, lambda done: None)


def _prompted(model: str, relation_names: str | None, use: Use) -> Extractor:
    from mainspring.checkpoints.bundle import load
    from mainspring.compute.precision import ready
    from mainspring.graph.prompting import by_prompt

    names = tuple(n.strip() for n in (relation_names or "").split(",") if n.strip())
    events.note(f"triples are written by `{model}` under a grammar")
    bundle = load(model)
    extract = by_prompt(bundle, names)
    ready(bundle.model, use.precision, use.device)
    return Extractor((model,), f"prompt {_weights(model)} {names}", extract)


def _weights(model: str) -> str:
    """A hash of a model's files, so that a model that was trained again reads documents again."""
    import hashlib

    from mainspring.checkpoints.locate import locate

    place = locate(model)
    kinds = ("*.safetensors", "*.gguf", "*.json")
    files = [place] if place.is_file() else sorted(f for kind in kinds for f in place.glob(kind))
    hashes = []
    for file in files:
        with file.open("rb") as stream:
            hashes.append((file.name, hashlib.file_digest(stream, "blake2b").hexdigest()))
    return digest(*hashes)
