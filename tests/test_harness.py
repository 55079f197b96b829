"""The lm-eval harness on a model of ours, held against the harness on the same model in
transformers. The tasks and their data are written here: nothing is fetched."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import nano
from mainspring.errors import Mismatch, Missing

pytestmark = pytest.mark.slow

CHOICES = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
PERPLEXITY = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: word_perplexity}}, {{metric: bits_per_byte}}]
"""
WRITING = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["."], max_gen_toks: 8, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="module")
def lm_eval() -> Any:
    pytest.importorskip("lm_eval")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lm_eval
        import lm_eval.tasks

        import mainspring.harness  # noqa: F401
    return lm_eval


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("harness") / "model"
    nano.decoder().save(folder)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three tasks over files beside them."""
    folder = tmp_path_factory.mktemp("tasks")
    sentences = [row["summary"] for row in nano.pairs(8, seed=3)]
    choices = [
        {"question": text, "choices": [" Quiet river.", " window", " early"], "answer": i % 3}
        for i, text in enumerate(sentences)
    ]
    writing = [{"question": text, "answer": "river"} for text in sentences]
    texts = [{"text": row["article"] * 3} for row in nano.pairs(5, seed=4)]
    for name, template, rows in (
        ("own_choices", CHOICES, choices),
        ("own_perplexity", PERPLEXITY, texts),
        ("own_writing", WRITING, writing),
    ):
        data = nano.write_jsonl(rows, folder / f"{name}.jsonl")
        (folder / f"{name}.yaml").write_text(template.format(name=name, data=data))
    return folder


def results(lm_eval: Any, model: Any, tasks: Path, **options: Any) -> tuple[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        manager = lm_eval.tasks.TaskManager(include_path=str(tasks), include_defaults=False)
        found = lm_eval.simple_evaluate(
            model,
            tasks=["own_choices", "own_perplexity", "own_writing"],
            task_manager=manager,
            bootstrap_iters=0,
            **options,
        )
    return found["results"], found["samples"]


def test_the_harness_says_the_same_as_of_transformers(
    lm_eval: Any, model: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.models.huggingface import HFLM

    from mainspring.harness import Harness

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ours, our_samples = results(
        lm_eval, Harness(str(model), precision="float32", max_length=40), tasks
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = HFLM(str(model), device="cpu", dtype="float32", max_length=40, batch_size=4)
    theirs, their_samples = results(lm_eval, oracle, tasks)
    for task, scores in theirs.items():
        for name, value in scores.items():
            if isinstance(value, float):
                assert ours[task][name] == pytest.approx(value, rel=1e-4), (task, name)
    assert ours["own_perplexity"]["bits_per_byte,none"] > 0
    for task, samples in their_samples.items():
        for one, other in zip(our_samples[task], samples, strict=True):
            if task == "own_writing":
                assert one["resps"] == other["resps"]
                continue
            flat = [json.loads(json.dumps(s["resps"])) for s in (one, other)]
            assert _numbers(flat[0]) == pytest.approx(_numbers(flat[1]), rel=1e-4, abs=1e-4)


def _numbers(value: Any) -> list[float]:
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [float(str(value).replace("True", "1").replace("False", "0"))]


def test_it_is_known_by_its_name(lm_eval: Any, model: Path, tasks: Path) -> None:
    options = {"model_args": f"model={model},precision=float32,max_length=40", "limit": 2}
    found, _ = results(lm_eval, "mainspring", tasks, **options)
    assert set(found) == {"own_choices", "own_perplexity", "own_writing"}


def test_models_that_have_an_encoder(lm_eval: Any) -> None:
    from mainspring.harness import Harness

    with pytest.raises(Mismatch, match="lacks a decoder alone"):
        Harness(nano.bundle())


def test_its_command_says_what_is_wrong_as_ours_does(tmp_path: Path) -> None:
    def run(program: str) -> tuple[int, str]:
        words = [sys.executable, "-W", "ignore", "-c", program]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
        return done.returncode, done.stderr

    start = "import runpy; runpy.run_module('mainspring.harness', run_name='__main__')"
    lacking = "import sys; sys.modules['lm_eval'] = sys.modules['lm_eval.api.instance'] = None"
    code, err = run(f"{lacking}; {start}")
    assert code == 2 and re.fullmatch(r"error: the harness needs .*\[harness\]'\n", err)
    fails = (
        "import lm_eval.__main__ as main; from mainspring.errors import BadOption\n"
        "def cli_evaluate(): raise BadOption('not so')\n"
        "main.cli_evaluate = cli_evaluate"
    )
    code, err = run(f"{fails}\n{start}")
    assert code == 2 and err.endswith("error: not so\n") and "Traceback" not in err


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.api.instance", None)
    monkeypatch.delitem(sys.modules, "mainspring.harness", raising=False)
    with pytest.raises(Missing, match=r"mainspring\[harness\]"):
        import mainspring.harness  # noqa: F401
