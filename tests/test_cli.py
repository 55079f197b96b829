"""The command line: its surface is a promise, its errors are for people."""

import importlib
import inspect
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import nano
from mainspring import cli, registry, streams
from mainspring.errors import NotFetched

FULL = Path("/dev/full")
GOLDEN = Path(__file__).with_name("golden") / "cli.json"

# (exit code, standard output, standard error) of `mainspring WORDS...`
Ran = tuple[int, str, str]
Mainspring = Callable[..., Ran]


@pytest.fixture
def mainspring(capsys: pytest.CaptureFixture[str]) -> Mainspring:
    def run(*words: object) -> Ran:
        code = 0
        try:
            cli.main([str(word) for word in words])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        return code, *capsys.readouterr()

    return run


# -- the frozen surface ---------------------------------------------------------------------------


def function_of(verb: str) -> Callable[..., Any]:
    module, _, name = cli.COMMANDS[verb][0].partition(":")
    return inspect.unwrap(getattr(importlib.import_module(module), name))


def surface() -> dict[str, Any]:
    """Every verb with its arguments and options (their choices where they are few), every task."""
    verbs = {}
    for verb in cli.COMMANDS:
        function = function_of(verb)
        hints = get_type_hints(function)
        options = {}
        for name, parameter in inspect.signature(function).parameters.items():
            positional = parameter.kind is not parameter.KEYWORD_ONLY
            shown = name.upper() if positional else "--" + name.replace("_", "-")
            kinds = (hints[name], *get_args(hints[name]))
            choices = [c for k in kinds if get_origin(k) is Literal for c in get_args(k)]
            options[shown] = choices or "any"
        verbs[verb] = options
    tasks = {name: registry.find("tasks", name).output for name in registry.names("tasks")}
    return {"verbs": verbs, "every verb": list(cli.GLOBAL), "tasks": tasks}


def test_verbs_options_and_tasks_are_a_promise() -> None:
    """What was once there stays. For a deliberate addition: `python tests/test_cli.py`."""
    assert surface() == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("verb", cli.COMMANDS)
def test_every_verb_documents_every_option(verb: str, mainspring: Mainspring) -> None:
    function = function_of(verb)
    doc = inspect.getdoc(function) or ""
    for name in inspect.signature(function).parameters:
        assert f"\n{name}\n    " in doc, name
    code, out, err = mainspring(*verb.split(), "--help")
    assert (code, err) == (0, "")
    for name, parameter in inspect.signature(function).parameters.items():
        # The help calls options by any name, those of the task, by that word.
        named = "[keyword]" if parameter.kind is parameter.VAR_KEYWORD else name.replace("_", "-")
        assert named in out.lower(), name


def test_python_functions_have_the_options_of_the_verbs() -> None:
    import mainspring as package

    for verb in ("fit", "run", "evaluate"):
        public = getattr(package, verb)
        assert (
            inspect.signature(public).parameters == inspect.signature(function_of(verb)).parameters
        )
    assert set(package.__all__) == set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fti'"):
        package.fti  # noqa: B018


def test_the_installed_command_is_this_one() -> None:
    [entry] = entry_points(group="console_scripts", name="mainspring")
    assert entry.load() is cli.main


# -- quick to start -------------------------------------------------------------------------------


def python(program: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], text=True, capture_output=True, timeout=120, **options
    )


def test_nothing_heavy_is_imported_for_help() -> None:
    done = python(
        f"""
import sys, contextlib, io
heavy = {{"torch", "numpy", "tokenizers", "pyarrow", "rich", "huggingface_hub", "safetensors"}}
import mainspring
assert not (heavy | {{"cyclopts"}}) & set(sys.modules), "import mainspring"
from mainspring.cli import main
main(["--help"])
assert not (heavy | {{"cyclopts"}}) & set(sys.modules), "--help"
main(["--version"])
for verb in {list(cli.COMMANDS)}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main([*verb.split(), "--help"])
    assert not (heavy - {{"rich"}}) & set(sys.modules), verb
"""
    )
    assert done.returncode == 0, done.stderr
    assert "mainspring fit summarize news.csv" in done.stdout
    assert done.stdout.splitlines()[-1] == "0.1.0"


def test_help_takes_less_than_four_tenths_of_a_second() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    python("from mainspring.cli import main; main(['--help'])", check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.4


@pytest.mark.slow
def test_running_a_model_does_not_import_what_it_has_no_use_for(trained: Path) -> None:
    done = python(
        f"""
import sys
from mainspring.cli import main
try:
    main(["run", "summarize", "Quiet river.", "--model", {str(trained)!r}, "--quiet"])
except SystemExit as ended:
    assert ended.code == 0
unused = {{"torch._dynamo", "torch._inductor", "transformers", "scipy", "nltk", "datasets"}}
assert not unused & set(sys.modules), unused & set(sys.modules)
"""
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"], ["--json"]])
def test_the_overview(mainspring: Mainspring, words: list[str]) -> None:
    code, out, err = mainspring(*words)
    assert (code, err) == (0, "")
    assert all(f"  {verb} " in out for verb in cli.COMMANDS)


# -- results --------------------------------------------------------------------------------------


def test_run_prints_an_object_a_row_and_nothing_else(trained: Path, mainspring: Mainspring) -> None:
    table = trained.parent / "test.jsonl"
    code, out, err = mainspring("run", "summarize", table, "--model", trained, "--json")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["id"] for row in rows] == list(range(12))
    assert all(row["summary"] is not None and row["stop"] for row in rows)
    code, out, _ = mainspring("run", "summarize", table, "--model", trained)
    assert out.splitlines() == [row["summary"] for row in rows]
    assert f"{trained}: reads 40 tokens" in err


def test_quiet_is_quiet(trained: Path, mainspring: Mainspring) -> None:
    code, out, err = mainspring("run", "summarize", "River.", "--model", trained, "--quiet")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 1


def test_options_after_two_dashes_are_texts(trained: Path, mainspring: Mainspring) -> None:
    code, out, _ = mainspring("run", "summarize", "--model", trained, "--json", "--", "--quiet")
    assert code == 0 and json.loads(out)["text"] == "--quiet"


def test_evaluate_prints_one_object(trained: Path, mainspring: Mainspring) -> None:
    table = trained.parent / "test.jsonl"
    words = ("evaluate", "summarize", table, "--model", trained, "--limit", 3)
    code, out, _ = mainspring(*words, "--json")
    [line] = out.splitlines()
    printed = json.loads(line)
    assert code == 0 and printed["rows"] == 3
    assert list(printed["scores"]) == ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    code, out, _ = mainspring(*words)
    assert [line.split()[0] for line in out.splitlines()[:4]] == list(printed["scores"])


@pytest.mark.parametrize("verb", ["tasks", "models", "doctor"])
def test_what_there_is(mainspring: Mainspring, verb: str) -> None:
    code, out, _ = mainspring(verb)
    assert code == 0 and out
    code, out, _ = mainspring(verb, "--json")
    [line] = out.splitlines()
    assert code == 0 and isinstance(json.loads(line), dict)


@pytest.mark.slow
def test_fit_run_and_evaluate_in_processes_of_their_own(tmp_path: Path) -> None:
    """The commands of the README, each in a process that has just started."""
    data = nano.write_jsonl(nano.pairs(30), tmp_path / "pairs.jsonl")
    fit = nano.Command(
        tmp_path / "fit",
        *("fit", "summarize", data, "--from-scratch", nano.NAME, "--out", tmp_path / "out"),
        *("--steps", 3, "--metric-rows", 2, "--max-target", 6, "--json"),
    )
    assert fit.wait() == 0, fit.err
    printed = json.loads(fit.out.splitlines()[-1])
    assert printed["steps"] == 3 and printed["out"] == str(tmp_path / "out")
    assert "Pre-flight" in fit.err and "\x1b" not in fit.err
    run = nano.Command(tmp_path / "run", "run", "summarize", data, "--model", tmp_path / "out")
    assert run.wait() == 0, run.err
    assert len(run.out.splitlines()) == 30
    evaluate = nano.Command(
        tmp_path / "evaluate",
        *("evaluate", "summarize", data, "--model", tmp_path / "out", "--json"),
    )
    assert evaluate.wait() == 0, evaluate.err
    assert json.loads(evaluate.out)["rows"] == 30


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(trained: Path) -> None:
    """`mainspring run ... | head -1`"""
    program = f"""
from mainspring.cli import main
main(["run", "summarize", {str(trained.parent / "test.jsonl")!r}, "--model", {str(trained)!r}])
"""
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", program], stdout=writing, stderr=-1)
    os.close(writing)
    os.close(reading)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert b"Traceback" not in err and b"BrokenPipe" not in err


def test_outputs_of_other_encodings(trained: Path, tmp_path: Path) -> None:
    """The row holds its own text, so that it is written whatever the model makes of it."""
    words = ["run", "summarize", "Café 中 is here.", "--model", str(trained), "--quiet"]
    for variables in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}):
        done = subprocess.run(
            [sys.executable, "-m", "mainspring", *words, "--json"],
            env={**os.environ, **variables},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.decode("utf-8"))["text"] == "Café 中 is here."


def test_what_an_encoding_has_no_sign_for_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    streams.prepare(as_json=False)
    streams.put("Café")
    print("中", file=sys.stderr, flush=True)
    streams.prepare(as_json=True)
    streams.put("Café")
    assert raw.getvalue() == b"Caf\\xe9\n\\u4e2d\nCaf\xc3\xa9\n"


@pytest.mark.parametrize(("word", "code"), [("summarize", 0), ("no-such-task", 2)])
def test_streams_that_are_closed(word: str, code: int) -> None:
    command = f"exec {sys.executable} -m mainspring tasks {word} >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == code


@pytest.mark.parametrize("words", [["tasks"], ["--help"], ["tasks", "--help"], ["tasks", "--json"]])
def test_a_full_disk_behind_standard_output(words: list[str]) -> None:
    if not FULL.exists():
        pytest.skip("needs the disk that is always full")
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mainspring", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    said = "error: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["tasks"], ["graph"]])
def test_a_reader_of_help_that_goes_away_is_no_error(words: list[str]) -> None:
    """`mainspring fit --help | head -1`"""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "mainspring", *words],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", ["run summarize --model MODEL", "run summarize - --model MODEL"])
def test_a_standard_input_that_is_closed(
    trained: Path, mainspring: Mainspring, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    ran = mainspring(*words.replace("MODEL", str(trained)).split())
    assert_refused(ran, "nothing to read: name texts, files or folders")
    assert not cli.wanted(NotFetched("starter", "a model", "free"))


# -- bad input ------------------------------------------------------------------------------------


def assert_refused(ran: Ran, *parts: str) -> None:
    code, out, err = ran
    assert (code, out) == (2, ""), err
    [message] = [line for line in err.splitlines() if line.startswith("error: ")]
    rest = err[err.index(message) :]
    assert "Traceback" not in err
    for part in parts:
        assert part in rest, rest


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("fitt x", ('Unknown command "fitt"', 'Did you mean "fit"', "mainspring --help")),
        ("summarize x", ("`summarize` is a task", "mainspring run summarize")),
        ("fit", ("TASK", "mainspring fit --help")),
        ("fit summarize DATA", ("--out is missing\n", "mainspring fit --help")),
        ("fit summarize DATA --out", ("--out requires an argument", "mainspring fit --help")),
        ("graph build DATA", ("--store is missing\n", "mainspring graph build --help")),
        ("get", ("name a model: starter, minilm",)),
        ("fit summarize DATA --from-scratch t5-tiny --out /proc/x", ("--out /proc/x: cannot be",)),
        ("evaluate summarize DATA --model MODEL --out DATA/x", ("x: cannot be made (Not a dir",)),
        ("run summarize text --model MODEL --out /proc/x/o.csv", ("o.csv: cannot be made (",)),
        ("fit summarize DATA --out OUT --modle x", ("unknown option `--modle`", "`--model`?")),
        ("fit summarize DATA --out OUT --steps many", ("--steps", "many")),
        (
            "fit summarize DATA --out OUT --schedule cosin",
            ('"cosin" for --schedule', '"linear", "cosine", "constant"'),
        ),
        ("fit summarise DATA --out OUT --from-scratch t5-tiny", ("`summarise`; did you mean",)),
        ("fit pretrain DATA --out OUT", ("--model", "--from-scratch")),
        ("fit summarize DATA --out OUT --model x --from-scratch t5-tiny", ("--from-scratch",)),
        ("fit summarize DATA --out OUT --from-scratch t5-tny", ("`t5-tny`", "`t5-tiny`")),
        ("fit summarize DATA --out OUT --from-scratch t5-tiny --epochs 0", ("at least 1, not 0",)),
        ("fit summarize pears.jsonl --out OUT --from-scratch t5-tiny", ("pears.jsonl", "pairs.j")),
        ("fit summarize EMPTY --out OUT --from-scratch t5-tiny", ("empty.csv", "file is empty")),
        ("fit summarize BROKEN --out OUT --from-scratch t5-tiny", ("no usable row: 2 bad JSON",)),
        ("fit summarize DATA --out OUT --from-scratch t5-tiny --text body", ("`body`; columns",)),
        ("fit summarize DATA --out DATA/x --from-scratch t5-tiny", ("pairs.jsonl", "directory")),
        ("fit summarize FOLDER --out OUT --from-scratch t5-tiny", ("no data in this folder",)),
        ("fit summarize DATA --out OUT --resume", ("no run to resume",)),
        ("run summarize text --model ./modle", ("no such folder", "did you mean", "model")),
        ("run summarize text --model FOLDER", ("no config.json",)),
        ("run summarize text --model TABLE", ("table.csv: not a checkpoint (a folder",)),
        ("run summarize artcle.txt --model MODEL", ("no file or folder", "article.txt")),
        ("run summarize text --model MODEL --precision bf16", ('"bf16"', "bfloat16")),
        ("run summarize text --model MODEL --top-p 2", ("--top-p must lie between 0 and 1",)),
        ("run summarize text --model MODEL --temperature 0", ("--temperature must be above 0",)),
        ("run summarize text --model MODEL --num-beams 0", ("--num-beams must be at least 1",)),
        ("run summarize text --model MODEL --seed=-1", ("--seed must lie between 0",)),
        ("evaluate summarize DATA --model MODEL --length-penalty nan", ("be a number, not nan",)),
        ("evaluate summarize DATA --model MODEL --seed=-1", ("--seed must lie between 0",)),
        ("run classify text --model MODEL --threshold 7", ("must lie between 0 and 1",)),
        ("run summarize text --model MODEL --out o.xls", (".jsonl, .csv, .tsv",)),
        ("evaluate summarize DATA --model MODEL --limit 0", ("--limit must be at least 1",)),
        ("evaluate summarize DATA --model MODEL --limit 2.5", ("--limit must be a whole", "2.5")),
        ("fit summarize DATA --out OUT --steps=-1.5", ("--steps must be a whole number",)),
        ("run answer text --model MODEL --n-best 1.5", ("a whole number, not '1.5'",)),
        ("evaluate summarize DATA --model MODEL --limit 2.x", ("--limit", "2.x")),
        ("evaluate pretrain DATA --model MODEL", ("`pretrain` has no metric",)),
        ("evaluate summarize article.txt --model MODEL", ("no column for the target",)),
    ],
)  # fmt: skip
def test_what_was_wrong_where_and_what_to_do(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mainspring: Mainspring,
    words: str,
    parts: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    nano.write_jsonl(nano.pairs(8), Path("pairs.jsonl"))
    Path("article.txt").write_text("Quiet river.", encoding="utf-8")
    Path("empty.csv").write_text("", encoding="utf-8")
    Path("table.csv").write_text("a,b\n", encoding="utf-8")
    Path("broken.jsonl").write_text("{\n{\n", encoding="utf-8")
    Path("folder").mkdir()
    Path("model").symlink_to(trained)
    names = {"DATA": "pairs.jsonl", "DATA/x": "pairs.jsonl/x",
             "OUT": "out", "EMPTY": "empty.csv", "BROKEN": "broken.jsonl", "FOLDER": "folder",
             "MODEL": "model", "TABLE": "table.csv"}  # fmt: skip
    assert_refused(mainspring(*(names.get(word, word) for word in words.split())), *parts)


def test_an_error_can_be_an_object_too(mainspring: Mainspring) -> None:
    code, out, err = mainspring("evaluate", "summarise", "x", "--model", "y", "--json")
    assert code == 2
    assert json.loads(out) == {
        "error": "BadOption",
        "message": "unknown task `summarise`; did you mean `summarize`?",
    }
    assert err == "error: unknown task `summarise`; did you mean `summarize`?\n"


@pytest.fixture
def broken(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained model, to be damaged."""
    folder = tmp_path / "broken"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("state"))
    return folder


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def garble(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 5000)


def narrow(folder: Path) -> None:
    _edit(folder / "config.json", d_ff=80)


def deepen(folder: Path) -> None:
    _edit(folder / "config.json", num_layers=3)


def flatten(folder: Path) -> None:
    _edit(folder / "config.json", num_decoder_layers=1)


def rename(folder: Path) -> None:
    _edit(folder / "config.json", model_type="t6")


def pickle_it(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def spoil_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "t5",\n "d_model": ', encoding="utf-8")


def enlarge_vocabulary(folder: Path) -> None:
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    last = dict(tokenizer["added_tokens"][-1])
    for i in range(100):
        tokenizer["added_tokens"].append({**last, "id": last["id"] + 1 + i, "content": f"<{i}>"})
    file.write_text(json.dumps(tokenizer), encoding="utf-8")


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _edit(file: Path, **changes: Any) -> None:
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (truncate, ("model.safetensors", "copy or download it again")),
        (garble, ("model.safetensors", "copy or download it again")),
        (narrow, ("wrong shape", "(80, 32)", "DenseReluDense.wi")),
        (deepen, ("encoder.block.2", "missing")),
        (flatten, ("decoder.block.1",)),
        (rename, ("`t6`", "did you mean `t5`")),
        (pickle_it, ("pytorch_model.bin, a pickle", "Convert it once")),
        (spoil_json, ("config.json:2", "not valid JSON")),
        (remove_weights, ("no model.safetensors",)),
        (enlarge_vocabulary, ("the tokenizer has ids up to", "rows; are both from the same")),
    ],
)
def test_a_checkpoint_that_is_damaged(
    broken: Path, mainspring: Mainspring, damage: Callable[[Path], None], parts: tuple[str, ...]
) -> None:
    damage(broken)
    assert_refused(mainspring("run", "summarize", "River.", "--model", broken), *parts)


def test_a_run_that_diverges_is_no_ones_input(tmp_path: Path, mainspring: Mainspring) -> None:
    data = nano.write_jsonl(nano.pairs(30), tmp_path / "pairs.jsonl")
    with nano.size() as name:
        code, _, err = mainspring(
            *("fit", "summarize", data, "--out", tmp_path / "out", "--from-scratch", name),
            *("--learning-rate", "1e6", "--warmup", 0, "--precision", "float32"),
        )
    assert code == 3
    assert "error: step " in err and "Try a smaller --learning-rate" in err
    assert "Traceback" not in err


def small_disk() -> None:
    """In the command's process: no file can grow beyond 60 kB, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))


@pytest.mark.slow
def test_a_full_disk_while_saving_a_model(tmp_path: Path) -> None:
    data = nano.write_jsonl(nano.pairs(30), tmp_path / "pairs.jsonl")
    command = nano.Command(
        tmp_path / "fit",
        *("fit", "summarize", data, "--out", tmp_path / "out", "--from-scratch", nano.NAME),
        *("--steps", 3, "--metric-rows", 2, "--max-target", 6),
        before=small_disk,
    )
    assert command.wait() == 2
    assert "could not be written" in command.err and "too large" in command.err
    assert "Traceback" not in command.err
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_hyphen_is_standard_input_among_other_words(
    trained: Path, mainspring: Mainspring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one text\nand another\n"))
    code, out, _ = mainspring("run", "summarize", "-", "--lines", "--model", trained, "--json")
    assert code == 0
    assert [json.loads(row)["text"] for row in out.splitlines()] == ["one text", "and another"]
    code, out, err = mainspring("run", "summarize", "--model", "-")
    assert (code, out) == (2, "") and "`-`" in err


def test_columns_are_named_by_field(trained: Path, mainspring: Mainspring, tmp_path: Path) -> None:
    table = nano.write_jsonl([{"body": "River.", "gist": "river"}], tmp_path / "a.jsonl")
    words = ("evaluate", "summarize", table, "--model", trained, "--json", "--columns.text")
    code, out, _ = mainspring(*words, "body", "--columns.target", "gist")
    assert code == 0 and json.loads(out)["rows"] == 1
    code, _, err = mainspring(*words, "-", "--target", "gist")
    assert code == 2 and "unknown column `-`" in err


def test_what_is_written_to_a_file_is_not_printed(
    trained: Path, mainspring: Mainspring, tmp_path: Path
) -> None:
    words = ("run", "summarize", trained.parent / "test.jsonl", "--model", trained, "--quiet")
    assert mainspring(*words, "--out", tmp_path / "a.jsonl") == (0, "", "")
    code, out, _ = mainspring(*words, "--out", tmp_path / "b.jsonl", "--json")
    assert code == 0
    assert json.loads(out) == {"out": str(tmp_path / "b.jsonl"), "rows": 12, "refused": 0}
    assert len(nano.read_jsonl(tmp_path / "a.jsonl")) == 12


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the disk that is always full")
def test_a_full_disk_while_writing_predictions(
    trained: Path, mainspring: Mainspring, tmp_path: Path
) -> None:
    table = trained.parent / "test.jsonl"
    (tmp_path / "predictions.jsonl").symlink_to("/dev/full")
    words = ("evaluate", "summarize", table, "--model", trained, "--out", tmp_path)
    assert_refused(mainspring(*words), "predictions.jsonl: could not be written (No space left")
    (tmp_path / ".o.csv.tmp").symlink_to("/dev/full")
    words = ("run", "summarize", table, "--model", trained, "--out", tmp_path / "o.csv", "--quiet")
    code, out, err = mainspring(*words)
    assert (code, out) == (2, "")
    assert err == f"error: {tmp_path / 'o.csv'}: could not be written (No space left on device)\n"
    assert len(nano.read_jsonl(tmp_path / "o.csv.part")) == 12


# -- stopping, and our own mistakes ---------------------------------------------------------------


def raising(error: BaseException) -> Callable[[Any], Any]:
    def call(words: Any) -> Any:
        raise error

    return call


def test_ctrl_c(mainspring: Mainspring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "call", raising(KeyboardInterrupt()))
    assert mainspring("doctor") == (130, "", "error: stopped by Ctrl-C\n")


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], object]], None]]:
    """verb(work): `mainspring doctor` does this work. Signals are as at a terminal: what is started
    in the background ignores some."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}

    def set_up(work: Callable[[], object]) -> None:
        monkeypatch.setattr("mainspring.verbs.doctor.doctor", lambda: work())

    yield set_up
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_signal_ends_a_verb_in_order_and_the_next_at_once(
    mainspring: Mainspring, verb: Callable[..., None], number: int, code: int, said: str
) -> None:
    both = (signal.SIGINT, signal.SIGTERM)
    found = []

    def work() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            found.extend(signal.getsignal(each) for each in both)
            error.add_note("half is done")
            raise

    before = [signal.getsignal(each) for each in both]
    verb(work)
    assert mainspring("doctor") == (code, "", f"error: stopped by {said}; half is done\n")
    assert found == [signal.SIG_DFL] * 2, "the system's own, which end the process"
    assert [signal.getsignal(each) for each in both] == before


def test_a_signal_that_is_ignored_stays_so(
    mainspring: Mainspring, verb: Callable[..., None]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    verb(lambda: signal.raise_signal(signal.SIGINT))
    assert mainspring("doctor") == (0, "", "")


def test_our_own_mistakes_show_a_traceback_and_are_not_the_answer_no(
    mainspring: Mainspring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "call", raising(ZeroDivisionError("division by zero")))
    code, out, err = mainspring("doctor", "--json")
    assert code == 3
    assert "Traceback" in err and "this is a mistake in Mainspring, not yours" in err
    assert json.loads(out)["error"] == "ZeroDivisionError"


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(surface(), indent=1) + "\n", encoding="utf-8")
