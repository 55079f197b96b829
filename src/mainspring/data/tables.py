"""Parquet and Arrow files, through pyarrow, a thousand rows in memory at a time."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

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
                    yield Row(row, str(path), line)


def _or_none(one_row: Any) -> dict[str, Any] | None:
    try:
        return one_row.to_pylist()[0]
    except UnicodeDecodeError:
        return None


def _damaged(kind: str, path: Path, error: Exception) -> BadData:
    what = str(error).splitlines()[0] if str(error) else type(error).__name__
    return BadData(f"not a readable {kind} file: {what}", file=path)
