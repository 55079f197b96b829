"""A whole training run: data, model, pre-flight, session, result. What `fit` calls.

OUT/
    config.json, model.safetensors, tokenizer.json, README.md …    the best model so far; with LoRA
                         adapter_config.json and adapter_model.safetensors in the place of the first
    mainspring.json      the task, its prefix and limits
    run.json             options, versions, data: what the run is
    metrics.jsonl        one line per step and per evaluation
    skipped.jsonl        broken rows, with file and line
    splits.json          the ids of the validation rows
    state/step-…/        what --resume goes on from
"""

import json
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mainspring import events, registry
from mainspring.checkpoints.bundle import Bundle, family_of_size, load, new_bundle, spec_of_size
from mainspring.checkpoints.chat import ROLES, TEMPLATE
from mainspring.checkpoints.growing import unknown_characters, with_conversations, with_tokens
from mainspring.checkpoints.heads import with_head
from mainspring.checkpoints.tokenizer import Tokenizer, train_tokenizer
from mainspring.compute.devices import choose_device
from mainspring.compute.hardware import memory_bytes
from mainspring.compute.lora import Lora, merged_copy
from mainspring.compute.memory import keep_freed_memory
from mainspring.compute.precision import prepare
from mainspring.compute.training import prepare_for_training
from mainspring.data.batches import BatchPlan, plan_batches
from mainspring.data.kinds import CLASSES
from mainspring.data.skipped import SkipLog
from mainspring.data.sources import sources
from mainspring.errors import BadData, BadOption, Mismatch
from mainspring.formulations import (
    Formulation,
    Inference,
    Limits,
    Setup,
    SpecialIds,
    Values,
    special_ids,
)
from mainspring.formulations.packing import pack_all
from mainspring.formulations.prediction import generation_options
from mainspring.metrics.classification import labels_of, warn_of_unknown
from mainspring.tasks import Task, choose_formulation
from mainspring.tasks.reading import by_columns, named_columns
from mainspring.tasks.settings import FILE as TASK_FILE
from mainspring.tasks.settings import check_source, setup_bytes, setup_of
from mainspring.text import duration, listed
from mainspring.training import RUN_FILE, SKIPPED_FILE, SPLITS_FILE, checkpointing
from mainspring.training.adapting import attach_adapter, describe, frozen_hash
from mainspring.training.loop import BatchSource, evaluate_loss, train
from mainspring.training.optimizer import LearningRate, build_optimizer
from mainspring.training.preflight import (
    Timing,
    data_lengths,
    time_steps,
)
from mainspring.training.preparation import (
    DataSet,
    encode_rows,
    open_data,
    training_texts,
)
from mainspring.training.rows import EncodedRows, PackedRows
from mainspring.training.session import (
    EVALUATIONS,
    Actions,
    Plan,
    Record,
    expected_steps,
    latest_state,
    losses_before,
    metrics_writer,
    run_session,
)
from mainspring.weights.files import write_text

FINE_TUNE_RATE, LORA_RATE, SCRATCH_RATE = 3e-4, 1e-3, 1e-3


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    record: Record
    skipped: dict[str, int]


def run_fit(options: dict[str, Any], command: str, out: Path, *, resume: bool) -> Outcome:
    """Trains as `options` (those of the verb `fit`) say."""
    task: Task = registry.find("tasks", options["task"])
    out.mkdir(parents=True, exist_ok=True)
    given = task.read_options(options["task_options"], ())
    named, [source, *_] = named_columns(options), sources(options["data"])
    task, found = by_columns(task, given, source, named)
    options = {**options, "task_options": {**options["task_options"], **found}}
    if options["from_scratch"]:  # told before the data is read, and a tokenizer is trained on it
        choose_formulation(task, spec_of_size(options["from_scratch"]), "fit")
    inputs, _ = task.apart(given)
    skipped = SkipLog(out / SKIPPED_FILE, strict=options["strict"])
    with skipped:
        data = open_data(
            task,
            options["data"],
            valid=options["valid"],
            named=named,
            seed=options["seed"],
            skipped=skipped,
            given=inputs,
        )
    if skipped.total:
        events.warn(f"{skipped.total} rows skipped: {skipped.summary()}")
    data.splits.save(out / SPLITS_FILE)
    bundle = _bundle(options, data, out, resume)
    return _Run(options, command, out, task, data, bundle).go(resume)


def _bundle(options: dict[str, Any], data: DataSet, out: Path, resume: bool) -> Bundle:
    """The model to start from; a resumed run finds its tokenizer where it left it."""
    if options["model"]:
        bundle = load(options["model"])
        if options["add_characters"] and bundle.tokenizer is not None:
            new = unknown_characters(bundle.tokenizer, training_texts(data, CLASSES))
            if not new:
                events.note("--add-characters: the tokenizer knows all characters of the data")
            bundle = with_tokens(bundle, new, options["seed"])
        if data.conversations:
            spelt = options["lora"] is not None
            bundle = with_conversations(bundle, options["seed"], spelt=spelt)
        return bundle
    tokenizer = Tokenizer.open(out) if resume else None
    layout = family_of_size(options["from_scratch"]).tokens
    if tokenizer is None:
        events.note(
            f"training a {options['tokenizer']} tokenizer of {options['vocabulary']} tokens "
            "(of millions of rows it takes minutes)"
        )
        texts = training_texts(data)
        tokenizer = train_tokenizer(texts, options["vocabulary"], options["tokenizer"], layout)
        if data.conversations:
            tokenizer = tokenizer.with_tokens(ROLES).with_chat_template(TEMPLATE)
    return new_bundle(options["from_scratch"], tokenizer, options["seed"])


class _Run:
    """The pieces of one run, named once."""

    def __init__(
        self,
        options: dict[str, Any],
        command: str,
        out: Path,
        task: Task,
        data: DataSet,
        bundle: Bundle,
    ):
        if bundle.tokenizer is None:
            raise Mismatch(f"{options['model']}: no tokenizer, so it cannot be trained on text")
        self.options, self.command, self.out = options, command, out
        self.task, self.data, self.bundle = task, data, bundle
        self.formulation: Formulation = choose_formulation(task, bundle.spec, "fit")
        if options["pack"] and not self.formulation.packs:
            raise BadOption(
                f"--pack: {self.formulation.name}, by which this model learns `{task.name}`, has "
                "no rows of several examples; leave it out"
            )
        self.setup = self._setup()
        assert self.bundle.tokenizer is not None
        self.tokenizer = self.bundle.tokenizer
        self.ids: SpecialIds = special_ids(self.tokenizer, bundle.config, bundle.spec)
        self.lora = self._adapter()
        self.rows = self._encode(data.splits.train, "encoding")
        self.bundle.model.to(choose_device(options["device"]))
        self.valid_rows = self._encode(data.splits.validation, "encoding validation")
        self._check_labels()
        self.scored: list[Values] = []
        if task.metric is not None:
            self.scored = list(data.rows(data.splits.validation[: options["metric_rows"]]))

    def _setup(self) -> Setup:
        """What the checkpoint and the task suggest, under what the user says, completed from the
        training rows; the model gets the head that goes with it."""
        found, options, task = setup_of(self.bundle, self.task), self.options, self.task
        check_source(options["max_source"], self.bundle.spec)
        given = {**found.options, **task.read_options(options["task_options"], ())}
        setup = replace(
            found,
            limits=Limits(
                options["max_source"] or found.limits.source,
                options["max_target"] or found.limits.target,
            ),
            prefix=found.prefix if options["prefix"] is None else options["prefix"],
            options={o.name: given[o.name] for o in task.options if o.learnt and o.name in given},
        )
        if self.formulation.learn is not None:
            setup = self.formulation.learn(self.data.rows(self.data.splits.train), setup)
        if self.formulation.head is not None:
            self.bundle = with_head(
                self.bundle, self.formulation.head, setup.labels, options["seed"]
            )
        learnt, keys = setup.options, self.formulation.config_keys
        self.bundle.config |= {key: learnt[key] for key in keys if key in learnt}
        own = self.formulation.tokens(setup)
        if options["lora"] is None:
            self.bundle = with_tokens(self.bundle, own, options["seed"])
        else:
            self._check_spelt(own)
        return setup

    def _check_labels(self) -> None:
        """Warns of labels of the validation rows that no training row has; BadData where those are
        all."""
        target, rows = self.task.target, self.data.splits.validation
        if target is None or target.kind not in ("label", "labels") or not len(rows):
            return
        wanted = Counter(
            name for row in self.data.rows(rows) for name in set(labels_of(row[target.name]))
        )
        if wanted and warn_of_unknown(wanted, self.setup.labels) == wanted:
            raise BadData(
                f"none of the {len(rows)} validation rows has a label that the training rows have",
                file=self.options["valid"] or self.options["data"],
            )

    def _check_spelt(self, own: Sequence[str]) -> None:
        """An adapter holds no new tokens: marks that are written can be spelt by those that are
        there, others not. BadOption where they cannot be."""
        assert self.bundle.tokenizer is not None
        can = self.bundle.tokenizer.spells if self.formulation.generates else lambda token: False
        lost = [token for token in own if not can(token)]
        if lost:
            raise BadOption(
                f"`{self.task.name}` gives this model tokens of its own ({listed(lost)}), which an "
                "adapter cannot hold; leave --lora out"
            )

    def _adapter(self) -> Lora | None:
        options, head = self.options, self.formulation.head
        if options["lora"] is None:
            return None
        rank, alpha, seed = options["lora"], options["lora_alpha"], options["seed"]
        return attach_adapter(self.bundle, options["model"], rank, alpha, head, seed)

    def _encode(self, rows: np.ndarray, name: str) -> EncodedRows:
        return encode_rows(self.data, rows, self.formulation, self.tokenizer, self.setup, name)

    # -- the run ---------------------------------------------------------------------------------

    def go(self, resume: bool) -> Outcome:
        keep_freed_memory()
        options, model = self.options, self.bundle.model
        source = self._source(self._packed() if options["pack"] else self.rows)
        optimizer = build_optimizer(
            model, options["optimizer"], weight_decay=options["weight_decay"]
        )
        state = latest_state(self.out) if resume else None
        recorded = None if state is None else self._recorded_run(source)
        prepared = prepare_for_training(
            model,
            recorded["precision"] if recorded else options["precision"],
            options["gradient_checkpointing"],
        )
        try:
            timing = time_steps(model, source)
            if state is None or recorded is None:
                checkpointing.forget_states(self.out)
                total = self._steps(source)
                self._write_run(total, source, prepared.precision)
                record = Record()
            else:
                total = recorded["steps"]
                checkpointing.load_state(state[0], model, optimizer)
                prepared.refresh()
                record = Record.restored(state[1])
            plan = self._plan(total, source, timing)
            self._show_preflight(source, timing, plan, prepared.precision, record)
            peak = self._peak_rate()

            def rate(step: int) -> float:
                return replace(peak, total=expected_steps(plan, record)).at(step)

            steps = train(
                model,
                optimizer,
                source,
                rate,
                first=record.step,
                clip=options["clip"],
                refresh=prepared.refresh,
                losses_before=losses_before(self.out, record),
            )
            actions = Actions(
                evaluate=lambda: self._evaluate(prepared.precision),
                keep=self._keep,
                save=lambda r: _save(self.out, r, model, optimizer),
            )
            with metrics_writer(self.out, record, options["tensorboard"]) as write:
                record = run_session(steps, plan, record, actions, write)
        finally:
            prepared.restore()
        self._show_result(record)
        return Outcome(record, self.data.skipped)

    def _packed(self) -> PackedRows:
        """The training rows, several short ones in each row."""
        tokens, seed = self.options["batch_tokens"], self.options["seed"]
        return PackedRows(self.rows, pack_all(self._lengths(self.rows), tokens, seed))

    def _lengths(self, rows: EncodedRows | PackedRows) -> list[tuple[int, int]]:
        if not len(rows):
            raise BadData("no row is left once the data is encoded; is it empty?")
        return [self.formulation.lengths(rows[row]) for row in range(len(rows))]

    def _source(self, rows: EncodedRows | PackedRows) -> BatchSource:
        lengths = self._lengths(rows)

        @lru_cache(maxsize=2)
        def plan(epoch: int) -> BatchPlan:
            return plan_batches(
                lengths,
                tokens=self.options["batch_tokens"],
                seed=self.options["seed"],
                epoch=epoch,
            )

        return BatchSource(
            rows,
            self.formulation,
            self.ids,
            plan,
            self.options["seed"],
            self.options["accumulate"],
            device=next(self.bundle.model.parameters()).device,
        )

    def _peak_rate(self) -> LearningRate:
        peak = self.options["learning_rate"]
        if peak is None:
            peak = FINE_TUNE_RATE if self.options["model"] else SCRATCH_RATE
            peak = peak if self.lora is None else LORA_RATE
        return LearningRate(peak, 0, self.options["warmup"], self.options["schedule"])

    def _steps(self, source: BatchSource) -> int | None:
        """How many steps were asked for; None where the minutes alone decide."""
        steps, minutes = self.options["steps"], self.options["minutes"]
        if steps is None and minutes is None:
            steps = sum(len(source.plan(epoch).batches) for epoch in range(self.options["epochs"]))
        return None if steps is None else int(steps)

    def _plan(self, steps: int | None, source: BatchSource, timing: Timing) -> Plan:
        options, batches = self.options, source.plan(0)
        every = options["evaluate_every"]
        if every is None and steps is not None:
            every = max(1, -(-steps // EVALUATIONS))
        return Plan(
            steps=steps,
            evaluate_every=every,
            seconds=None if options["minutes"] is None else 60 * options["minutes"],
            pace=batches.tokens / len(batches.batches) / timing.tokens_per_second,
            patience=options["patience"],
            best=self.task.best if self.scored else "loss",
            higher_is_better=self.task.higher_is_better and bool(self.scored),
        )

    # -- what is remembered ----------------------------------------------------------------------

    def _write_run(self, total: int | None, source: BatchSource, precision: str) -> None:
        record = {
            "command": self.command,
            "options": self.options,
            "steps": total,
            "precision": precision,
            **self._hashes(source),
            "task": json.loads(setup_bytes(self.task.name, self.setup)),
            "columns": [columns for _, columns in self.data.matched],
            "skipped": self.data.skipped,
            "versions": versions(),
        }
        write_text(json.dumps(record, indent=1, ensure_ascii=False), self.out / RUN_FILE)
        self.tokenizer.save(self.out)

    def _hashes(self, source: BatchSource) -> dict[str, str]:
        hashes = {
            "training data": source.rows.hash,
            "validation data": self.valid_rows.hash,
            "batch plan": source.plan(0).hash,
        }
        return hashes if self.lora is None else {**hashes, "model": frozen_hash(self.bundle.model)}

    def _recorded_run(self, source: BatchSource) -> dict[str, Any]:
        """What `_write_run` wrote, once it is sure that the data is still the same."""
        recorded: dict[str, Any] = json.loads((self.out / RUN_FILE).read_text(encoding="utf-8"))
        for name, found in self._hashes(source).items():
            if recorded[name] != found:
                what = name if name == "model" else "data"
                raise BadData(
                    f"the {name} is not what this run was started with; put the {what} back as it "
                    f"was, or start a new run in another --out",
                    file=self.options[what],
                )
        return recorded

    # -- between steps ---------------------------------------------------------------------------

    def _evaluate(self, precision: str) -> dict[str, float]:
        scores = {}
        if len(self.valid_rows):
            scores["loss"] = evaluate_loss(self.bundle.model, self._source(self.valid_rows))
        if self.scored:
            scores |= self._metric_scores(precision)
        return scores

    def _metric_scores(self, precision: str) -> dict[str, float]:
        """The task's scores, by a copy of the model that is as quick as `evaluate` has it."""
        metric, target, predict = self.task.metric, self.task.target, self.formulation.predict
        assert metric is not None and target is not None and predict is not None
        bundle = replace(self.bundle, model=merged_copy(self.bundle.model, self.lora))
        with events.listening(lambda event: None):
            prepare(bundle.model, precision)
        options = None
        if self.formulation.generates:
            plain = {"num_beams": 1, "do_sample": False}
            options = generation_options(bundle.generation, self.setup.limits, plain)
        show = partial(_show_progress, "evaluating", len(self.scored))
        how = Inference(options, on_long="cut" if self.formulation.generates else "split")
        if self.formulation.calibrate is not None:
            self.setup = self.formulation.calibrate(bundle, self.scored, self.setup, how)
        made = predict(bundle, self.scored, self.setup, how, show, None)
        wanted = [row[target.name] for row in self.scored]
        answers = [metric.judged(prediction.value, prediction.details) for prediction in made]
        return metric.scores(metric.score_rows(answers, wanted, metric.choose_kind(wanted)))

    def _keep(self, scores: dict[str, float]) -> None:
        bundle = self.bundle
        if self.formulation.generates:
            bundle.generation = {
                **{k: v for k, v in bundle.generation.items() if k != "max_length"},
                "max_new_tokens": self.setup.limits.target,
            }
        bundle.extra_files[TASK_FILE] = setup_bytes(self.task.name, self.setup)
        if self.lora is None:
            bundle.save(self.out, self._card(scores))
        else:
            self.lora.save(self.out, bundle, self._card(scores))

    def _card(self, scores: dict[str, float]) -> str:
        from mainspring.checkpoints.card import Card, card_text

        return card_text(
            Card(
                name=self.out.name,
                task=self.task.name,
                base_model=self.options["model"],
                data=str(self.options["data"]),
                rows=len(self.data.splits.train),
                scores=scores,
                command=self.command,
                adapter=self.lora is not None,
            )
        )

    # -- what is shown ---------------------------------------------------------------------------

    def _show_preflight(
        self, source: BatchSource, timing: Timing, plan: Plan, precision: str, record: Record
    ) -> None:
        data, batches = self.data, source.plan(0)
        _, columns = data.matched[0]
        matched = ", ".join(f"{column} → {name}" for name, column in columns.items())
        counts = " · ".join(f"{name} {count}" for name, count in data.splits.counts().items())
        lost = f" · skipped {sum(data.skipped.values())} → {SKIPPED_FILE}" if data.skipped else ""
        lines = [
            ("task", f"{self.task.name}   {matched}"),
            ("rows", f"{counts} ({data.splits.origin}){lost}"),
        ]
        if data.mended:
            lines.append(("put right", f"{data.mended} → {SKIPPED_FILE}"))
        lines += self._length_lines()
        first, packed = batches.batches[0][0], ""
        if isinstance(source.rows, PackedRows):
            packed = f", {len(self.rows)} examples in {len(source.rows)} rows"
            first = source.rows.packs[first][0]
        picture = self.formulation.picture(self.rows[first], self.tokenizer, self.setup)
        steps_left = expected_steps(plan, record) - record.step
        left = steps_left * plan.pace
        memory, bytes_all = self._memory(timing), memory_bytes()
        of = f" of {bytes_all / 1e9:.1f}" if bytes_all else ""
        lines += [
            ("prefix", repr(self.setup.prefix) if self.setup.prefix else "none"),
            ("loss on", picture),
            (
                "batches",
                f"{self.options['batch_tokens']} tokens each, "
                f"padding {batches.padding:.1%}{packed}",
            ),
            ("precision", f"{precision} arithmetic, float32 weights"),
            *([] if self.lora is None else [("adapter", describe(self.lora))]),
            ("memory", f"peak about {memory / 1e9:.1f}{of} GB"),
            (
                "time",
                f"about {duration(left)} for {steps_left} steps, evaluation apart "
                f"({timing.tokens_per_second:,.0f} tokens/s on 3 timed steps)",
            ),
        ]
        if record.step:
            lines.append(("resumed", f"after step {record.step}"))
        events.emit(events.Block("Pre-flight", tuple(lines)))

    def _length_lines(self) -> list[tuple[str, str]]:
        limits, rows = self.setup.limits, self.rows
        apart = self.formulation.lengths(rows[0])[1] > 0
        if self.formulation.generates and not apart:  # one row holds prompt and answer
            limits = Limits(limits.source + limits.target, limits.target)
        read, learnt = data_lengths(rows, limits)
        if self.task.metric is None:
            pieces = f"{len(rows)} of at most {rows.token_counts[:, 0].max()} tokens"
            if rows.lost.any():
                cut = int(rows.lost.any(axis=1).sum())
                pieces += f"; {cut} lose text, {int(rows.lost.sum()):,} tokens beyond the limits"
            return [("pieces", pieces), *self._unknown_lines()]
        lines = [("source" if apart else "tokens", str(read)), *self._unknown_lines()]
        if self.formulation.generates:
            lines.append(("target", str(learnt)))
        if self.setup.labels:
            lines.append(("labels", _labels_line(self.setup)))
        inexact = 0 if self.formulation.generates else int(rows.lost[:, 1].sum())
        if inexact:
            name, what = self.formulation.lost
            lines.append((name, f"{inexact} {what}"))
        return lines

    def _unknown_lines(self) -> list[tuple[str, str]]:
        unknown = self.tokenizer.unk_id
        count, of = (0, 1) if unknown is None else self.rows.source_count(unknown)
        if not count:
            return []
        option = "--add-characters" if self.options["model"] else "a larger --vocabulary"
        return [("unknown", f"{count} of {of} tokens read ({count / of:.1%}); {option} helps")]

    def _memory(self, timing: Timing) -> int:
        """Peak of the timed steps, and what the optimizer will add at its first step."""
        weights = sum(p.numel() * 4 for p in self.bundle.model.parameters() if p.requires_grad)
        return timing.peak_bytes + (2 * weights if self.options["optimizer"] == "adamw" else 0)

    def _show_result(self, record: Record) -> None:
        lines = [
            (
                "ended",
                f"{record.ended} after {record.step} steps, {duration(record.train_seconds)}",
            ),
            ("tokens", f"{record.tokens:,} ({record.tokens / record.train_seconds:,.0f}/s)"),
        ]
        if record.best_scores:
            shown = "  ".join(f"{name} {value:.2f}" for name, value in record.best_scores.items())
            lines.append(("best", f"step {record.best_step}: {shown}"))
        if record.best_scores and self.formulation.predict is not None:
            name, out = self.task.name, self.out
            lines += [
                ("use it", f"mainspring run {name} TEXT_OR_FILE --model {out}"),
                ("score it", f"mainspring evaluate {name} TEST_DATA --model {out}"),
            ]
        events.emit(events.Block("Result", tuple(lines)))


def _labels_line(setup: Setup) -> str:
    """How many labels there are, their names, and how often each is in the training rows where that
    was counted."""
    counts = setup.options.get("counts")
    if counts is None:
        return f"{len(setup.labels)}: {listed(setup.labels)}"
    named = ", ".join(f"`{label}` {counts.get(label, 0)}" for label in setup.labels)
    return f"{len(setup.labels)}: {named}"


def _save(out: Path, record: Record, model: Any, optimizer: Any) -> None:
    checkpointing.save_state(out, record.step, model, optimizer, asdict(record))


def _show_progress(task: str, total: int, done: int) -> None:
    events.emit(events.Progress(task, done, total, "rows"))


def versions() -> dict[str, str]:
    """What a run was made with."""
    packages = ("mainspring", "torch", "tokenizers", "safetensors", "numpy")
    found = {name: version(name) for name in packages}
    return {"python": sys.version.split()[0], "platform": platform.platform(), **found}
