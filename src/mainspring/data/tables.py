"""Parquet and Arrow files, through pyarrow, a thousand rows in memory at a time.

Columns of classes as the `datasets` library stores them, as numbers, are read as their names.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from mainspring import events
from mainspring.data.kinds import whole
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
        names = class_names(large.schema.metadata or {})
        for start in range(0, large.num_rows, BATCH):
            batch = large.slice(start, BATCH)
            try:
                values = _as_written(batch).to_pylist()
            except UnicodeDecodeError:
                values = [_or_none(batch.slice(i, 1)) for i in range(batch.num_rows)]
            for row in values:
                line += 1
                if row is None:
                    skipped.add("undecodable bytes", file=path, line=line)
                else:
                    yield Row(named(row, names), str(path), line)


def _as_written(batch: Any) -> Any:
    """A batch whose short floats have the value of their shortest name: 4.1 instead of 4.0999999,
    as other formats have it."""
    import pyarrow as pa

    for at, kind in enumerate(batch.schema.types):
        if kind in (pa.float16(), pa.float32()):
            column = batch.column(at).cast(pa.float32()).cast(pa.string()).cast(pa.float64())
            batch = batch.set_column(at, batch.schema.names[at], column)
    return batch


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


@lru_cache(maxsize=16)
def names_beside(folder: Path) -> dict[str, list[str]]:
    """The same for data in other formats, from what describes a data set of the hub, in the folder
    of the data or the one above: the card (README.md) or the older dataset_infos.json. Of several
    configurations the one called like the folder counts, else what none of them contradicts."""
    for place in (folder, folder.parent):
        try:
            described = dict(_described(place))
            several = [described[folder.name]] if folder.name in described else described.values()
            if names := _agreed([_names_in(features) for features in several]):
                return names
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            events.warn(f"{place}: what is said of the data set cannot be read ({error})")
    return {}


def _agreed(several: Sequence[dict[str, list[str]]]) -> dict[str, list[str]]:
    """What is said of each column, but where others say something else."""
    columns = {column: names for one in several for column, names in one.items()}
    return {c: n for c, n in columns.items() if all(one.get(c, n) == n for one in several)}


def _described(folder: Path) -> Iterator[tuple[str, Any]]:
    """The configurations and their features, as a folder's files have them."""
    if (folder / "README.md").is_file():
        from huggingface_hub import metadata_load
        from yaml import YAMLError

        try:
            stated = (metadata_load(folder / "README.md") or {}).get("dataset_info") or []
        except YAMLError as error:
            raise ValueError(f"README.md: {' '.join(str(error).split())}") from None
        for one in [stated] if isinstance(stated, dict) else stated:
            features = {feature["name"]: _of_card(feature) for feature in one.get("features") or ()}
            yield one.get("config_name", "default"), features
    if (folder / "dataset_infos.json").is_file():
        infos = json.loads((folder / "dataset_infos.json").read_text("utf-8"))
        yield from ((name, one.get("features")) for name, one in infos.items())


def _of_card(feature: dict[str, Any]) -> dict[str, Any]:
    """A feature as a card has it, in the words of the other files."""
    for nested in ("sequence", "list", "dtype"):
        if isinstance(feature.get(nested), dict):
            feature = feature[nested]
    names = (feature.get("class_label") or {}).get("names") or {}
    ordered = [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else names
    return {"_type": "ClassLabel", "names": ordered} if ordered else {}


def named(values: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A row's values, numbers of classes replaced by their names. A number without a name stays;
    -1 is no class: None."""
    there = names.keys() & values.keys()
    return {**values, **{column: _named(values[column], names[column]) for column in there}}


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    number = whole(value)
    if number is None:
        return value
    if number == -1:
        return None
    return names[number] if 0 <= number < len(names) else value


def _or_none(one_row: Any) -> dict[str, Any] | None:
    try:
        return one_row.to_pylist()[0]
    except UnicodeDecodeError:
        return None


def _damaged(kind: str, path: Path, error: Exception) -> BadData:
    what = str(error).splitlines()[0] if str(error) else type(error).__name__
    return BadData(f"not a readable {kind} file: {what}", file=path)
