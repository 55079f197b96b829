import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import mainspring
import nano
from mainspring import events
from mainspring.checkpoints.bundle import load
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.errors import BadData, BadOption, Mismatch, Missing
from mainspring.training import fitting
from mainspring.verbs.fit import FitResult, command_line

QUICK: dict[str, Any] = {
    "steps": 4,
    "batch_tokens": 600,
    "max_source": 40,
    "max_target": 12,
    "metric_rows": 2,
    "precision": "float32",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano.write_jsonl(nano.pairs(30, seed=3), tmp_path_factory.mktemp("data") / "pairs.jsonl")


@pytest.fixture(scope="module")
def fitted(data: Path) -> tuple[Path, FitResult]:
    """A run of two epochs, with what it returned."""
    out = data.parent / "fitted"
    options = {**QUICK, "steps": None, "epochs": 2, "valid": data, "tensorboard": True}
    with nano.size() as name:
        result = mainspring.fit("summarize", data, out=out, from_scratch=name, **options)
    return out, result


# -- the result -----------------------------------------------------------------------------------


def test_the_json_object_has_the_promised_keys(fitted: tuple[Path, FitResult]) -> None:
    [line] = fitted[1].lines(as_json=True)
    printed = json.loads(line)
    assert list(printed) == [
        "out",
        "task",
        "steps",
        "seconds",
        "train_seconds",
        "tokens",
        "best",
        "best_step",
        "scores",
        "ended",
        "resume",
    ]
    assert printed["out"] == str(fitted[0])
    assert 0 < printed["train_seconds"] < printed["seconds"]
    assert printed["best"] == printed["scores"]["rougeLsum"]
    assert list(printed["scores"]) == ["loss", "rouge1", "rouge2", "rougeL", "rougeLsum"]
    assert list(fitted[1].lines(as_json=False)) == [str(fitted[0])]


def test_tokens_are_real_ones_without_padding(fitted: tuple[Path, FitResult], data: Path) -> None:
    tokenizer = Tokenizer.open(fitted[0])
    assert tokenizer is not None
    rows = nano.read_jsonl(data)
    counted = sum(
        min(40, len(tokenizer.encode(row["article"])))
        + min(12, len(tokenizer.encode(row["summary"])))
        for row in rows
    )
    assert fitted[1].tokens == 2 * counted
    logged = [row for row in nano.read_jsonl(fitted[0] / "metrics.jsonl") if "loss" in row]
    assert sum(row["tokens"] for row in logged) == 2 * counted
    assert len(logged) == fitted[1].steps


def test_the_folder_holds_what_the_docs_say(fitted: tuple[Path, FitResult], data: Path) -> None:
    names = {file.name for file in fitted[0].iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "generation_config.json",
        "mainspring.json",
        "metrics.jsonl",
        "model.safetensors",
        "run.json",
        "splits.json",
        "state",
        "tensorboard",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    card = (fitted[0] / "README.md").read_text(encoding="utf-8")
    for part in ("summarize", str(data), "rougeLsum", f"mainspring fit summarize {data}"):
        assert part in card
    run = json.loads((fitted[0] / "run.json").read_text(encoding="utf-8"))
    assert run["columns"] == [{"text": "article", "target": "summary"}] * 2
    assert run["versions"]["torch"] == torch.__version__


def test_transformers_opens_the_folder_and_writes_what_run_writes(
    fitted: tuple[Path, FitResult], data: Path
) -> None:
    out = fitted[0]
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(out)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    articles = [row["article"] for row in nano.pairs(4, seed=12)]
    ours = mainspring.run(
        "summarize", *articles, model=str(out), precision="float32", on_long="cut"
    )
    for article, row in zip(articles, ours, strict=True):
        ids = tokenizer(article, truncation=True, max_length=40, return_tensors="pt").input_ids
        [made] = model.generate(ids)
        assert tokenizer.decode(made, skip_special_tokens=True).strip() == row["summary"]


# -- where a run starts from ----------------------------------------------------------------------


def test_a_checkpoint_is_fine_tuned_and_left_as_it_was(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    before = (trained / "model.safetensors").read_bytes()
    result = mainspring.fit(
        "summarize",
        data,
        out=tmp_path / "tuned",
        model=str(trained),
        learning_rate=1e-9,
        **{**QUICK, "max_source": None, "max_target": None},
    )
    assert result.steps == 4
    assert (trained / "model.safetensors").read_bytes() == before
    settings = json.loads((tmp_path / "tuned" / "mainspring.json").read_text())
    assert settings["limits"] == {"source": 40, "target": 12}  # what the checkpoint remembers
    for name in ("tokenizer.json", "config.json"):
        assert (tmp_path / "tuned" / name).read_bytes() == (trained / name).read_bytes()
    ours = load(tmp_path / "tuned").model.state_dict()
    for name, tensor in load(trained).model.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-7, rtol=0)


def test_pretraining_and_then_summarizing(tmp_path: Path, data: Path, nano_size: str) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(row["article"] for row in nano.pairs(220)), encoding="utf-8")
    options = {name: QUICK[name] for name in ("steps", "batch_tokens", "precision")}
    first = mainspring.fit(
        "pretrain", text, out=tmp_path / "first", from_scratch=nano_size, max_source=64, **options
    )
    assert list(first.scores) == ["loss"] and first.best == first.scores["loss"]
    second = mainspring.fit(
        "summarize", data, out=tmp_path / "second", model=str(tmp_path / "first"), **QUICK
    )
    assert "rougeLsum" in second.scores
    settings = json.loads((tmp_path / "second" / "mainspring.json").read_text())
    assert settings["task"] == "summarize"
    assert mainspring.run("summarize", "Quiet river.", model=str(tmp_path / "second"))


def test_a_checkpoints_own_prefix_is_used(data: Path, tmp_path: Path) -> None:
    bundle = nano.bundle()
    bundle.config["task_specific_params"] = {"summarization": {"prefix": "summarize: "}}
    bundle.save(tmp_path / "start")
    seen: list[events.Event] = []
    with events.listening(seen.append):
        mainspring.fit(
            "summarize", data, out=tmp_path / "run", model=str(tmp_path / "start"), **QUICK
        )
    [block] = [e for e in seen if isinstance(e, events.Block) and e.title == "Pre-flight"]
    assert dict(block.lines)["prefix"] == "'summarize: '"
    assert json.loads((tmp_path / "run" / "mainspring.json").read_text())["prefix"] == "summarize: "


# -- what is shown --------------------------------------------------------------------------------


def test_the_preflight_tells_what_will_be_lost(tmp_path: Path, nano_size: str) -> None:
    rows = [{"doc": row["article"], "title": row["summary"]} for row in nano.pairs(30)]
    data = nano.write_jsonl([*rows, {"doc": "", "title": "x"}], tmp_path / "rows.jsonl")
    seen: list[events.Event] = []
    with events.listening(seen.append):
        mainspring.fit(
            "summarize",
            data,
            out=tmp_path / "run",
            from_scratch=nano_size,
            text="doc",
            **{**QUICK, "max_source": 16},
        )
    titles = [event.title for event in seen if isinstance(event, events.Block)]
    assert titles == ["Pre-flight", "Result"]
    first_step = next(
        i for i, e in enumerate(seen) if isinstance(e, events.Progress) and e.task == "training"
    )
    block = next(e for e in seen[:first_step] if isinstance(e, events.Block))
    lines = dict(block.lines)
    assert lines["task"] == "summarize   doc → text, title → target"
    assert "train 28 · validation 2" in lines["rows"]
    assert lines["rows"].endswith("skipped 1 → skipped.jsonl")
    [told] = [e.text for e in seen if isinstance(e, events.Warn) and "skipped" in e.text]
    assert told == f"1 rows skipped: 1 empty text (first: {data}:31: column `doc`)"
    assert "limit 16:" in lines["source"] and "of rows lose text" in lines["source"]
    assert lines["loss on"].startswith("░ ") and lines["loss on"].endswith("</s> ■")
    for name, part in {"batches": "padding", "memory": "GB", "time": "on 3 timed steps"}.items():
        assert part in lines[name]
    result = dict(next(e for e in reversed(seen) if isinstance(e, events.Block)).lines)
    assert result["use it"] == f"mainspring run summarize TEXT_OR_FILE --model {tmp_path / 'run'}"


# -- what is refused ------------------------------------------------------------------------------


def fit(data: Path, out: Path, **options: Any) -> FitResult:
    return mainspring.fit("summarize", data, **{"out": out, "from_scratch": "t5-tiny", **options})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"model": "x"}, "--model and --from-scratch exclude each other"),
        ({"epochs": 0}, "--epochs must be at least 1, not 0"),
        ({"steps": -1}, "--steps must be at least 1, not -1"),
        ({"minutes": 0}, "--minutes must be above 0, not 0"),
        ({"accumulate": 0}, "--accumulate must be at least 1"),
        ({"batch_tokens": 3}, "--batch-tokens must be at least 32"),
        ({"learning_rate": 0.0}, "--learning-rate must be above 0"),
        ({"learning_rate": float("nan")}, "--learning-rate must be above 0"),
        ({"warmup": 1.5}, "--warmup must lie between 0 and 1, not be 1.5"),
        ({"clip": -1.0}, "--clip must lie between 0 and inf"),
        ({"seed": -1}, "--seed must lie between 0 and 9223372036854775807, not be -1"),
        ({"weight_decay": float("nan")}, "--weight-decay must lie between 0 and 1, not be nan"),
        ({"max_source": 2}, "--max-source must be at least 4"),
        ({"max_target": 1}, "--max-target must be at least 2"),
        ({"vocabulary": 10}, "--vocabulary must be at least"),
        ({"optimizer": "adam"}, "unknown --optimizer `adam`; did you mean `adamw`"),
        ({"schedule": "cosin"}, "unknown --schedule `cosin`; did you mean `cosine`"),
        ({"precision": "float16"}, "unknown --precision `float16`; did you mean `bfloat16`"),
        ({"tokenizer": "bpe"}, "unknown --tokenizer `bpe`"),
        ({"from_scratch": "t5-tny"}, "unknown size `t5-tny`; did you mean `t5-tiny`"),
        ({"text": "artcle"}, "--text: unknown column `artcle`; did you mean `article`"),
        ({"text": "article", "target": "article"}, "cannot be both"),
    ],
)
def test_options_out_of_range_are_refused(
    data: Path, tmp_path: Path, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(BadOption, match=problem):
        fit(data, tmp_path / "out", **options)
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_size_that_cannot_do_the_task_is_refused_before_anything_is_made(
    data: Path, tmp_path: Path
) -> None:
    """Not even the data is read through: no row of it is listed as broken."""
    for size, problem in (("bert-mini", "cannot do `summarize`"), ("t5-tny", "unknown size")):
        with pytest.raises((BadOption, Mismatch), match=problem):
            fit(data, tmp_path / "runs" / "out", from_scratch=size)
        assert not (tmp_path / "runs").exists()


def test_a_failed_start_does_not_stand_in_the_way_of_the_next(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*how: object) -> None:
        raise BadOption("no tokenizer")

    monkeypatch.setattr(fitting, "train_tokenizer", failing)
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(data.read_bytes() + b"{bad\n")
    for _ in range(2):
        with pytest.raises(BadOption, match="no tokenizer"):
            fit(broken, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "skipped.jsonl",
        "splits.json",
    }


def test_a_folder_serves_one_run_at_a_time(data: Path, tmp_path: Path, nano_size: str) -> None:
    out, seen = tmp_path / "runs" / "out", set()

    def second(event: events.Event) -> None:
        """At every moment of the first run another one begins in the same folder."""
        seen.add(type(event))
        with events.listening(lambda event: None):
            for resume in (False, True):
                words = f"{out} is in use: process {os.getpid()} is fitting .*name another folder"
                with pytest.raises(BadOption, match=words):
                    fit(data, out, resume=resume)

    with events.listening(second):
        result = fit(data, out, from_scratch=nano_size, **QUICK)
    assert result.ended == "steps" and seen >= {events.Progress, events.Block, events.Note}
    assert not list(out.glob(".*"))


def test_a_run_that_was_killed_leaves_no_lock_behind(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "out"
    with pytest.raises(Missing, match="no run to resume"):
        fit(data, out, resume=True)
    assert not out.parent.exists(), "nor does one that did not begin leave folders"
    out.mkdir(parents=True)
    (out / ".lock").write_text('{"process": 1, "doing": "fitting", "since": "once"}')
    with pytest.raises(BadOption, match="unknown size"):
        fit(data, out, from_scratch="t5-tny")
    assert not (out / ".lock").exists()


def test_nothing_is_written_over(trained: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadOption, match="is a file; name a folder"):
        fit(data, tmp_path / "file")
    with pytest.raises(BadOption, match="already holds a run; go on with it"):
        fit(data, trained)
    nano.bundle().save(tmp_path / "model")
    with pytest.raises(BadOption, match=r"is not empty \(it holds .*nothing is written over"):
        fit(data, tmp_path / "model", from_scratch=None, model=str(tmp_path / "model"))
    assert load(tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "kind", "problem"),
    [
        (None, Missing, r"no file or folder .*rows\.jsonl"),
        ("", BadData, r"rows\.jsonl: no rows in it"),
        ("{bad\n{bad\n", BadData, r"rows\.jsonl: no usable row: 2 bad JSON \(first: .*:1"),
        ('{"a": "x", "b": "y"}\n', BadData, "no column for the text: the columns are `?a"),
        ('{"text": "x", "b": "y"}\n', BadData, "no column for the target"),
        ('{"text": "x", "summary": "y"}\n', BadData, "at least two different rows"),
        ('{"text": "", "summary": "y"}\n' * 3, BadData, "no usable row: 3 empty text"),
    ],
)
def test_data_that_cannot_be_trained_on(
    tmp_path: Path, content: str | None, kind: type[Exception], problem: str
) -> None:
    file = tmp_path / "rows.jsonl"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(kind, match=problem):
        fit(file, tmp_path / "out")


def test_strict_stops_at_the_first_broken_row(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(b"{bad\n" + data.read_bytes())
    with pytest.raises(BadData, match=r"broken\.jsonl:1: bad JSON"):
        fit(broken, tmp_path / "out", strict=True)


def test_a_model_that_cannot_do_the_task(data: Path, tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    folder = tmp_path / "bert"
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    nano.tokenizer().save(folder)
    with pytest.raises(Mismatch, match="cannot do `summarize`: sequence to sequence needs an enc"):
        fit(data, tmp_path / "out", from_scratch=None, model=str(folder))


def test_a_model_without_a_tokenizer(data: Path, tmp_path: Path) -> None:
    bundle = nano.bundle()
    bundle.tokenizer = None
    bundle.save(tmp_path / "bare")
    with pytest.raises(Mismatch, match="no tokenizer, so it cannot be trained on text"):
        fit(data, tmp_path / "out", from_scratch=None, model=str(tmp_path / "bare"))


def test_a_target_makes_no_sense_for_plain_text(tmp_path: Path, data: Path) -> None:
    with pytest.raises(BadOption, match="unknown field `target`"):
        mainspring.fit(
            "pretrain", data, out=tmp_path / "out", from_scratch="t5-tiny", target="summary"
        )


def test_options_without_an_effect_are_said(trained: Path, data: Path, tmp_path: Path) -> None:
    seen: list[events.Event] = []
    with events.listening(seen.append):
        mainspring.fit(
            "summarize",
            data,
            out=tmp_path / "out",
            model=str(trained),
            vocabulary=500,
            **{**QUICK, "steps": 1},
        )
    said = [event.text for event in seen if isinstance(event, events.Warn)]
    assert said == ["--vocabulary has no effect with --model, which has its own tokenizer"]


def test_the_command_of_a_run_starts_it_again() -> None:
    defaults = {name: p.default for name, p in inspect.signature(mainspring.fit).parameters.items()}
    given = {"task": "summarize", "data": "my news.csv", "out": "runs/a", "resume": True}
    options = {"from_scratch": "t5-mini", "clip": 0.5, "strict": True, "seed": 7}
    assert command_line({**defaults, **given, **options}) == (
        "mainspring fit summarize 'my news.csv' --out runs/a --from-scratch t5-mini --clip 0.5 "
        "--seed 7 --strict"
    )
