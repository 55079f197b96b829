import json
from dataclasses import replace

import pytest

import nano
from mainspring import registry
from mainspring.errors import BadWeights, Mismatch
from mainspring.formulations import Limits, Setup, special_ids
from mainspring.formulations.classification import SEVERAL
from mainspring.tasks import Task, checkpoint_prefix, choose_formulation
from mainspring.tasks.answer import TASK as ANSWER
from mainspring.tasks.classify import TASK as CLASSIFY
from mainspring.tasks.pretrain import TASK as PRETRAIN
from mainspring.tasks.reading import named_columns
from mainspring.tasks.relations import TASK as RELATIONS
from mainspring.tasks.settings import FILE, setup_bytes, setup_of
from mainspring.tasks.summarize import TASK as SUMMARIZE


@pytest.mark.parametrize("name", registry.names("tasks"))
def test_every_task_is_whole(name: str) -> None:
    task: Task = registry.find("tasks", name)
    assert task.name == name
    assert task.help and not task.help.endswith(".")
    assert all(field.accepted and field.help for field in task.fields)
    assert task.formulations
    assert task.higher_is_better == (task.best not in ("loss", "wer"))
    if task.metric is None:
        assert task.best == "loss"
    else:
        assert task.target is not None and task.metric.signature(task.metric.choose_kind([]))


def test_the_accepted_columns_are_those_people_bring() -> None:
    text, target = SUMMARIZE.fields
    assert text.accepted[0] == "text" and {"article", "document", "dialogue"} < set(text.accepted)
    assert target.accepted[0] == "summary" and {"highlights", "abstract"} < set(target.accepted)


def test_the_first_formulation_that_the_model_can_serve_is_chosen() -> None:
    model = nano.bundle().spec
    picky = replace(SUMMARIZE.formulations[0], name="picky", lacks=lambda spec: "a nose")
    both = replace(SUMMARIZE, formulations=(picky, SUMMARIZE.formulations[0]))
    assert choose_formulation(both, model).name == "sequence to sequence"
    with pytest.raises(Mismatch, match="cannot do `summarize`: picky needs a nose"):
        choose_formulation(replace(SUMMARIZE, formulations=(picky,)), model)


def test_a_model_with_one_stack_or_no_head_cannot_write() -> None:
    model = nano.bundle().spec
    lacks = SUMMARIZE.formulations[0].lacks
    assert lacks(model) is None
    assert lacks(replace(model, decoder=None)) == "an encoder and a decoder"
    assert lacks(replace(model, heads=())) == "a vocabulary head"


def test_a_prefix_comes_from_the_config_or_is_none() -> None:
    params = {"summarization": {"prefix": "summarize: ", "length_penalty": 2.0}}
    assert checkpoint_prefix(SUMMARIZE, {"task_specific_params": params}) == "summarize: "
    assert checkpoint_prefix(PRETRAIN, {"task_specific_params": params}) == ""
    assert checkpoint_prefix(SUMMARIZE, {"task_specific_params": None}) == ""
    assert checkpoint_prefix(SUMMARIZE, {}) == ""


def test_inputs_are_told_from_options() -> None:
    given = ANSWER.read_options({"question": "Who?", "n-best": "2"}, ())
    assert ANSWER.apart(given) == ({"question": "Who?"}, {"n_best": 2})
    assert SUMMARIZE.apart({}) == ({}, {})


def test_columns_are_named_one_by_one_or_by_field() -> None:
    named = {"columns": {"text": "a", "label": "b"}, "text": "c", "target": None}
    assert named_columns(named) == {"text": "c", "label": "b"}
    assert named_columns({"columns": None, "text": None, "target": "d"}) == {"target": "d"}
    assert named_columns({"text": ""}) == {"text": ""}  # some tables have a column without a name


def test_settings_are_stored_and_found_again() -> None:
    bundle = nano.bundle()
    assert setup_of(bundle, SUMMARIZE) == Setup(SUMMARIZE.limits)
    bundle.config["n_positions"] = 256
    assert setup_of(bundle, SUMMARIZE).limits == Limits(256, 128)
    stored = Setup(Limits(99, 33), "kürze: ")
    bundle.extra_files[FILE] = setup_bytes("summarize", stored)
    assert setup_of(bundle, SUMMARIZE) == stored
    assert setup_of(bundle, PRETRAIN).limits == Limits(256, 128)  # those of another task


def test_what_a_formulation_keeps_in_the_config_is_found_there() -> None:
    bundle = nano.bundle()
    bundle.config["problem_type"] = "multi_label_classification"
    for task in (CLASSIFY, RELATIONS):
        assert setup_of(bundle, task).options == {**task.defaults, "problem_type": SEVERAL}
    assert "problem_type" not in setup_of(bundle, SUMMARIZE).options
    bundle.config["problem_type"] = None
    assert setup_of(bundle, CLASSIFY).options == CLASSIFY.defaults


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"task": "summarize"}', b"\xff"])
def test_settings_that_cannot_be_read(data: bytes) -> None:
    bundle = nano.bundle()
    bundle.extra_files[FILE] = data
    with pytest.raises(BadWeights, match=r"mainspring\.json: cannot be read"):
        setup_of(bundle, SUMMARIZE)


def test_settings_of_a_later_format() -> None:
    bundle = nano.bundle()
    stored = json.loads(setup_bytes("summarize", Setup(Limits(9, 9))))
    bundle.extra_files[FILE] = json.dumps({**stored, "format": 2}).encode()
    with pytest.raises(Mismatch, match="format 2, this release reads 1"):
        setup_of(bundle, SUMMARIZE)


def test_special_ids_come_from_the_config_and_then_from_the_tokenizer() -> None:
    tokenizer = nano.tokenizer()
    ids = special_ids(tokenizer, {})
    assert (ids.pad, ids.eos, ids.start) == (0, 1, 0)
    config = {"pad_token_id": 5, "eos_token_id": [6, 7], "decoder_start_token_id": 8}
    ids = special_ids(tokenizer, config)
    assert (ids.pad, ids.eos, ids.start) == (5, 6, 8)
    with pytest.raises(Mismatch, match=r"the same token .*never learns to stop"):
        special_ids(tokenizer, {"pad_token_id": 1})
    with pytest.raises(Mismatch, match="no padding or no end token"):
        special_ids(tokenizer, {"pad_token_id": None})
