"""CoNLL files: which column is what, and what breaks in them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.data.conll import Columns, find_columns, is_conll
from mainspring.data.readers import columns, read_rows, sources
from mainspring.data.rows import Row
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData

COUNTS = {  # sentences, tokens, entities, as the data sets' cards state them
    "wnut17/train": (3394, 62730, 1975),
    "wnut17/test": (1287, 23394, 1079),
    "uner_zh_gsdsimp/test": (500, 12012, 763),
    "uner_zh_gsdsimp/train": (3997, 98616, 6118),
}


def read(content: str | bytes, folder: Path, name: str = "data.conll") -> tuple[list[Row], SkipLog]:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    skipped = SkipLog(folder / "skipped.jsonl")
    with skipped:
        return list(read_rows(file, skipped)), skipped


def test_tabs_blanks_and_more_columns_read_alike(tmp_path: Path) -> None:
    wanted = [
        {"tokens": ["EU", "rejects", "call"], "tags": ["B-ORG", "O", "O"]},
        {"tokens": ["Peter"], "tags": ["B-PER"]},
    ]
    for content in (
        "EU\tB-ORG\nrejects\tO\ncall\tO\n\nPeter\tB-PER\n",
        "EU B-ORG\r\nrejects O\r\ncall O\r\n \r\nPeter B-PER",
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\ncall NN I-NP O\n\n"
        "-DOCSTART- -X- O O\nPeter NNP B-NP B-PER\n\n",
        "# sent_id = 1\n# text = EU rejects call\n1\tEU\tB-ORG\t-\tann\n2\trejects\tO\t-\tann\n"
        "3-4\tcallof\tO\t-\tann\n3\tcall\tO\t-\tann\n3.1\tx\tO\t-\tann\n\n# text = Peter\n"
        "1\tPeter\tB-PER\t-\tann\n",
    ):
        rows, skipped = read(content, tmp_path)
        assert [row.values for row in rows] == wanted
        assert skipped.total == 0
    assert columns(tmp_path / "data.conll") == ["tokens", "tags"]


def test_files_without_tags_give_tokens(tmp_path: Path) -> None:
    rows, _ = read("# text = one two\none\n#two\n\nthree\n", tmp_path, "data.bio")
    assert [row.values for row in rows] == [{"tokens": ["one", "#two"]}, {"tokens": ["three"]}]
    assert [row.line for row in rows] == [1, 5]


def test_a_hash_may_be_a_token(tmp_path: Path) -> None:
    rows, _ = read("# a comment\n#\tO\n#tag\tB-X\n#\tI-X\n", tmp_path)
    assert rows[0].values == {"tokens": ["#", "#tag", "#"], "tags": ["O", "B-X", "I-X"]}


def test_only_ascii_blanks_part_cells(tmp_path: Path) -> None:
    rows, _ = read("a\u3000b O\nc\xa0d O\n\u2028 O\n\ufeff\tO\n \n", tmp_path)
    assert rows[0].values["tokens"] == ["a\u3000b", "c\xa0d", "\u2028", "\ufeff"]


def test_tags_that_name_types_alone() -> None:
    assert find_columns(["a PER", "b O"]) == Columns(0, 1, False)
    assert find_columns(["a NNP", "b VBZ"]) == Columns(0, None, False)
    assert find_columns(["", "-DOCSTART- O"]) == Columns(0, None, False)


def test_tags_of_other_schemes_are_told() -> None:
    for tags in ("B-X M-X E-X S-X W-X O", "b-x i-x o", "X-B X-I O"):
        rows = [f"a B-NP {tag} _" for tag in tags.split()]
        assert find_columns(rows).tag == (2 if "B-X" in tags else 1)
        rows = [f"a NN {tag} _" for tag in tags.split()]
        assert find_columns(rows) == Columns(0, 2, False)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nsaid VBZ B-VP O\n", True),
        ("APC2\tB\ngene\tI\n\nx\tO\n", True),
        ("Anna\tPER-B\nsaid\tO\n", True),
        ("token\ttag\n" + "Anna\tB-PER\nsaid\tO\n" * 200, False),  # a table
        ("Anna PER\nsaid O\n", False),
        ("Anna O\nsaid O\n", False),
        ("Anna B-PER\nsaid it O\n", False),
        ("Plain text.\nO B-side\n", False),
        ("", False),
    ],
)
def test_files_that_can_be_nothing_else(content: str, wanted: bool, tmp_path: Path) -> None:
    for name in ("train.txt", "train.tsv"):
        (tmp_path / name).write_text(content)
        assert is_conll(tmp_path / name) is wanted
    (tmp_path / "damaged.txt.gz").write_bytes(b"no archive")
    assert not is_conll(tmp_path / "damaged.txt.gz")


def test_broken_lines_cost_their_sentence_and_are_listed(tmp_path: Path) -> None:
    good = "a\tO\nb\tB-X\n\n"
    rows, skipped = read(
        f"{good}c\tO\nd\ne\n\n{good}\tO\n\nf\t\ng\tO\n\n".encode() + b"\xff\tO\n\n" + good.encode(),
        tmp_path,
    )
    assert [row.line for row in rows] == [1, 8, 18]
    assert skipped.counts == {"no tag": 2, "no token": 1, "undecodable bytes": 1}
    assert f"no tag (first: {tmp_path / 'data.conll'}:5: 1 columns" in skipped.summary()
    with pytest.raises(BadData, match=r"data\.conll:5: no tag"):
        list(read_rows(tmp_path / "data.conll", SkipLog(strict=True)))


def test_a_file_that_never_ends_a_sentence_is_read_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mainspring.data.conll.LONGEST_ROW", 100)
    rows, skipped = read("word\tO\n" * 50 + "\nword\tO\n", tmp_path)
    assert [row.line for row in rows] == [52]
    assert skipped.counts == {"too long": 1}


TOKEN = st.text(
    st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs", "Cc"]), min_size=1
).filter(lambda token: token.strip(" ") and not token.startswith("-DOCSTART-"))


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.lists(st.lists(st.tuples(TOKEN, st.sampled_from(["O", "B-A", "I-A"])), min_size=1)))
def test_what_is_written_is_read(tmp_path_factory, sentences) -> None:
    content = "".join("".join(f"{t}\t{tag}\n" for t, tag in s) + "\n" for s in sentences)
    rows, skipped = [], SkipLog()
    if sentences:
        rows, skipped = read(content, tmp_path_factory.mktemp("conll"))
    assert skipped.total == 0
    assert [list(zip(r.values["tokens"], r.values["tags"], strict=True)) for r in rows] == sentences


@pytest.mark.parametrize("name", COUNTS)
def test_real_files_have_what_their_cards_say(shared_data: Path, name: str) -> None:
    folder, _, split = name.partition("/")
    found = {source.split: source for source in sources(shared_data / "ner" / folder)}
    skipped = SkipLog()
    rows = [row.values for row in read_rows(found[split], skipped)]
    entities = sum(tag.startswith("B-") for row in rows for tag in row["tags"])
    assert (len(rows), sum(len(row["tokens"]) for row in rows), entities) == COUNTS[name]
    assert skipped.total == 0


def test_a_real_file_with_empty_tokens(shared_data: Path) -> None:
    """Three sentences of this one hold a token that is nothing."""
    skipped = SkipLog()
    rows = list(read_rows(shared_data / "ner" / "btc" / "train.conll", skipped))
    assert (len(rows), skipped.counts) == (6339 - 3, {"no token": 3})
