"""Parquet and Arrow files, through pyarrow, a thousand rows in memory at a time.

Columns of classes as the `datasets` library stores them, as numbers, are read as their names.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mainspring import events
from mainspring.data.rows import Row
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData

BATCH = 1000


def read_parquet(path: Path, skipped: SkipLog) -> Iterator[Row]:
    """Rows of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        with pa.parquet.ParquetFile(path) as file:
            yield from _rows(file.iter_batches(batch_size=BATCH), path, skipped)
    except (pa.ArrowException, OSError) as error:
        raise _damaged("Parquet", path, error) from None


def read_arrow(path: Path, skipped: SkipLog) -> Iterator[Row]:
    """Rows of an Arrow file, of the stream kind (what `datasets` writes) or the file kind."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            kind = file.read(6)
            file.seek(0)
            if kind == b"ARROW1":
                reader = pa.ipc.open_file(file)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                batches = pa.ipc.open_stream(file)
            yield from _rows(batches, path, skipped)
    except (pa.ArrowException, OSError) as error:
        raise _damaged("Arrow", path, error) from None


def _rows(batches: Iterable[Any], path: Path, skipped: SkipLog) -> Iterator[Row]:
    line = 0
    for large in batches:
        named = class_names(large.schema.metadata or {})
        for start in range(0, large.num_rows, BATCH):
            batch = large.slice(start, BATCH)
            try:
                values = batch.to_pylist()
            except UnicodeDecodeError:
                values = [_or_none(batch.slice(i, 1)) for i in range(batch.num_rows)]
            for row in values:
                line += 1
                if row is None:
                    skipped.add("undecodable bytes", file=path, line=line)
                else:
                    more = {column: _named(row[column], names) for column, names in named.items()}
                    yield Row(row | more, str(path), line)


def class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Column -> the names of its classes, or of those in its lists, as `datasets` writes them into
    the schema of a file."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return _names_in(features)


def _names_in(features: Any) -> dict[str, list[str]]:
    named = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        if isinstance(feature, list) and feature:
            feature = feature[0]
        if isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
            feature = feature["feature"]
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            named[column] = list(feature.get("names") or ())
    return named


def card_names(folder: Path) -> dict[str, list[str]]:
    """The same for data in other formats, from the card (README.md) or the older
    dataset_infos.json that a data set of the hub has in its folder."""
    named: dict[str, list[str]] = {}
    try:
        for configuration in _described(folder):
            features = configuration.get("features")
            if isinstance(features, list):  # of a card
                features = {feature["name"]: _of_card(feature) for feature in features}
            named = _names_in(features) | named
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        events.warn(f"{folder}: what is said of the data set cannot be read ({error})")
    return named


def _described(folder: Path) -> Iterator[dict[str, Any]]:
    """What a folder's files say of its data set, one object for each configuration."""
    if (folder / "README.md").is_file():
        from huggingface_hub import metadata_load
        from yaml import YAMLError

        try:
            stated = (metadata_load(folder / "README.md") or {}).get("dataset_info") or []
        except YAMLError as error:
            raise ValueError(f"README.md: {' '.join(str(error).split())}") from None
        yield from [stated] if isinstance(stated, dict) else stated
    if (folder / "dataset_infos.json").is_file():
        yield from json.loads((folder / "dataset_infos.json").read_text("utf-8")).values()


def _of_card(feature: dict[str, Any]) -> dict[str, Any]:
    """A feature as a card has it, in the words of the other files."""
    for nested in ("sequence", "list", "dtype"):
        if isinstance(feature.get(nested), dict):
            feature = feature[nested]
    names = (feature.get("class_label") or {}).get("names") or {}
    ordered = [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else names
    return {"_type": "ClassLabel", "names": ordered} if ordered else {}


def _named(value: Any, names: list[str]) -> Any:
    """The names of numbers; a number without a name stays (-1 is no class: None)."""
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    if type(value) is not int:
        return value
    if value == -1:
        return None
    return names[value] if 0 <= value < len(names) else value


def _or_none(one_row: Any) -> dict[str, Any] | None:
    try:
        return one_row.to_pylist()[0]
    except UnicodeDecodeError:
        return None


def _damaged(kind: str, path: Path, error: Exception) -> BadData:
    what = str(error).splitlines()[0] if str(error) else type(error).__name__
    return BadData(f"not a readable {kind} file: {what}", file=path)
