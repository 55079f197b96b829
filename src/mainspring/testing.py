"""The contracts of families and of tasks, as checks that any package can run on its own.

    from mainspring.testing import check_family, check_task
    def test_my_family(): check_family("my-family")
    def test_my_task(): check_task("my-task", ROWS, from_scratch="my-family-nano")

A family is looked up by the name it is registered under, and tested on its `examples`: the spec
survives JSON, the weight map accounts for every tensor in both directions and bit for bit, what is
missing, left over or unknown is an error that names it, padding changes nothing and never gives
NaN, and decoding step by step equals the full pass. That its numbers are right, only a comparison
with another implementation can show.

A task is looked up likewise, and tried on a few rows of data: its record is whole, good rows are
used and empty ones listed, its metric is highest for the references, and `fit`, `run` and
`evaluate` go through from end to end. What a model learns is not looked at.
"""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mainspring import registry, spec
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.core.init import build
from mainspring.core.model import Transformer
from mainspring.data.kinds import KINDS
from mainspring.data.readers import sources
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadOption, BadWeights, MainspringError
from mainspring.families import Config, Family
from mainspring.tasks import Task
from mainspring.tasks.reading import checked, match
from mainspring.weights.maps import to_ours, to_theirs


def tiny(name: str, example: int = 0, *, seed: int = 0) -> Transformer:
    """A small model of the family registered as `name`, of its example number `example`, with
    random weights (biases and norms too), in evaluation mode."""
    family = registry.find("families", name)
    return _random(family.spec(family.examples[example], ()), seed)


def tiny_inputs(model: Transformer, rows: int = 2, length: int = 9) -> dict[str, Tensor]:
    """Random inputs for a small model, under the names that it is called with."""
    generator = torch.Generator().manual_seed(0)
    first = model.spec.encoder or model.spec.decoder
    assert first is not None
    inputs: dict[str, Tensor] = {}
    match first.embedding:
        case spec.TokenEmbedding(vocabulary):
            ids = torch.randint(1, vocabulary, (rows, length), generator=generator)
            inputs["input_ids"] = ids
            inputs["attention_mask"] = torch.ones(rows, length, dtype=torch.long)
        case spec.PatchEmbedding() as image:
            height, width = image.rows * image.patch, image.columns * image.patch
            shape = rows, image.channels, height, width
            inputs["pixel_values"] = torch.randn(shape, generator=generator)
        case spec.AudioEmbedding(bins):
            inputs["input_features"] = torch.randn((rows, bins, 2 * length), generator=generator)
    if model.spec.encoder is not None and model.spec.decoder is not None:
        embedding = model.spec.decoder.embedding
        assert isinstance(embedding, spec.TokenEmbedding)
        ids = torch.randint(1, embedding.vocabulary, (rows, length), generator=generator)
        inputs["decoder_input_ids"] = ids
    return inputs


def check_family(name: str) -> None:
    """Runs the contract on every example of the family. AssertionError says what does not hold."""
    family: Family = registry.find("families", name)
    assert family.examples, f"the family `{name}` has no `examples` to be tested on"
    for number, config in enumerate(family.examples):
        model = tiny(name, number)
        check_spec(family, config)
        check_weight_map(family, config, model)
        check_saving(family, config, model)
        with torch.no_grad():
            check_padding(model)
            check_decoding(model)


def check_spec(family: Family, config: Config) -> None:
    """The spec survives JSON, and a config key that nobody knows is an error that names it."""
    description = family.spec(config, ())
    written = json.loads(json.dumps(spec.to_dict(description)))
    assert spec.from_dict(written) == description, "the spec does not survive JSON"
    key = "key_that_nobody_knows"
    try:
        family.spec({**config, key: 1}, ())
    except BadOption as error:
        assert key in str(error), f"the error for an unknown config key does not name it: {error}"
    else:
        raise AssertionError("a config key that nobody knows is passed over in silence")


def check_weight_map(family: Family, config: Config, model: Transformer) -> None:
    """Saving and loading give the same bits; a missing and a strange tensor are named."""
    ours = model.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    pairs = list(family.pairs(model.spec))
    names = [name for pair in pairs for name in pair.theirs]
    assert len(names) == len(set(names)), "the weight map names a stored tensor twice"
    theirs = to_theirs(pairs, ours)
    assert {family.canonical(name) for name in theirs} == set(theirs), "renames change new names"
    for name, other in family.aliases.items():
        both = name in theirs and other in theirs
        assert not both or not torch.equal(theirs[name], theirs[other]), f"{name} is saved twice"
    assert family.spec(config, theirs.keys()) == model.spec, (
        "the spec of the saved tensors is not the spec they were saved from"
    )
    again = to_ours(pairs, theirs, expected, family.ignored)
    for name, tensor in ours.items():
        assert torch.equal(again[name], tensor), f"{name} does not survive saving and loading"
    dropped = names[len(names) // 2]
    rest = {name: tensor for name, tensor in theirs.items() if name != dropped}
    _raises(dropped, lambda: to_ours(pairs, rest, expected, family.ignored))
    strange = {**theirs, "strange.weight": torch.zeros(1)}
    _raises("strange.weight", lambda: to_ours(pairs, strange, expected, family.ignored))


def check_saving(family: Family, config: Config, model: Transformer) -> None:
    """A saved folder opens as the same model, and names a class to open it with elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        Bundle(model, dict(config), family).save(folder)
        opened = load(folder)
        assert opened.spec == model.spec, "a saved folder opens as another model"
        for name, tensor in model.state_dict().items():
            assert torch.equal(opened.model.state_dict()[name], tensor), f"{name} is not saved"
        assert opened.config["architectures"], "the saved config.json names no class"


def check_padding(model: Transformer) -> None:
    """Padding on the right changes nothing before it, and a row of nothing else stays finite."""
    inputs = tiny_inputs(model)
    if "attention_mask" not in inputs:
        return
    plain = model(**inputs)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    length, more = ids.shape[1], 3
    inputs["input_ids"] = torch.cat([ids, ids[:, :more]], 1)
    inputs["attention_mask"] = torch.cat([mask, torch.zeros_like(mask[:, :more])], 1)
    padded = model(**inputs).last_hidden_state[:, :length]
    _assert_close(padded, plain.last_hidden_state)
    inputs["attention_mask"] = torch.zeros_like(inputs["attention_mask"])
    assert model(**inputs).last_hidden_state.isfinite().all(), "a padded row is not finite"


def check_decoding(model: Transformer) -> None:
    """Through the cache, some positions at a time, a decoder computes what it does in one pass."""
    if model.spec.decoder is None:
        return
    inputs = tiny_inputs(model)
    ids = inputs.get("decoder_input_ids", inputs.get("input_ids"))
    assert ids is not None
    full = model(**inputs)
    cache, parts = model.new_cache(capacity=2), []
    for part in ids.split([3, 1, 2, *[1] * (ids.shape[1] - 6)], 1):
        parts.append(model.decode(part, full.encoder_last_hidden_state, cache=cache))
    _assert_close(torch.cat(parts, 1), full.last_hidden_state)


def _assert_close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def _random(description: spec.Model, seed: int) -> Transformer:
    """A model whose every tensor is random, norms between 0.5 and 1.5."""
    model = build(description, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, module in model.named_modules():
            for kind, parameter in module.named_parameters(recurse=False):
                noise = torch.rand(parameter.shape, generator=generator) - 0.5
                if isinstance(module, torch.nn.LayerNorm | torch.nn.RMSNorm) and kind == "weight":
                    parameter.copy_(1 + noise)
                elif parameter.dim() == 1:
                    parameter.copy_(noise)
                elif name.startswith("tables."):
                    parameter.copy_(noise * math.sqrt(12) * parameter.shape[-1] ** -0.5)
    return model.eval()


def _raises(named: str, call: Any) -> None:
    try:
        call()
    except MainspringError as error:
        assert isinstance(error, BadWeights), f"{type(error).__name__} instead of BadWeights"
        assert named in str(error), f"the error does not name `{named}`: {error}"
    else:
        raise AssertionError(f"`{named}` is passed over in silence")


# -- tasks -----------------------------------------------------------------------------------------


def check_task(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    from_scratch: str | None = None,
    model: str | None = None,
    **options: Any,
) -> None:
    """Runs the contract on the task registered as `name`. AssertionError says what does not hold.

    `rows` are at least eight rows of data as users bring them (JSON objects), with targets.
    `from_scratch` or `model` is what `fit` starts from, as small as can be; `options` are more
    options of `fit`.
    """
    task: Task = registry.find("tasks", name)
    check_task_record(task, name)
    assert len(rows) >= 8, "the contract wants at least eight rows of data"
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        references = check_reading(task, data, len(rows))
        if task.metric is not None:
            check_metric(task, references)
        start = {"model": model} if model else {"from_scratch": from_scratch, "vocabulary": 400}
        check_verbs(task, data, {**start, **options})


def check_task_record(task: Task, name: str) -> None:
    """The record says all that readers, the command line and the documents need."""
    assert task.name == name, f"the task calls itself `{task.name}` and is registered as `{name}`"
    assert task.help and not task.help.endswith("."), "help is a phrase without a full stop"
    assert task.formulations, "no formulation serves the task"
    assert task.inputs, "the task has no input"
    for field in task.fields:
        assert field.kind in KINDS, f"field `{field.name}`: there is no kind `{field.kind}`"
        assert field.accepted and field.help, f"field `{field.name}` lacks column names or help"
    taken = [option.name for option in task.options] + [field.name for field in task.inputs]
    assert len(taken) == len(set(taken)), "an option or an input has the name of another"
    assert task.text in task.inputs
    if task.metric is None:
        assert task.best == "loss", "without a metric the loss is the score"
    else:
        assert task.target is not None, "a metric needs a target to compare with"


def check_reading(task: Task, data: Path, count: int) -> list[Any]:
    """All rows are used, and one with nothing in it is listed. Gives the references."""
    [source] = sources(data)
    matched = match(task, source, {})
    with SkipLog() as skipped:
        values = [example.values for example in checked(task, source, matched, skipped, {})]
    assert not skipped.total, f"rows of the data are skipped: {skipped.summary()}"
    assert len(values) >= count, f"{count} rows of data give {len(values)} rows"
    with data.open(encoding="utf-8") as file:
        columns = json.loads(next(file))
    broken = data.with_name("broken.jsonl")
    broken.write_text(data.read_text() + json.dumps(dict.fromkeys(columns)) + "\n")
    [source] = sources(broken)
    with SkipLog() as skipped:
        again = [example.values for example in checked(task, source, matched, skipped, {})]
    assert again == values and skipped.total == 1, "a row with nothing in it is not listed"
    return [] if task.target is None else [row[task.target.name] for row in values]


def check_metric(task: Task, references: list[Any]) -> None:
    """Scores are numbers, `best` is among them, and nothing scores higher than the references."""
    metric = task.metric
    assert metric is not None
    kind = metric.choose_kind(references)
    assert metric.signature(kind), "the metric does not say what it computes"
    rows = metric.score_rows(references, references, kind)
    assert len(rows) == len(references), "the metric does not score row by row"
    best = metric.scores(rows)
    assert task.best in best, f"`{task.best}` is none of the scores: {', '.join(best)}"
    assert all(math.isfinite(value) for value in best.values()), (
        f"scores that are no numbers: {best}"
    )
    turned = [*references[1:], references[0]]
    other = metric.scores(metric.score_rows(turned, references, kind))
    worse, better = other[task.best], best[task.best]
    if not task.higher_is_better:
        worse, better = better, worse
    assert worse <= better, "wrong answers score higher than right ones"


def check_verbs(task: Task, data: Path, start: Mapping[str, Any]) -> None:
    """`fit`, `run` and `evaluate` on the data; the fitted folder opens again."""
    from mainspring.verbs.evaluate import evaluate
    from mainspring.verbs.fit import fit
    from mainspring.verbs.run import run

    out = data.with_name("fitted")
    done = fit(task.name, data, out=out, **{"steps": 2, "metric_rows": 4, **start})
    assert done.steps >= 1 and (out / "model.safetensors").is_file(), "`fit` wrote no model"
    assert task.metric is None or task.best in done.scores
    if task.formulations[0].predict is None:
        return
    with data.open(encoding="utf-8") as file:
        count = sum(1 for _ in file)
    answers = run(task.name, data, model=str(out), precision="float32")
    assert len(answers) >= count, f"`run` gives {len(answers)} answers to {count} rows"
    assert all(task.output in row for row in answers), f"an answer has no `{task.output}`"
    json.dumps(answers)
    if task.metric is not None:
        evaluation = evaluate(task.name, data, model=str(out), precision="float32")
        assert evaluation.rows == len(answers) and task.best in evaluation.scores
        low, high = evaluation.interval[task.best]
        assert low <= evaluation.scores[task.best] <= high, "the score lies outside its interval"
