"""What a path holds."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from mainspring import events
from mainspring.data.readers import read_rows, sources
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData, Missing


def make(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def splits(path: Path) -> dict[str | None, list[dict]]:
    return {
        source.split: [row.values for row in read_rows(source, SkipLog())]
        for source in sources(path)
    }


def pair(source: str, target: str) -> dict[str, str]:
    return {"source": source, "target": target}


def test_split_files(tmp_path: Path) -> None:
    make(tmp_path, test_csv="a\n3\n", train_csv="a\n1\n", dev_jsonl='{"a": "2"}', README_md="x")
    assert splits(tmp_path) == {
        "train": [{"a": "1"}],
        "validation": [{"a": "2"}],
        "test": [{"a": "3"}],
    }
    assert list(splits(tmp_path)) == ["train", "validation", "test"]


def test_shards_and_prefixes(tmp_path: Path) -> None:
    for number, name in enumerate(
        ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001")
    ):
        table = pa.table({"n": [number]})
        pa.parquet.write_table(table, tmp_path / f"{name}.parquet")
    assert splits(tmp_path) == {"train": [{"n": 0}, {"n": 1}], "validation": [{"n": 2}]}
    other = tmp_path / "other"
    other.mkdir()
    (other / "news_train.jsonl").write_text('{"n": 1}')
    (other / "news_test.jsonl").write_text('{"n": 2}')
    assert splits(other) == {"train": [{"n": 1}], "test": [{"n": 2}]}


def test_folders_named_like_the_classes_of_their_texts(tmp_path: Path) -> None:
    """As IMDB's reviews come, but for their number."""
    imdb = make(
        tmp_path / "imdb",
        train__pos__0_txt="good",
        train__pos__1_txt="fine",
        train__neg__0_txt="bad",
        train__unsup__0_txt="so",
        train__urls_txt="http://…",
        test__pos__0_txt="lovely",
        test__neg__0_txt="poor",
        imdbEr_txt="0.1",
        README_md="x",
    )
    said: list[events.Event] = []
    with events.listening(said.append):
        assert splits(imdb) == {
            "train": [
                {"text": "bad", "label": "neg"},
                {"text": "good", "label": "pos"},
                {"text": "fine", "label": "pos"},
            ],
            "test": [{"text": "poor", "label": "neg"}, {"text": "lovely", "label": "pos"}],
        }
    told = " ".join(map(str, said))
    assert "texts without a class: `unsup`" in told and "folders of classes: `urls.txt`" in told
    news = make(tmp_path / "news", sport__a_txt="goal", trade__a_txt="bank")
    assert splits(news) == {
        None: [{"text": "goal", "label": "sport"}, {"text": "bank", "label": "trade"}]
    }
    others = make(tmp_path / "others", a__a_txt="1", b__b_csv="x\n1\n")
    with pytest.raises(BadData, match="name one of its folders: `a`, `b`"):
        sources(others)
    assert sources(make(tmp_path / "pairs", source__a_txt="1", target__a_txt="2"))[0].kind == (
        "file pairs"
    )


def test_files_that_name_no_split(tmp_path: Path) -> None:
    make(tmp_path, a_csv="a\n1\n", b_csv="a\n2\n")
    assert splits(tmp_path) == {None: [{"a": "1"}, {"a": "2"}]}
    make(tmp_path, train_csv="a\n3\n")
    said: list[events.Event] = []
    with events.listening(said.append):
        assert splits(tmp_path) == {"train": [{"a": "3"}]}
    assert said == [events.Warn("left out, for their names tell no split: `a.csv`, `b.csv`")]


def test_split_folders(tmp_path: Path) -> None:
    make(tmp_path, train__a_csv="a\n1\n", train__b_csv="a\n2\n", val__x_csv="a\n3\n")
    assert splits(tmp_path) == {"train": [{"a": "1"}, {"a": "2"}], "validation": [{"a": "3"}]}


def test_lines_side_by_side(tmp_path: Path) -> None:
    make(
        tmp_path, train_source="a\nb\n", train_target="A\nB\n", val_source="c\nd\n", val_target="C"
    )
    assert splits(tmp_path) == {
        "train": [pair("a", "A"), pair("b", "B")],
        "validation": [pair("c", "C")],
    }
    skipped = SkipLog()
    list(read_rows(tmp_path, skipped))
    assert "val.target has no line 2" in skipped.summary()
    (tmp_path / "val.target").unlink()
    with pytest.raises(BadData, match=r"its \.target file is missing"):
        sources(tmp_path)


def test_texts_with_their_summaries(tmp_path: Path) -> None:
    make(tmp_path, a_txt="long a", b_txt="long b", c_txt="long c", z_summary_txt="short z")
    make(tmp_path, a_summary_txt="short a\n", b_target_txt="short b")
    assert splits(tmp_path) == {None: [pair("long a", "short a"), pair("long b", "short b")]}
    skipped = SkipLog()
    list(read_rows(tmp_path, skipped))
    assert skipped.counts == {"missing partner": 2}


def test_folders_of_equal_names(tmp_path: Path) -> None:
    make(tmp_path, articles__a_txt="long a", articles__b_txt="long b", summaries__a_txt="short a")
    assert splits(tmp_path) == {None: [pair("long a", "short a")]}
    make(tmp_path / "x", train__source__a_txt="l", train__target__a_txt="s")
    assert splits(tmp_path / "x") == {"train": [pair("l", "s")]}


def save_to_disk(folder: Path, rows: list[dict], **state: object) -> None:
    """The files that `datasets.Dataset.save_to_disk` writes."""
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table)
    files = [{"filename": "data-00000-of-00001.arrow"}]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, **state}))
    (folder / "dataset_info.json").write_text("{}")


def test_saved_datasets(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "one", [{"a": 1}, {"a": 2}], _split="train")
    assert splits(tmp_path / "one") == {None: [{"a": 1}, {"a": 2}]}
    for name in ("train", "validation"):
        save_to_disk(tmp_path / "dict" / name, [{"a": name}])
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    assert splits(tmp_path / "dict") == {
        "train": [{"a": "train"}],
        "validation": [{"a": "validation"}],
    }


def test_saved_datasets_of_the_library_itself(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}])
    datasets.disable_progress_bars()
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=one, test=one.select([1])).save_to_disk(tmp_path / "dict")
    assert splits(tmp_path / "one") == {None: one.to_list()}
    assert splits(tmp_path / "dict") == {"train": one.to_list(), "test": [{"a": 2, "b": "y"}]}


def test_a_saved_dataset_with_faults(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "a", [{"a": 1}], _indices_data_files=[{"filename": "i.arrow"}])
    with pytest.raises(BadData, match="flatten_indices"):
        sources(tmp_path / "a")
    save_to_disk(tmp_path / "b", [{"a": 1}])
    (tmp_path / "b" / "state.json").write_text("{")
    with pytest.raises(BadData, match="bad JSON"):
        sources(tmp_path / "b")
    save_to_disk(tmp_path / "c", [{"a": 1}])
    (tmp_path / "c" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(BadData, match="unreadable file"):
        splits(tmp_path / "c")


def test_a_single_folder_inside(tmp_path: Path) -> None:
    make(tmp_path, data__train_csv="a\n1\n")
    (tmp_path / ".cache").mkdir()
    assert splits(tmp_path) == {"train": [{"a": "1"}]}
    (tmp_path / "more").mkdir()
    with pytest.raises(BadData, match="name one of its folders: `data`, `more`"):
        sources(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no data in this folder"):
        sources(tmp_path)
    make(tmp_path, picture_png="x", news_csv="a\n1\n")
    with pytest.raises(BadData, match=r"unknown kind of file; known suffixes are `\.csv`"):
        sources(tmp_path / "picture.png")
    with pytest.raises(Missing, match=r"did you mean .*news\.csv"):
        sources(tmp_path / "new.csv")
    with pytest.raises(Missing, match="no file or folder"):
        sources(tmp_path / "nowhere" / "x.csv")
