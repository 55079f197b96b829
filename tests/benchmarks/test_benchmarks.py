"""The parts of the benchmark that compute: no test here measures time."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks.__main__ import ENTRIES, entry, main
from benchmarks.arithmetic import decoding_weights, forward_flops, training_flops
from benchmarks.entry import FULL, QUICK, Check, Context, Ratio, Result, Table
from benchmarks.generation_contestants import _made, _padded
from benchmarks.generation_speed import same_rows
from benchmarks.material import SHORT, find_data
from benchmarks.measure import peak_bytes, ratio, spread, turn_order
from benchmarks.report import document, load, record, save
from benchmarks.training_contestants import Trained, TrainingSetup, falls
from benchmarks.training_curve import differences, spans
from benchmarks.turns import Contestant, ContestantFailed, missing, playing
from little_contestants import breaks, never_starts, squares
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as page
from mainspring import registry
from mainspring.core.attention import CrossAttention, SelfAttention, attend_reference
from mainspring.core.init import build
from mainspring.core.model import Transformer
from mainspring.formulations import EncodedRow
from mainspring.training.rows import EncodedRows


def test_list_names_every_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == list(ENTRIES)
    assert all(entry(name).name == name for name in ENTRIES)


def test_unknown_entry_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--only", "training_sped"])
    assert refused.value.code == 2
    assert "training_speed" in capsys.readouterr().err


# -- statistics ------------------------------------------------------------------------------------


def test_spread_is_median_and_quartiles() -> None:
    found = spread([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (found.median, found.low, found.high, found.count) == (3.0, 2.0, 4.0, 5)
    assert found.shown(".1f") == "3.0 (2.0–4.0)"
    assert spread([7.0]).shown() == "7.00"


def test_ratios_pair_the_rounds() -> None:
    """A machine that is half as fast in one round leaves every ratio as it was."""
    found = ratio([100.0, 50.0, 100.0], [20.0, 10.0, 20.0])
    assert (found.median, found.low, found.high) == (5.0, 5.0, 5.0)
    with pytest.raises(ValueError):
        ratio([1.0], [1.0, 2.0])


def test_turns_go_there_and_back() -> None:
    names = ["a", "b", "c"]
    orders = [turn_order(names, number) for number in range(4)]
    assert orders == [["a", "b", "c"], ["c", "b", "a"]] * 2
    places = [sum(order.index(name) for order in orders) for name in names]
    assert len(set(places)) == 1


def test_spans_cover_every_step_once() -> None:
    for steps in (1, 2, 16, 160):
        assert [i for part in spans(steps) for i in part] == list(range(steps))


def test_falling_and_agreeing() -> None:
    assert falls([3.0, 2.5, 2.0, 1.0])
    assert not falls([3.0, float("nan"), 1.0])
    assert not falls([1.0, 2.0, 3.0])
    assert differences([1.0, 2.0], [1.5, 1.0]) == [0.5, 1.0]
    assert same_rows([[1, 2], [3]], [[1, 2], [4]]) == 0.5


# -- operations ------------------------------------------------------------------------------------

T5 = {
    "d_model": 24,
    "d_kv": 8,
    "d_ff": 40,
    "num_heads": 2,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "vocab_size": 64,
}


def _countable(model: Transformer) -> Transformer:
    """With the explicit attention, whose products torch can count."""
    for module in model.modules():
        if isinstance(module, SelfAttention | CrossAttention):
            module.attend = attend_reference
    return model


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_flops_are_those_that_torch_counts(kind: str) -> None:
    family = registry.find("families", "t5")
    spec = family.spec({**T5, "feed_forward_proj": kind}, ())
    model = _countable(build(spec, 0))
    rows, source, target = 3, 7, 5
    ids, decoder_ids = torch.ones(rows, source, dtype=int), torch.ones(rows, target, dtype=int)

    def loss() -> torch.Tensor:
        return model(input_ids=ids, decoder_input_ids=decoder_ids).logits.sum()

    with FlopCounterMode(display=False) as forward:
        loss()
    with FlopCounterMode(display=False) as both:
        loss().backward()
    assert forward.get_total_flops() == rows * forward_flops(spec, source, target)
    assert both.get_total_flops() == training_flops(spec, [(source, target)] * rows)


def test_weights_of_a_decoding_step() -> None:
    """What a step reads: the decoder's matrices and the head; not the memory's keys and values."""
    spec = registry.find("families", "t5").spec(T5, ())
    read = sum(inside * outside for inside, outside in decoding_weights(spec))
    width, inner, wide = T5["d_model"], T5["d_kv"] * T5["num_heads"], T5["d_ff"]
    layer = 6 * width * inner + 2 * width * wide
    assert read == T5["num_decoder_layers"] * layer + T5["vocab_size"] * width


def test_flops_of_a_decoder_alone() -> None:
    config = {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 16, "vocab_size": 64}
    spec = registry.find("families", "gpt2").spec(config, ())
    model = _countable(build(spec, 0))
    with FlopCounterMode(display=False) as counted:
        model(input_ids=torch.ones(2, 9, dtype=int)).logits.sum().backward()
    assert counted.get_total_flops() == training_flops(spec, [(0, 9)] * 2)


# -- turns -----------------------------------------------------------------------------------------


def test_contestants_take_turns() -> None:
    contestants = [
        Contestant("one", squares, 1),
        Contestant("two", squares, 2),
        Contestant("absent", squares, 3, needs=("no_such_package",)),
        Contestant("broken peer", never_starts, None, needs=("torch",)),
    ]
    with playing(contestants) as team:
        assert team.names == ["one", "two"]
        assert [team.ask(name, 5) for name in team.names] == [26, 27]
        assert team.ask("one", 2) == 5
    assert team.skipped["absent"] == "not installed: no_such_package"
    assert team.skipped["broken peer"] == "could not start: RuntimeError: nothing works"
    assert team.descriptions == {"one": "squares plus 1", "two": "squares plus 2"}
    assert all(team.peaks[name] > 1_000_000 for name in ("one", "two"))


def test_a_contestant_that_fails_is_named() -> None:
    with pytest.raises(ContestantFailed, match=r"(?s)clumsy.*cannot do this"):  # noqa: SIM117
        with playing([Contestant("clumsy", breaks, None)]) as team:
            team.ask("clumsy", "this")


def test_peak_and_packages() -> None:
    before = peak_bytes()
    held = torch.ones(10_000_000)
    assert peak_bytes() >= before
    assert held.sum() == len(held)
    assert missing(["torch", "no_such_package"]) == ["no_such_package"]


# -- contestants' pieces ---------------------------------------------------------------------------


def test_rows_are_padded_and_cut() -> None:
    ids, mask = _padded(((5, 6, 7), (8,)), 0, left=False)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert _padded(((5, 6, 7), (8,)), 0, left=True)[0].tolist() == [[5, 6, 7], [0, 0, 8]]
    made = _made(2.0, [[4, 0, 1, 0, 0], [4, 4, 4, 4, 4]], 1)
    assert made.rows == [[4, 0], [4, 4, 4, 4, 4]]
    assert (made.tokens, made.speed) == (8, 4.0)


def test_real_tokens_are_counted() -> None:
    assert Trained(2.0, [1.0], [(10, 3), (4, 1)]).speed == 9.0


def test_everyone_gets_the_batches_of_the_plan() -> None:
    rows = EncodedRows(EncodedRow([2] * n, [3] * 2) for n in range(1, 30))
    setup = TrainingSetup(Path("nowhere"), rows, "float32", 64, total=10)
    batches = setup.batches()
    first = [next(batches) for _ in setup.plan(0).batches]
    assert sorted(row for batch in first for row in batch) == list(range(29))
    assert next(batches) == setup.plan(1).batches[0]
    assert setup.schedule().at(10) == 0.0
    assert replace(setup, total=0).schedule().at(10) == setup.rate


# -- data and results ------------------------------------------------------------------------------


def test_the_argument_wins_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("given", "named"):
        (tmp_path / name / "summarization" / SHORT).mkdir(parents=True)
    monkeypatch.setenv("MAINSPRING_DATA", str(tmp_path / "named"))
    assert find_data(tmp_path / "given") == tmp_path / "given"
    assert find_data(None) == tmp_path / "named"
    assert find_data(tmp_path / "not there") is None


def test_results_survive_their_file(tmp_path: Path) -> None:
    result = Result(
        (Table("Speeds", ("who", "tokens/s"), (("ours", "10"), ("theirs", "5")), "a note"),),
        (
            Ratio("speed", "ours", "theirs", spread([2.0, 2.2]), 3.0),
            Ratio("memory", "ours", "theirs", spread([0.5]), 1.0, less=True),
        ),
        (Check("equal", "all rows", True), Check("near", "far", False)),
        ("a peer: not installed",),
        ("small",),
        {"raw": [1, 2]},
    )
    context = Context(QUICK, 2, None, tmp_path, print)
    made = record(entry("machine"), context, 1.5, result, None)
    assert load(save(made, tmp_path)) == made
    text = document([made], "picture.png")
    assert "≥ 3: no" in text and "≤ 1: yes" in text
    assert "**NO**: near (far)" in text
    assert "left out: a peer: not installed" in text
    assert "docstring pairs" in text


def test_the_page_is_written_of_what_is_there_and_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Result((Table("Speeds", ("who", "tokens/s"), (("ours", "10"),), ""),))
    context = Context(QUICK, 2, None, tmp_path, print)
    save(record(entry("machine"), context, 1.5, result, None), tmp_path)
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(page, "ROOT", tmp_path)
    monkeypatch.setattr(page, "settle", lambda threads: pytest.fail("nothing is to be run"))
    assert main(["--write", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "Speeds" in text and entry("machine").title in text


def test_rounds_are_those_of_the_command_line_and_stand_in_the_record() -> None:
    for scale in (QUICK, FULL):
        made = scale.in_rounds(1)
        assert (made.training.rounds, made.writing.rounds, made.writing.extra_rounds) == (1, 1, 1)
        assert made.options == f"{scale.options} --rounds 1" and made.teaching == scale.teaching
    with pytest.raises(SystemExit):
        main(["--rounds", "0"])
