"""The words of the graph: namespaces, and IRIs that are made from names alone.

    <file:///news/a.txt>                    a document, and the named graph of all it says
    <file:///news/a.txt#char=0,11>          a mention in it (RFC 5147), with its entity
    <file:///news/a.txt#statement=3f…>      a triple as this document states it
    entity:person:marie_curie               an entity that no alias table knows
    relation:born_in   type:person

Every name gives the same IRI in every run, so that building again changes nothing.
"""

import hashlib
import re
import unicodedata
from functools import lru_cache
from urllib.parse import quote

BASE = "urn:mainspring:"

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
RDFS = "http://www.w3.org/2000/01/rdf-schema#"
XSD = "http://www.w3.org/2001/XMLSchema#"
PROV = "http://www.w3.org/ns/prov#"
NIF = "http://persistence.uni-leipzig.org/nlp2rdf/ontologies/nif-core#"
ITS = "http://www.w3.org/2005/11/its/rdf#"
DCTERMS = "http://purl.org/dc/terms/"
TERM = "urn:mainspring:term/"

TYPE, LABEL = RDF + "type", RDFS + "label"
STATEMENT = RDF + "Statement"
SUBJECT, PREDICATE, OBJECT = RDF + "subject", RDF + "predicate", RDF + "object"
BEGIN, END, TEXT = NIF + "beginIndex", NIF + "endIndex", NIF + "anchorOf"
ENTITY_OF, LINK_SCORE = ITS + "taIdentRef", ITS + "taConfidence"
SCORE, MODEL, LINKED_BY = TERM + "score", TERM + "model", TERM + "linkedBy"
LINE = TERM + "line"
HEAD_MENTION, TAIL_MENTION = TERM + "subjectMention", TERM + "objectMention"
DOCUMENT, MENTION = TERM + "Document", TERM + "Mention"
CONTENT, SETTINGS, STATE = TERM + "contentHash", TERM + "settings", TERM + "state"

LONGEST_NAME = 120  # characters of a name in an IRI; a longer one ends in its hash

_JOINED = re.compile(r"(?<=\b[^\W\d_])\.|['’‘`´]")  # U.S. is US, O'Neill is ONeill
_IRI = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://|urn:|tag:|mailto:)[^\x00-\x20<>\"{}|^`\\]+")
_KEPT = "#%&@*"  # punctuation that tells names apart: C#, AT&T


def prefixes(base: str) -> dict[str, str]:
    """The prefixes that every query may use undeclared."""
    return {
        "entity": base + "entity/",
        "relation": base + "relation/",
        "type": base + "type/",
        "term": TERM,
        "rdf": RDF,
        "rdfs": RDFS,
        "xsd": XSD,
        "prov": PROV,
        "nif": NIF,
        "itsrdf": ITS,
        "dcterms": DCTERMS,
    }


def normal(name: str) -> str:
    """The form in which names are compared: NFKC, no case, punctuation as blanks, blanks single.

    What is nothing but punctuation stays as it is.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    bare = "".join(
        " " if c not in _KEPT and unicodedata.category(c)[0] == "P" else c
        for c in _JOINED.sub("", folded)
    )
    return " ".join(bare.split()) or " ".join(folded.split())


@lru_cache(maxsize=1 << 16)
def slug(name: str) -> str:
    """The normal form as a part of an IRI; empty names are "_"."""
    words = normal(name).replace(" ", "_")
    if len(words) > LONGEST_NAME:
        words = f"{words[:LONGEST_NAME]}_{digest(words)[:8]}"
    return "".join(c if c.isalnum() or _is_mark(c) or c in "_-" else _hex(c) for c in words) or "_"


def _hex(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M" and not character.isascii()


def entity_iri(base: str, name: str, type_: str) -> str:
    return f"{base}entity/{slug(type_)}:{slug(name)}"


def relation_iri(base: str, name: str) -> str:
    return f"{base}relation/{slug(name)}"


def type_iri(base: str, name: str) -> str:
    return f"{base}type/{slug(name)}"


def given_iri(base: str, kind: str, name: str) -> str:
    """An identifier of the user's: an IRI stays one, anything else becomes one under `base`."""
    if is_iri(name):
        return name
    return f"{base}{kind}/{quote(name.strip(), safe='')}"


def is_iri(name: str) -> bool:
    """Whether `name` is an absolute IRI as RDF takes it (RFC 3987, without blanks or brackets)."""
    return _IRI.fullmatch(name) is not None


def part_iri(document: str, name: str) -> str:
    """The IRI of a part of a document, which may be a part of a file itself."""
    return f"{document}{'&' if '#' in document else '#'}{name}"


def digest(*parts: object) -> str:
    """A hash of some values, 32 hexadecimal digits."""
    joined = "\x1f".join(map(str, parts))
    return hashlib.blake2b(joined.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
