"""A package from elsewhere, installed and used: its task and its family are like our own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "examples" / "plugin"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which Python finds the package, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("plugin")
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    words += ["--disable-pip-version-check", "--target", str(folder), str(PLUGIN)]
    subprocess.run([sys.executable, *words], check=True, capture_output=True, timeout=120)
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def python(environment: dict[str, str], *words: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_it_passes_its_own_tests(environment: dict[str, str]) -> None:
    tests = PLUGIN / "tests"
    words = ("-m", "pytest", "-p", "no:cacheprovider", "-W", "error", "--rootdir", tests)
    assert "3 passed" in python(environment, *words, tests)


@pytest.mark.slow
def test_it_is_there_on_the_command_line(environment: dict[str, str], tmp_path: Path) -> None:
    rows = [
        {"text": f"{a} {b}", "backwards": f"{b} {a}"}
        for a in ("red", "green", "blue")
        for b in ("cat", "dog", "fish", "bird")
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def mainspring(*words: object) -> str:
        return python(environment, "-m", "mainspring", *words)

    out = tmp_path / "model"
    fitted = mainspring(
        *("fit", "backwards", data, "--from-scratch", "toy-nano", "--out", out),
        *("--steps", 2, "--vocabulary", 400, "--json"),
    )
    assert json.loads(fitted)["task"] == "backwards"
    assert json.loads((out / "config.json").read_text())["model_type"] == "toy"
    answer = json.loads(mainspring("run", "backwards", "red cat", "--model", out, "--json"))
    assert answer["text"] == "red cat" and isinstance(answer["backwards"], str)
