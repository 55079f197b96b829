"""`graph`: a knowledge graph out of documents, asked, drawn and exported.

from mainspring.verbs import graph
graph.build("notes", store="kg", entities="runs/ner", relations="runs/relations")
graph.ask("Where was Marie Curie born?", store="kg")
"""

import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mainspring import events
from mainspring.errors import BadOption, Missing
from mainspring.threads import wait_politely
from mainspring.verbs import check_values
from mainspring.verbs.graph_results import Asked, Done, Queried
from mainspring.verbs.output import tell_skipped

if TYPE_CHECKING:
    from mainspring.graph.linking import Encode


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
    encoding: str | None = None,
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
    encoding
        Of text files that are not UTF-8 and have no mark of their own: gb18030, cp1252.
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
    check_values(build, locals())
    if model is not None and (entities or relations):
        raise BadOption("--model writes triples by itself; leave out --entities and --relations")
    if relation_names is not None and (entities or relations):
        raise BadOption(
            "--relation-names is for the chat model; a model of relations knows its own"
        )
    wait_politely()
    from mainspring.data.rows import reading_as
    from mainspring.data.skipped import SkipLog
    from mainspring.graph import building
    from mainspring.graph.documents import gone
    from mainspring.graph.linking import Aliases, read_aliases
    from mainspring.graph.store import writing
    from mainspring.verbs import graph_building as asked
    from mainspring.verbs.applying import count_inputs

    use = asked.use_of(entities or relations or model or "starter", precision, device)
    with reading_as(encoding), SkipLog(strict=strict) as skipped:
        request = asked.request_for(docs, use, text, lines, strict)
        seen: dict[str, str] = {}
        documents = asked.documents_of(request, skipped, id, seen)
        first = next(documents)  # what cannot be read is told before a model is loaded
        names = Aliases() if aliases is None else read_aliases(aliases, skipped)
        with writing(store, "building", base) as graph:
            settings = building.Settings(passage, min_score, names, _encode(encoder), encoder or "")
            building.check(settings)
            extractor = asked.extractor_of(entities, relations, model, relation_names, use)
            found, total = chain([first], documents), count_inputs(request)
            try:
                built = building.build(found, graph, extractor, settings, total)
            except KeyboardInterrupt as error:
                error.add_note(f"what was read is in {store}, the same command goes on")
                raise
            outdated = gone(graph.documents(), seen, asked.blank_files(request))
            graph.remove(outdated)
        tell_skipped(skipped)
    facts = {"store": str(store), **vars(built), "links": dict(built.links)}
    facts |= {"skipped": skipped.total, "withdrawn": outdated}
    said = [
        f"{store}: {built.documents} documents read, {built.done_before} done before",
        f"  {built.relations} relations between {built.mentions} mentions",
    ]
    if outdated:
        said.append(f"  {len(outdated)} documents withdrawn, which their files hold no longer")
    if built.lost:
        said.append(
            f"  {built.lost} answers of the model are not in the text, or say a thing of itself, "
            "and were left out"
        )
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
        tell_skipped(skipped)
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
    check_values(globals()["query"], locals())
    from mainspring.graph.querying import run_query
    from mainspring.graph.store import existing
    from mainspring.graph.vocabulary import prefixes

    with existing(store) as base:
        results = run_query(Path(store), base, _words(query), seconds=seconds, rows=rows)
    if results.more:
        events.warn(f"only the first {rows} rows; --rows gives more")
    return Queried(results, format, prefixes(base))


def ask(
    question: str, *, store: str | Path, encoder: str | None = None, least: float = 0.1
) -> Asked:
    """Ask a knowledge graph in words. The answer is a path of facts, with where they stand.

    Parameters
    ----------
    question
        A question that names a thing in the graph: "Where was Marie Curie born?" It may ask who,
        what, where or when, how many, whether something is so, or how two things are related; in
        English or Chinese.
    store
        Folder of the graph.
    encoder
        Sentence encoder that compares the question with the names of relations by meaning: minilm.
        Without it only words that are the same or of the same kind of relation count.
    least
        How well a fact must fit the question, 0 to 1. An answer is sure where every word of the
        question is accounted for; others are told as guesses.
    """
    from mainspring.graph.asking import Asker
    from mainspring.graph.store import reading

    if not question.strip():
        raise BadOption("the question is empty")
    if not 0 <= least <= 1:
        raise BadOption(f"--least must lie between 0 and 1, not be {least}")
    with reading(store) as graph:
        asker = Asker(graph, _encode(encoder))
        answered = asker.ask(question, least=least)
        steps = [*(s for answer in answered.answers for s in answer.path), *answered.known]
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
        if sys.stdin is None:
            raise Missing("nothing to read: standard input is closed")
        return sys.stdin.read()
    if "\n" not in query and query.endswith((".rq", ".sparql")):
        file = Path(query)
        if not file.is_file():
            raise Missing(f"no file {file}")
        return file.read_text(encoding="utf-8-sig", errors="replace")
    return query


def _nearest(name: str, documents: Sequence[str]) -> str:
    import difflib

    wanted = name if ":" in name else Path(name).resolve().as_uri()
    near = difflib.get_close_matches(wanted, documents, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _encode(encoder: str | None) -> "Encode | None":
    """The encoder as a function; nothing heavy is imported where there is none."""
    if encoder is None:
        return None
    from mainspring.graph.encoding import encoder as made

    return made(encoder)
