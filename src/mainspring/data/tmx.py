"""TMX, the exchange format of translation memories (TMX 1.4b): one row per unit, one column per
language.

The standard library's expat does the parsing, a block at a time. Declarations of entities are
refused, and nothing outside the file is ever read.
"""

from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from mainspring.data.rows import LONGEST_ROW, Row, open_bytes
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData
from mainspring.text import SPACELESS_CHARACTER, shorten

BLOCK = 1 << 16
CODES = ("bpt", "ept", "it", "ph", "ut")  # elements that hold another format's marks, not text
ALONE = ("it", "ph")  # those that stand for something by themselves: a line break, a picture


def read_tmx(path: Path, skipped: SkipLog) -> Iterator[Row]:
    """Rows of a TMX file: the columns are the languages of its segments, in lower case ("en-us"),
    and `tuid` where the unit has one.

    A unit with fewer than two languages that say something goes to `skipped`; of several
    segments in one language the first is taken, which is noted there. Raises BadData where
    the XML is broken, after the rows before that place.
    """
    units = _Units(path, skipped)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = units.start
    parser.EndElementHandler = units.end
    parser.CharacterDataHandler = units.characters
    parser.EntityDeclHandler = units.refuse
    units.parser = parser
    with open_bytes(path) as file:
        while True:
            block = file.read(BLOCK)
            try:
                parser.Parse(block, not block)
            except expat.ExpatError as error:
                yield from units.take()
                problem = f"broken XML: {expat.ErrorString(error.code)}"
                raise BadData(problem, file=path, line=error.lineno) from None
            yield from units.take()
            if not block:
                return


class _Units:
    """What the parser calls; holds the units of one block."""

    parser: expat.XMLParserType

    def __init__(self, path: Path, skipped: SkipLog):
        self.path, self.skipped = path, skipped
        self.done: list[Row] = []
        self.depth = 0
        self.line, self.size = 1, 0
        self.segments: dict[str, str] = {}
        self.name = ""
        self.language = ""
        self.parted = False  # whether something stands between this and the text before
        self.text: list[str] | None = None  # of the segment that is open
        self.codes = 0  # how many elements with foreign marks are open

    def take(self) -> list[Row]:
        rows, self.done = self.done, []
        return rows

    def refuse(self, name: str, *declared: object) -> None:
        raise BadData(
            f"declares an entity, `{name}`; such files are refused",
            file=self.path,
            line=self.parser.CurrentLineNumber,
        )

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self.depth == 0 and name != "tmx":
            raise BadData(f"not a TMX file: it begins with <{name}>", file=self.path)
        self.depth += 1
        match name:
            case "tu":
                self.line, self.size = self.parser.CurrentLineNumber, 0
                self.segments = {}
                self.name = attributes.get("tuid", "").strip()
            case "tuv":
                code = attributes.get("xml:lang", attributes.get("lang", ""))
                self.language = code.strip().lower().replace("_", "-")
            case "seg":
                self.text, self.parted = [], False
            case _ if name in CODES:
                self.codes += 1
                self.parted = self.parted or name in ALONE

    def characters(self, text: str) -> None:
        if self.text is None or self.codes:
            return
        self.size += len(text)
        if self.size > LONGEST_ROW:
            detail = f"a unit of more than {LONGEST_ROW} characters"
            raise BadData(detail, file=self.path, line=self.line)
        if self.parted and self.text and _joins(self.text[-1][-1]) and _joins(text[0]):
            self.text.append(" ")
        self.parted = False
        self.text.append(text)

    def end(self, name: str) -> None:
        self.depth -= 1
        match name:
            case "seg" if self.text is not None:
                text = "".join(self.text).strip()
                if text and self.segments.setdefault(self.language, text) != text:
                    detail = f"a second segment in {self.language}: {shorten(text, 60)}"
                    self.skipped.mend(
                        "first of several", file=self.path, line=self.line, detail=detail
                    )
                self.text = None
            case "tu":
                self.finish()
            case _ if name in CODES:
                self.codes -= 1

    def finish(self) -> None:
        self.segments.pop("", None)  # of no language
        if len(self.segments) > 1:
            named = {"tuid": self.name} if self.name else {}
            self.done.append(Row(named | self.segments, str(self.path), self.line))
            return
        found = ", ".join(self.segments) or "none"
        self.skipped.add(
            "missing partner",
            file=self.path,
            line=self.line,
            detail=f"a unit needs segments in two languages or more; found: {found}",
            raw=" ".join(self.segments.values()),
        )


def _joins(letter: str) -> bool:
    """Whether a letter would make one word with another right beside it."""
    return letter.isalnum() and not SPACELESS_CHARACTER.match(letter)
