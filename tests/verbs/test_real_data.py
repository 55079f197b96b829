"""fit, evaluate and run on real summaries in two languages, as a user would type them."""

import json
from itertools import islice
from pathlib import Path

import pytest

import mainspring
import nano
from mainspring import cli

pytestmark = pytest.mark.slow


def excerpt(source: Path, folder: Path) -> Path:
    """The first rows of each split."""
    folder.mkdir()
    for split, count in (("train", 250), ("validation", 8), ("test", 8)):
        with (source / f"{split}.jsonl").open(encoding="utf-8") as rows:
            lines = list(islice(rows, count))
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def command(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*map(str, words), "--json"])
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("debian_synopsis_en", "ascii"),
        ("debian_synopsis_zh", "unicode"),
        ("scitldr_a", "ascii"),
        ("csl_zh", "unicode"),
    ],
)
def test_every_set_goes_through_all_three_verbs(
    shared_data: Path,
    tmp_path: Path,
    nano_size: str,
    capsys: pytest.CaptureFixture[str],
    name: str,
    tokens: str,
) -> None:
    data, out = excerpt(shared_data / "summarization" / name, tmp_path / name), tmp_path / "out"
    command(
        *("fit", "summarize", data, "--from-scratch", nano_size, "--out", out, "--steps", 6),
        *("--vocabulary", 4000, "--metric-rows", 4, "--max-source", 96, "--max-target", 24),
    )
    fitted = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert fitted["steps"] == 6 and fitted["tokens"] > 5000
    command("evaluate", "summarize", data, "--model", out, "--out", tmp_path / "scores")
    scored = json.loads(capsys.readouterr().out)
    assert (scored["rows"], scored["skipped"]) == (8, 0)
    assert f"tokens:{tokens}" in scored["signature"]
    assert scored["baseline"]["lead-1"]["rouge1"] > 5
    command("run", "summarize", data / "test.jsonl", "--model", out)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    predictions = nano.read_jsonl(tmp_path / "scores" / "predictions.jsonl")
    assert [r["summary"] for r in rows] == [p["predicted_summary"] for p in predictions]
    assert all(row["source_tokens_unread"] == 0 for row in rows)
    assert any(row["windows"] > 1 for row in rows)


def test_the_lead_sentence_scores_what_was_published(trained: Path, shared_data: Path) -> None:
    data = shared_data / "summarization" / "debian_synopsis_en"
    result = mainspring.evaluate(
        "summarize", data, model=str(trained), max_new_tokens=1, on_long="cut"
    )
    assert result.rows == 1000
    assert result.baseline["lead-1"]["rougeL"] == pytest.approx(27.3, abs=0.1)
