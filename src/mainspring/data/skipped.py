"""Rows that could not be used: counted, and listed in a file with their place and the reason."""

import json
from collections import Counter
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Any

from mainspring.data.rows import UNDECODABLE_BYTES, likely_encodings
from mainspring.errors import BadData
from mainspring.text import shorten

RAW_LENGTH = 200


class SkipLog:
    """Collects the broken rows of one pass over the data; holds counts in memory, never rows.

    With `path`, each broken row becomes one line of JSON there:
    `{"file": ..., "line": ..., "reason": ..., "detail": ..., "raw": ...}`, where `reason` is one of
    a few fixed phrases, `detail` says more and `raw` is the beginning of the row as it was read;
    rows that were put right and used are there too, with `"used": true`.
    The file is made by the first broken row; an older one is removed. With `strict`, the first
    broken row raises BadData instead.
    """

    def __init__(self, path: str | Path | None = None, *, strict: bool = False):
        self.path = None if path is None else Path(path)
        self.strict = strict
        self.counts: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._undecodable: Path | None = None
        self._file: TextIOWrapper | None = None
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    @property
    def total(self) -> int:
        """How many rows were skipped."""
        return self.counts.total()

    def add(
        self, reason: str, *, file: str | Path, line: int, detail: str = "", raw: str = ""
    ) -> None:
        """Counts and lists one broken row; raises BadData where the log is strict."""
        if self.strict:
            raise BadData(f"{reason}: {detail}" if detail else reason, file=file, line=line)
        self.counts[reason] += 1
        if reason == UNDECODABLE_BYTES and self._undecodable is None:
            self._undecodable = Path(file)
        self._first.setdefault(reason, f"{file}:{line}" + (f": {detail}" if detail else ""))
        entry = {"file": str(file), "line": line, "reason": reason}
        self._write(entry | {"detail": detail, "raw": shorten(raw, RAW_LENGTH)})

    def mend(self, reason: str, *, file: str | Path, line: int, detail: str = "") -> None:
        """Counts and lists something that was put right, or left aside, in a row that is used."""
        self.mended[reason] += 1
        entry = {"file": str(file), "line": line, "reason": reason}
        self._write(entry | {"detail": detail, "used": True})

    def _write(self, entry: dict[str, Any]) -> None:
        if self.path is None:
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8", errors="replace", buffering=1)
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def summary(self) -> str:
        """The reasons, how often each came and where first: "3 empty text (first: a.csv:7)"; for
        undecodable bytes also what the file's encoding may be."""
        said = [
            f"{count} {reason} (first: {self._first[reason]})"
            for reason, count in self.counts.most_common()
        ]
        if self._undecodable is not None and self._undecodable.is_file():
            found = likely_encodings(self._undecodable)
            told = "name its --encoding, or mend the lines that have another"
            if found:
                told = f"it looks like {' or '.join(found)}: --encoding {found[0]}"
            said.append(f"{self._undecodable} is not all UTF-8; {told}")
        return "; ".join(said)

    def mendings(self) -> str:
        """What was put right in rows that are used, and how often: "3 answer start repaired"."""
        return ", ".join(f"{count} {reason}" for reason, count in self.mended.most_common())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> "SkipLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
