"""The commands of the pages on `summarize`, `translate` and `generate` are run on small data, two
steps each."""

import contextlib
import csv
import io
import re
import shlex
from pathlib import Path

import pytest

import nano
from mainspring import cli

PAGES = Path(__file__).resolve().parent.parent / "docs" / "tasks"
SHORT = {"--steps": "2", "--metric-rows": "2", "--vocabulary": "400", "--max-target": "16"}
SMALL = {"t5-mini": "t5-tiny", "llama-mini": "llama-tiny"}


def blocks(page: str, language: str) -> list[str]:
    text = (PAGES / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def material(folder: Path) -> None:
    texts = [row["summary"] for row in nano.pairs(40)]
    pairs = [{"en": text, "de": text[::-1]} for text in texts]
    nano.write_jsonl(pairs, folder / "pairs.jsonl")
    segment = '<tuv xml:lang="{}"><seg>{}</seg></tuv>'
    units = [
        "<tu>" + "".join(segment.format(code, pair[code]) for code in ("en", "de")) + "</tu>"
        for pair in pairs[:3]
    ]
    (folder / "test.tmx").write_text(f"<tmx><body>{''.join(units)}</body></tmx>")
    for name in ("news.csv", "test.csv", "new.csv"):
        rows = nano.pairs(30)
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    (folder / "article.txt").write_text(" ".join(f"{text}." for text in texts))
    (folder / "letter.txt").write_text("River market.\n\nEarly winter.\n")
    (folder / "terms.tsv").write_text("market\tengine\n")
    (folder / "plays.txt").write_text("\n\n".join(texts * 6))
    (folder / "unseen.txt").write_text("\n\n".join(texts[:9]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "count"), [("summarize.md", 6), ("translate.md", 4), ("generate.md", 3)]
)
def test_the_commands_run(
    page: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    material(tmp_path)
    commands = [line for block in blocks(page, "bash") for line in block.splitlines()]
    assert len(commands) == count
    for command in commands:
        words = [SMALL.get(word, word) for word in shlex.split(command)[1:]]
        more = SHORT if words[0] == "fit" else {"--max-new-tokens": "12"}
        words += [word for option in more.items() if option[0] not in words for word in option]
        code: object = 0
        with contextlib.redirect_stdout(io.StringIO()) as out:
            try:
                cli.main(words)
            except SystemExit as stop:
                code = stop.code
        assert not code, command
        assert out.getvalue() or "--out" in words
    for code in blocks(page, "python"):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, {})
        shown = out.getvalue().split()
        assert shown[0] == {"summarize.md": "1"}.get(page, "2")  # windows; lines, which are kept
    if page == "translate.md":
        [row] = nano.read_jsonl(tmp_path / "letter.jsonl")
        assert "engine" in row["translation"].split("\n")[0]
