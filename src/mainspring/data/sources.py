"""What a path given as data holds: which files, in which format, of which split.

A file is one source. A folder is looked at in this order, and the first that applies decides:

1. a Hugging Face dataset saved to disk (`dataset_dict.json` or `state.json`);
2. folders named like splits (`train`, `valid`, `test` ...), each looked at by the same rules;
3. two folders of texts with equal names (`source/a.txt` and `target/a.txt`);
4. files with lines side by side (`train.source` and `train.target`; or one a language, `train.en`
   and `train.de`, of which one may also be named by itself);
5. texts with brat's annotations (`a.txt` and `a.ann`);
6. tables: CSV, TSV, JSONL, JSON, Parquet, Arrow, TMX, CoNLL. `train.csv`,
   `train-00000-of-00002.parquet` and `news_train.jsonl` name their split; where some do, files that
   name none are left out;
7. sound files, of which `a.wav` may have what is spoken in `a.txt`;
8. within a split, folders of texts, each named like the class of its texts (`train/pos/a.txt`);
9. texts: `a.txt` with `a.summary.txt` or `a.target.txt` is a pair, and where no text has a partner
   each is a document;
10. a single folder with any of these, or several of texts, each named like their class.

Files and folders whose name begins with "." or "_" do not count.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mainspring import events
from mainspring.data.audio import SUFFIXES as SOUNDS
from mainspring.data.brat import SUFFIX as BRAT_SUFFIX
from mainspring.data.brat import text_of
from mainspring.data.conll import SUFFIXES as CONLL_SUFFIXES
from mainspring.data.documents import file_language
from mainspring.data.rows import COMPRESSED, stem, suffix
from mainspring.errors import BadData, Missing
from mainspring.text import listed

Kind = Literal["table", "text", "sound", "words", "classes", "line pairs", "file pairs"]

SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
ORDER = ("train", "validation", "test", None)

TABLES = (
    *(".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".feather"),
    *CONLL_SUFFIXES,
    *(".tmx", BRAT_SUFFIX),
)
TEXTS = (".txt", ".text", ".md")
KNOWN = (*TABLES, *TEXTS, *SOUNDS)

# Files that describe a data set and hold no rows.
DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")

NOT_TEXTS = ("readme", "license")

UNLABELLED = ("unsup", "unlabeled", "unlabelled")  # folders beside those of classes

SOURCE_NAMES = ("source", "sources", "src", "article", "articles", "document", "documents")
TARGET_NAMES = ("target", "targets", "tgt", "summary", "summaries", "highlights")
LINE_SUFFIXES = {".source": ".target", ".src": ".tgt"}


@dataclass(frozen=True)
class Source:
    """Files that are read one after another as one set of rows.

    Files of "words" are CoNLL files whatever they are called; texts of "classes"
    belong each to the class that their folder names. For "line pairs" and "file pairs" the
    files come in twos: source, target; None where a text has
    no partner. `split` is "train", "validation", "test", or None where the path does not say.
    """

    kind: Kind
    files: tuple[Path | None, ...]
    split: str | None = None


def sources(path: str | Path) -> list[Source]:
    """What `path` holds, at most one source per split, in the order train, validation, test.

    Raises Missing where there is nothing at `path`, BadData where nothing there can be read.
    """
    path = Path(path)
    if path.is_dir():
        found = _in_folder(path)
        return [source for split in ORDER for source in found if source.split == split]
    if not path.exists():
        near = _nearest(path)
        raise Missing(f"no file or folder {path}" + (f"; did you mean {near}?" if near else ""))
    kind = _kind(path)
    if kind is None and file_language(path):
        found = _language_pairs([e for e in sorted(path.parent.iterdir()) if _is_side(e, path)])
        if not found:
            raise BadData("no file beside it with the same lines in another language", file=path)
        return [replace(pair, split=None) for pair in found]
    if kind is None:
        raise BadData(
            f"unknown kind of file; known suffixes are {listed(KNOWN)} "
            f"(text formats also with {listed(tuple(COMPRESSED))})",
            file=path,
        )
    return [Source(kind, (path,))]


def _in_folder(folder: Path) -> list[Source]:
    entries = [entry for entry in sorted(folder.iterdir()) if entry.name[0] not in "._"]
    files = [entry for entry in entries if entry.is_file()]
    folders = [entry for entry in entries if entry.is_dir()]
    found = (
        _saved_dataset(folder)
        or _split_folders(folders)
        or _paired_folders(folders)
        or _line_pairs(files)
        or _language_pairs(files)
        or _annotated(files)
        or _tables(files)
        or _sounds(files)
        or _texts(files)
    )
    if found:
        return found
    if len(folders) == 1:
        return _in_folder(folders[0])
    if classes := _classes(folders):
        return classes
    raise BadData(
        "no data in this folder"
        + (f"; name one of its folders: {listed([f.name for f in folders])}" if folders else "")
        + f"; known suffixes are {listed(KNOWN)}",
        file=folder,
    )


def _saved_dataset(folder: Path) -> list[Source]:
    """What `datasets.save_to_disk` writes: one data set, or one folder for each split."""
    if (folder / "dataset_dict.json").is_file():
        return _split_folders([folder / n for n in _json(folder / "dataset_dict.json")["splits"]])
    if not (folder / "state.json").is_file():
        return []
    state = _json(folder / "state.json")
    files = tuple(folder / entry["filename"] for entry in state.get("_data_files", []))
    if not files:
        raise BadData("the data set names no data files", file=folder / "state.json")
    if state.get("_indices_data_files"):
        raise BadData("the data set has row indices; call flatten_indices() first", file=folder)
    return [Source("table", files)]


def _json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadData(f"bad JSON: {error}", file=path) from None
    if not isinstance(value, dict):
        raise BadData("not a JSON object", file=path)
    return value


def _split_folders(folders: list[Path]) -> list[Source]:
    named = {folder: SPLITS[folder.name.lower()] for folder in folders if _is_split(folder)}
    _leave_out([folder for folder in folders if folder not in named] if named else [])
    return _merged(
        replace(source, split=split)
        for folder, split in named.items()
        for source in _in_split(folder)
    )


def _in_split(folder: Path) -> list[Source]:
    """What the folder of a split holds: of IMDB's, lists of addresses lie beside the classes."""
    entries = [entry for entry in sorted(folder.iterdir()) if entry.name[0] not in "._"]
    files = [entry for entry in entries if entry.is_file() and suffix(entry) in KNOWN]
    if any(suffix(file) not in TEXTS for file in files):
        return _in_folder(folder)
    classes = _classes([entry for entry in entries if entry.is_dir()])
    if classes and files:
        events.warn(f"left out, beside folders of classes: {listed([file.name for file in files])}")
    return classes or _in_folder(folder)


def _classes(folders: list[Path]) -> list[Source]:
    """Texts in folders named like their classes: nothing where not each of several holds texts, and
    texts alone."""
    unlabelled = [folder for folder in folders if folder.name.lower() in UNLABELLED]
    named = [folder for folder in folders if folder not in unlabelled]
    if len(named) < 2 or not all(_holds_texts_alone(folder) for folder in named):
        return []
    if {folder.name.lower() for folder in named} & {*SOURCE_NAMES, *TARGET_NAMES}:
        return []
    if unlabelled:
        events.warn(f"left out, texts without a class: {listed([f.name for f in unlabelled])}")
    texts = (file for folder in named for file in _texts_of(folder) if file.name[0] not in "._")
    return [Source("classes", tuple(texts))]


def _holds_texts_alone(folder: Path) -> bool:
    entries = [entry for entry in folder.iterdir() if entry.name[0] not in "._"]
    return bool(entries) and all(e.is_file() and suffix(e) in TEXTS for e in entries)


def _is_split(folder: Path) -> bool:
    return folder.name.lower() in SPLITS


def _paired_folders(folders: list[Path]) -> list[Source]:
    by_name = {folder.name.lower(): folder for folder in folders}
    left = next((by_name[name] for name in SOURCE_NAMES if name in by_name), None)
    right = next((by_name[name] for name in TARGET_NAMES if name in by_name), None)
    if left is None or right is None:
        return []
    texts, partners = ({stem(file): file for file in _texts_of(side)} for side in (left, right))
    names = dict.fromkeys([*texts, *partners])
    pairs = [side.get(name) for name in names for side in (texts, partners)]
    return [Source("file pairs", tuple(pairs))] if pairs else []


def _texts_of(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if suffix(file) in TEXTS]


def _line_pairs(files: list[Path]) -> list[Source]:
    by_name = {_plain_name(file): file for file in files}
    found = []
    for name, file in by_name.items():
        left = Path(name)
        if left.suffix in LINE_SUFFIXES:
            partner = by_name.get(left.stem + LINE_SUFFIXES[left.suffix])
            if partner is None:
                raise BadData(f"its {LINE_SUFFIXES[left.suffix]} file is missing", file=file)
            found.append(Source("line pairs", (file, partner), _split_of(left.stem)))
    return _merged(found)


def _language_pairs(files: list[Path]) -> list[Source]:
    """Files that differ in the language their suffix names."""
    sides: dict[str, list[Path]] = {}
    for file in files:
        if file_language(file) and suffix(file) not in KNOWN:
            sides.setdefault(stem(file), []).append(file)
    found = []
    for name, pair in sides.items():
        if len(pair) > 2:
            raise BadData(
                f"files side by side come in twos, one a language: {listed([f.name for f in pair])}"
                "; put two of them into a folder of their own",
                file=pair[0],
            )
        if len(pair) == 2:
            found.append(Source("line pairs", tuple(pair), _split_of(name)))
    return _merged(found)


def _is_side(entry: Path, file: Path) -> bool:
    return entry.is_file() and stem(entry) == stem(file) and entry.name[0] not in "._"


def _plain_name(file: Path) -> str:
    return file.stem if file.suffix.lower() in COMPRESSED else file.name


def _annotated(files: list[Path]) -> list[Source]:
    """Annotations whose texts stand beside them."""
    texts = {text_of(file): file for file in files if suffix(file) == BRAT_SUFFIX}
    texts = {text: file for text, file in texts.items() if text in files}
    if not texts:
        return []
    others = [f for f in files if f not in texts and f not in texts.values()]
    alone = [f.name for f in others if suffix(f) in (*TEXTS, BRAT_SUFFIX) and not _describes(f)]
    if alone:
        events.warn(f"left out, text or annotations without the other: {listed(alone)}")
    return [Source("table", tuple(texts.values()))]


def _describes(file: Path) -> bool:
    return stem(file).lower() in NOT_TEXTS


def _tables(files: list[Path]) -> list[Source]:
    tables = [f for f in files if suffix(f) in TABLES and f.name not in DESCRIPTIONS]
    splits = {file: _split_of(stem(file)) for file in tables}
    if any(splits.values()):
        _leave_out([file for file, split in splits.items() if split is None])
        splits = {file: split for file, split in splits.items() if split is not None}
    return _merged(Source("table", (file,), split) for file, split in splits.items())


def _split_of(name: str) -> str | None:
    """The split named by the first or last word of a file's name: `train-00000-of-00002`."""
    parts = [part for part in re.split(r"[^a-z]+", name.lower()) if part and part != "of"]
    return next((SPLITS[part] for part in (*parts[:1], *parts[-1:]) if part in SPLITS), None)


def _texts(files: list[Path]) -> list[Source]:
    texts = [f for f in files if suffix(f) in TEXTS and not _describes(f)]
    bare, left, right = {}, {}, {}
    for file in texts:
        name, _, side = stem(file).rpartition(".")
        if side.lower() in TARGET_NAMES:
            right[name] = file
        elif side.lower() in SOURCE_NAMES:
            left[name] = file
        else:
            bare[stem(file)] = file
    if right:
        left = bare | left
        names = dict.fromkeys([*left, *right])
        return [Source("file pairs", tuple(side.get(n) for n in names for side in (left, right)))]
    splits = {file: _split_of(stem(file)) for file in texts}
    if not all(splits.values()):  # documents may have any names: all must name a split, or none
        splits = dict.fromkeys(texts)
    return _merged(Source("text", (file,), split) for file, split in splits.items())


def _sounds(files: list[Path]) -> list[Source]:
    found = tuple(file for file in files if suffix(file) in SOUNDS)
    return [Source("sound", found)] if found else []


def _merged(found: Iterable[Source]) -> list[Source]:
    """Sources of one kind and split become one."""
    merged: dict[tuple[Kind, str | None], Source] = {}
    for source in found:
        before = merged.get((source.kind, source.split))
        files = (*before.files, *source.files) if before else source.files
        merged[source.kind, source.split] = replace(source, files=files)
    return list(merged.values())


def _leave_out(entries: list[Path]) -> None:
    if entries:
        events.warn(f"left out, for their names tell no split: {listed([e.name for e in entries])}")


def _kind(path: Path) -> Kind | None:
    if suffix(path) in TABLES:
        return "table"
    if suffix(path) in SOUNDS:
        return "sound"
    return "text" if suffix(path) in TEXTS else None


def _nearest(path: Path) -> Path | None:
    import difflib

    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return path.with_name(near[0]) if near else None
