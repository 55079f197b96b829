"""`graph`: a knowledge graph out of documents, asked, drawn and exported.

from mainspring.verbs import graph
graph.build("notes", store="kg", entities="runs/ner", relations="runs/relations")
graph.ask("Where was Marie Curie born?", store="kg")
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mainspring import events, registry
from mainspring.errors import BadOption, Missing
from mainspring.threads import wait_politely
from mainspring.verbs import check_choices
from mainspring.verbs.graph_results import Asked, Done, Queried

if TYPE_CHECKING:
    from mainspring.data.skipped import SkipLog
    from mainspring.graph.extraction import Predict
    from mainspring.graph.linking import Aliases, Encode
    from mainspring.graph.records import Document, Extractor
    from mainspring.verbs.applying import Request
    from mainspring.verbs.opening import Use

ACCEPTED = ("text", "content", "document", "article", "body", "context", "sentence")


def build(
    *docs: str | Path,
    store: str | Path,
    entities: str | None = None,
    relations: str | None = None,
    model: str | None = None,
    relation_names: str | None = None,
    aliases: str | Path | None = None,
    encoder: str | None = None,
    base: str | None = None,
    text: str | None = None,
    id: str | None = None,
    lines: bool = False,
    passage: int = 600,
    min_score: float = 0.0,
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    strict: bool = False,
) -> Done:
    """Read documents into a knowledge graph.

    Each document is one transaction: a build that was stopped goes on where it was, and documents
    that did not change are passed over. A document that changed takes its own place.

    Parameters
    ----------
    docs
        Texts, files, folders, tables; "-" or nothing reads standard input.
    store
        Folder of the graph; made where it is not there.
    entities
        Model of the task `entities`.
    relations
        Model of the task `relations`.
    model
        Chat model that writes triples under a grammar, where neither of those is given; the
        starter by default.
    relation_names
        The relations that the chat model may use, with commas between them.
    aliases
        Table of names: alias, id, and perhaps label, type and description.
    encoder
        Sentence encoder that looks at the context of names with several meanings: minilm.
    base
        IRI under which names are made, for a new graph.
    text
        Column of the text, where its name is not one of the accepted ones.
    id
        Column that names the rows of a table; by default they are known by their lines.
    lines
        Each line of a text file or of standard input is a document.
    passage
        Longest piece, in characters, that is read at a time.
    min_score
        Entities and relations whose model is less sure (0 to 1) are left out.
    precision
        Arithmetic; auto is bfloat16 where the hardware has it.
    device
        Where to compute; auto is a GPU where there is one.
    strict
        Stop at the first broken row instead of counting it.
    """
    check_choices(build, locals())
    if model is not None and (entities or relations):
        raise BadOption("--model writes triples by itself; leave out --entities and --relations")
    if relation_names is not None and (entities or relations):
        raise BadOption(
            "--relation-names is for the chat model; a model of relations knows its own"
        )
    wait_politely()
    from mainspring.data.skipped import SkipLog
    from mainspring.graph import building
    from mainspring.graph.store import writing

    use = _use(entities or relations or model or "starter", precision, device)
    with SkipLog(strict=strict) as skipped:
        request = _request(docs, use, text, lines, strict)
        documents = _documents(request, skipped, id)
        first = next(documents)  # what cannot be read is told before a model is loaded
        names = _aliases(aliases, skipped)
        with writing(store, "building", base) as graph:
            settings = building.Settings(passage, min_score, names, _encode(encoder), encoder or "")
            building.check(settings)
            extractor = _extractor(entities, relations, model, relation_names, use)
            built = building.build(_chained(first, documents), graph, extractor, settings)
        _tell_skipped(skipped)
    facts = {"store": str(store), **vars(built), "links": dict(built.links)}
    facts["skipped"] = skipped.total
    said = [
        f"{store}: {built.documents} documents read, {built.done_before} done before",
        f"  {built.relations} relations between {built.mentions} mentions",
    ]
    if built.lost:
        said.append(f"  {built.lost} answers of the model are not in the text, and were left out")
    if built.links:
        ways = ", ".join(f"{count} by {how}" for how, count in built.links.most_common())
        said.append(f"  linked: {ways}")
    return Done(facts, said)


def import_(
    *files: str | Path,
    store: str | Path,
    base: str | None = None,
    columns: dict[str, str] | None = None,
    strict: bool = False,
) -> Done:
    """Put triples that are there already into a knowledge graph.

    Parameters
    ----------
    files
        Tables with the columns head, relation and tail (and perhaps head_type, tail_type, score;
        three columns need no header), N-Triples or Turtle.
    store
        Folder of the graph; made where it is not there.
    base
        IRI under which names are made, for a new graph.
    columns
        Columns of any fields, by field: --columns.head country.
    strict
        Stop at the first broken row instead of counting it.
    """
    from mainspring.data.skipped import SkipLog
    from mainspring.graph.importing import import_file
    from mainspring.graph.store import writing

    if not files:
        raise Missing("nothing to import: name tables, N-Triples or Turtle files")
    for file in files:
        if not Path(file).is_file():
            raise Missing(f"no file {file}")
    triples = done_before = 0
    with SkipLog(strict=strict) as skipped:
        with writing(store, "importing", base) as graph:
            for file in files:
                made = import_file(Path(file), graph, skipped, columns)
                triples += made.triples
                done_before += made.done_before
        _tell_skipped(skipped)
    facts = {"store": str(store), "triples": triples, "done_before": done_before}
    said = f"{store}: {triples} triples read, {done_before} files done before"
    return Done({**facts, "skipped": skipped.total}, [said])


def withdraw(*docs: str | Path, store: str | Path) -> Done:
    """Take documents out of a knowledge graph, with all that only they say.

    Parameters
    ----------
    docs
        Files (a table with all its rows), folders, or the IRIs of documents.
    store
        Folder of the graph.
    """
    from mainspring.graph.documents import named
    from mainspring.graph.store import existing, writing

    if not docs:
        raise Missing("name the documents to withdraw: files, folders or IRIs")
    with existing(store):
        pass
    with writing(store, "withdrawing") as graph:
        there = graph.documents()
        chosen: dict[str, None] = {}
        for doc in docs:
            found = named(there, str(doc))
            if not found:
                raise Missing(f"no document {doc} in {store}{_nearest(str(doc), there)}")
            chosen |= dict.fromkeys(found)
        graph.remove(chosen)
        left = len(graph.documents())
    facts = {"store": str(store), "withdrawn": list(chosen), "documents": left}
    return Done(facts, [f"{store}: {len(chosen)} documents withdrawn, {left} left"])


def query(
    query: str,
    *,
    store: str | Path,
    format: Literal["table", "csv", "tsv", "json"] = "table",
    seconds: float = 60.0,
    rows: int = 10_000,
) -> Queried:
    """Ask a knowledge graph in SPARQL 1.1.

    The prefixes entity, relation, type, term, rdf, rdfs, xsd, prov, nif, itsrdf and dcterms are
    declared. The default graph holds each fact once; `GRAPH ?document { … }` is what a document
    states, with its provenance.

    Parameters
    ----------
    query
        SELECT, ASK, CONSTRUCT or DESCRIBE; a file .rq or .sparql; "-" reads standard input.
    store
        Folder of the graph.
    format
        How rows are shown.
    seconds
        The longest a query may take.
    rows
        The most rows that are given.
    """
    check_choices(globals()["query"], locals())
    from mainspring.graph.querying import run_query
    from mainspring.graph.store import existing
    from mainspring.graph.vocabulary import prefixes

    with existing(store) as base:
        results = run_query(Path(store), base, _words(query), seconds=seconds, rows=rows)
    if results.more:
        events.warn(f"only the first {rows} rows; --rows gives more")
    return Queried(results, format, prefixes(base))


def ask(question: str, *, store: str | Path, encoder: str | None = None) -> Asked:
    """Ask a knowledge graph in words. The answer is a path of facts, with where they stand.

    Parameters
    ----------
    question
        A question that names a thing in the graph: "Where was Marie Curie born?"
    store
        Folder of the graph.
    encoder
        Sentence encoder that compares the question with the names of relations by meaning: minilm.
        Without it only shared words count.
    """
    from mainspring.graph.asking import Asker
    from mainspring.graph.store import reading

    if not question.strip():
        raise BadOption("the question is empty")
    with reading(store) as graph:
        asker = Asker(graph, _encode(encoder))
        answered = asker.ask(question)
        steps = [step for answer in answered.answers for step in answer.path]
        iris = {
            iri
            for step in steps
            for iri in (step.edge.head, step.edge.relation, step.edge.tail)
            if not (step.edge.is_value and iri == step.edge.tail)
        }
        names = {iri: asker.label(iri) for iri in iris}
    return Asked(answered, names)


def export(file: str | Path, *, store: str | Path) -> Done:
    """Write a knowledge graph into a file.

    Parameters
    ----------
    file
        .ttl or .nt: the facts; .nq: everything, with each document's graph and provenance; .csv or
        .tsv: a row for each fact and place; .graphml: for programs that draw and count.
    store
        Folder of the graph.
    """
    from mainspring.graph.exporting import export as write
    from mainspring.graph.store import reading

    with reading(store) as graph:
        count = write(graph, Path(file))
    facts = {"store": str(store), "file": str(file), "count": count}
    return Done(facts, [f"{file}: {count} written"])


def page(file: str | Path, *, store: str | Path, nodes: int = 300) -> Done:
    """Draw a knowledge graph on one HTML page that needs no network.

    Parameters
    ----------
    file
        The page to write: graph.html.
    store
        Folder of the graph.
    nodes
        The most things that are drawn: the busiest part of a larger graph.
    """
    from mainspring.graph.exporting import drawing, replacing
    from mainspring.graph.page import page as draw
    from mainspring.graph.store import reading

    file = Path(file)
    if file.suffix.lower() not in (".html", ".htm"):
        raise BadOption(f"{file}: the suffix must be .html")
    with reading(store) as graph:
        html, drawn, there = draw(drawing(graph), Path(store).resolve().name, nodes)
    with replacing(file) as out:
        out.write(html)
    if drawn < there:
        events.warn(f"{drawn} of {there} things are drawn, the busiest part (--nodes)")
    facts = {"store": str(store), "file": str(file), "drawn": drawn, "things": there}
    return Done(facts, [f"{file}: {drawn} of {there} things drawn"])


# -- what they share -------------------------------------------------------------------------------


def _words(query: str) -> str:
    """A query as given, from a file, or from standard input."""
    if query == "-":
        return sys.stdin.read()
    if "\n" not in query and query.endswith((".rq", ".sparql")):
        file = Path(query)
        if not file.is_file():
            raise Missing(f"no file {file}")
        return file.read_text(encoding="utf-8-sig", errors="replace")
    return query


def _tell_skipped(skipped: "SkipLog") -> None:
    if skipped.total:
        events.warn(f"{skipped.total} rows skipped: {skipped.summary()}")


def _nearest(name: str, documents: Sequence[str]) -> str:
    import difflib

    wanted = name if ":" in name else Path(name).resolve().as_uri()
    near = difflib.get_close_matches(wanted, documents, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _encode(encoder: str | None) -> "Encode | None":
    if encoder is None:
        return None
    from mainspring.graph.encoding import encoder as made

    return made(encoder)


def _aliases(path: str | Path | None, skipped: "SkipLog") -> "Aliases":
    from mainspring.graph.linking import Aliases, read_aliases

    return Aliases() if path is None else read_aliases(path, skipped)


# -- documents -------------------------------------------------------------------------------------


def _use(model: str, precision: str, device: str) -> "Use":
    from mainspring.verbs.opening import Use

    return Use(model, None, {}, "split", precision, device, {})


def _request(
    docs: Sequence[str | Path], use: "Use", text: str | None, lines: bool, strict: bool
) -> "Request":
    """The documents, read as `run` reads the inputs of a task with one text."""
    from mainspring.data.schema import Field
    from mainspring.tasks import Task
    from mainspring.verbs.applying import Request

    field = Field("text", "text", ACCEPTED, "the document's text")
    task = Task("graph", "a knowledge graph", (field,), (), output="graph", best="loss")
    return Request(
        task=task,
        inputs=tuple(map(str, docs)),
        use=use,
        out=None,
        named={} if text is None else {"text": text},
        given={},
        lines=lines,
        strict=strict,
    )


def _documents(request: "Request", skipped: "SkipLog", column: str | None) -> "Iterator[Document]":
    """Documents in order, each once; a second one under a name that is taken goes to `skipped`."""
    from mainspring.graph.documents import document_of
    from mainspring.graph.vocabulary import digest
    from mainspring.verbs.applying import input_rows

    seen: dict[str, str] = {}
    for example in input_rows(request, skipped):
        row = example.row
        document = document_of(row, example.values["text"], column, request.lines)
        said = digest(document.text)
        if seen.setdefault(document.iri, said) == said:
            yield document
        else:
            detail = f"two documents are called {document.iri}"
            skipped.add("repeated name", file=row.file, line=row.line, detail=detail)


def _chained(first: "Document", rest: "Iterator[Document]") -> "Iterator[Document]":
    yield first
    yield from rest


# -- extractors ------------------------------------------------------------------------------------


def _extractor(
    entities: str | None,
    relations: str | None,
    model: str | None,
    relation_names: str | None,
    use: "Use",
) -> "Extractor":
    from mainspring.graph.extraction import by_models
    from mainspring.graph.records import Extractor

    if entities is None and relations is None:
        return _prompted(model or "starter", relation_names, use)
    if relations is None:
        events.note("no --relations: the graph holds entities only")
    extract = by_models(_opened("entities", entities, use), _opened("relations", relations, use))
    named = tuple(name for name in (entities, relations) if name is not None)
    key = "models " + " ".join(f"{name} {_weights(name)}" for name in named)
    return Extractor(named, key, extract)


def _opened(task: str, model: str | None, use: "Use") -> "Predict | None":
    from mainspring.verbs.opening import open_for

    if model is None:
        return None
    opened = open_for(registry.find("tasks", task), replace(use, model=model))
    return lambda rows: opened.predict(rows, lambda done: None)


def _prompted(model: str, relation_names: str | None, use: "Use") -> "Extractor":
    from mainspring.checkpoints.bundle import load
    from mainspring.compute.devices import choose_device
    from mainspring.compute.precision import prepare
    from mainspring.graph.prompting import by_prompt
    from mainspring.graph.records import Extractor

    names = tuple(n.strip() for n in (relation_names or "").split(",") if n.strip())
    events.note(f"triples are written by `{model}` under a grammar")
    bundle = load(model)
    extract = by_prompt(bundle, names)
    bundle.model.to(choose_device(use.device))
    prepare(bundle.model, use.precision)
    return Extractor((model,), f"prompt {_weights(model)} {names}", extract)


def _weights(model: str) -> str:
    """A hash of a model's files, so that a model that was trained again reads documents again."""
    import hashlib

    from mainspring.checkpoints.locate import locate
    from mainspring.graph.vocabulary import digest

    place = locate(model)
    kinds = ("*.safetensors", "*.gguf", "*.json")
    files = [place] if place.is_file() else sorted(f for kind in kinds for f in place.glob(kind))
    hashes = []
    for file in files:
        with file.open("rb") as stream:
            hashes.append((file.name, hashlib.file_digest(stream, "blake2b").hexdigest()))
    return digest(*hashes)
