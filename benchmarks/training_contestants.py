"""Who trains: Mainspring as `fit` does it, transformers' Trainer, and a plain loop around
transformers' model for the comparison step by step.

Each answers `Steps` with what it did and how long it took, `Peak` with its memory; the loops of
our own answer `Save` by writing their model.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from benchmarks.card import Peak, clock, peak_of
from benchmarks.turns import Turns
from mainspring.data.batches import BatchPlan, plan_batches
from mainspring.training.optimizer import LearningRate
from mainspring.training.rows import EncodedRows

CLIP, DECAY = 1.0, 0.01
DEFAULT_ROWS = 8  # what the Trainer puts into a batch unless told otherwise
SUPPLY = 2000  # batches laid out for a Trainer beforehand: more than any run takes


@dataclass(frozen=True)
class TrainingSetup:
    """The same for all contestants of a comparison but for `precision`, `batch_tokens` and
    `attention`; `device` is that of torch.

    `warmup` counts steps, after it the rate stays (`total` 0) or falls linearly to zero at `total`.
    `attention` names transformers' implementation, None its default. With `batch_tokens` None the
    Trainer makes its own batches, else everyone takes those of the batch plan. Its own are
    `DEFAULT_ROWS` random rows or, where `alike` is given, so many rows of like lengths.
    """

    folder: Path
    rows: EncodedRows
    precision: Literal["float32", "bfloat16"]
    batch_tokens: int | None
    rate: float = 1e-3
    warmup: int = 1
    total: int = 0
    seed: int = 17
    attention: str | None = None
    alike: int | None = None
    device: str = "cpu"

    def plan(self, epoch: int) -> BatchPlan:
        """The batches of one epoch."""
        lengths = self.rows.token_counts
        return plan_batches(lengths, tokens=self.batch_tokens, seed=self.seed, epoch=epoch)

    def batches(self) -> Iterator[tuple[int, ...]]:
        """The row numbers of every step, for ever."""
        epoch = 0
        while True:
            yield from self.plan(epoch).batches
            epoch += 1

    def schedule(self) -> LearningRate:
        total = self.total or SUPPLY
        return LearningRate(
            self.rate, total, self.warmup / total, "linear" if self.total else "constant"
        )


@dataclass(frozen=True)
class Steps:
    """A request: so many optimizer steps."""

    count: int


@dataclass(frozen=True)
class Save:
    """A request: write the model into a folder."""

    folder: Path


@dataclass(frozen=True)
class Trained:
    """What some steps came to: the loss of each, in nats per target token, and the real lengths
    (source, target) of all rows trained on."""

    seconds: float
    losses: list[float]
    lengths: list[tuple[int, int]]

    @property
    def tokens(self) -> int:
        """Real tokens, without padding."""
        return sum(map(sum, self.lengths))

    @property
    def speed(self) -> float:
        """Real tokens per second."""
        return self.tokens / self.seconds


def _lengths(setup: TrainingSetup, batches: list[tuple[int, ...]]) -> list[tuple[int, int]]:
    counts = setup.rows.token_counts
    return [(int(counts[row, 0]), int(counts[row, 1])) for rows in batches for row in rows]


# -- Mainspring ------------------------------------------------------------------------------------


def mainspring(setup: TrainingSetup, turns: Turns) -> None:
    """The pieces that `fit` is made of, in its order."""
    import torch

    from mainspring.checkpoints.bundle import load
    from mainspring.compute.memory import keep_freed_memory
    from mainspring.compute.training import prepare_for_training
    from mainspring.formulations import special_ids
    from mainspring.formulations.sequence_to_sequence import FORMULATION
    from mainspring.training.loop import BatchSource, train
    from mainspring.training.optimizer import build_optimizer

    keep_freed_memory()
    bundle = load(setup.folder)
    assert bundle.tokenizer is not None
    ids = special_ids(bundle.tokenizer, bundle.config)
    plan = lru_cache(maxsize=2)(setup.plan)
    device = torch.device(setup.device)
    bundle.model.to(device)
    source = BatchSource(setup.rows, FORMULATION, ids, plan, setup.seed, device=device)
    optimizer = build_optimizer(bundle.model, "adamw", weight_decay=DECAY)
    prepared = prepare_for_training(bundle.model, setup.precision)
    steps = train(
        bundle.model, optimizer, source, setup.schedule().at, clip=CLIP, refresh=prepared.refresh
    )
    batches = setup.batches()
    turns.answer(f"training.loop.train, {prepared.precision}")
    for request in turns:
        match request:
            case Steps(count):
                started = clock(setup.device)
                done = list(islice(steps, count))
                seconds = clock(setup.device) - started
                lengths = _lengths(setup, list(islice(batches, count)))
                turns.answer(Trained(seconds, [step.loss for step in done], lengths))
            case Save(folder):
                bundle.save(folder)
                turns.answer(folder)
            case Peak():
                turns.answer(peak_of(setup.device))


# -- transformers ----------------------------------------------------------------------------------


def _transformers_model(setup: TrainingSetup) -> Any:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    chosen = {} if setup.attention is None else {"attn_implementation": setup.attention}
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(
        setup.folder, dtype=torch.float32, **chosen
    )


def trainer(setup: TrainingSetup, turns: Turns) -> None:
    """transformers' Seq2SeqTrainer itself; a callback says when a turn begins and ends.

    With `batch_tokens` it is given the batches of the plan, which pad less than the batches of
    its own sampler for like lengths; without, its defaults make them.
    """
    import logging
    import tempfile

    import torch
    import transformers

    model = _transformers_model(setup)
    data = _Features(setup.rows)
    tokenizer = transformers.AutoTokenizer.from_pretrained(setup.folder)
    collate = transformers.DataCollatorForSeq2Seq(tokenizer, model)
    losses: list[torch.Tensor] = []
    lengths: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Watched(transformers.Seq2SeqTrainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            lengths.append((inputs["attention_mask"].sum(1), (inputs["labels"] != -100).sum(1)))
            loss = super().training_step(model, inputs, *rest, **named)
            losses.append(loss)
            return loss

        def get_train_dataloader(self) -> Any:
            if setup.batch_tokens is None:
                return super().get_train_dataloader()
            batches = [list(rows) for rows in islice(setup.batches(), SUPPLY)]
            return torch.utils.data.DataLoader(data, batch_sampler=batches, collate_fn=collate)

    class Referee(transformers.TrainerCallback):
        """Waits for requests between steps."""

        left, started = 0, 0.0

        def wait(self, control: Any) -> None:
            while isinstance(request := turns.take(), Peak):
                turns.answer(peak_of(setup.device))
            if request is None:
                control.should_training_stop = True
                return
            self.left, self.started = request.count, clock(setup.device)

        def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            turns.answer(
                f"Seq2SeqTrainer, attention {model.config._attn_implementation}, "
                f"optimizer {args.optim.value}, {_batches_in_words(setup)}"
            )
            self.wait(control)

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.left -= 1
            if self.left:
                return
            found = torch.stack(losses).tolist()
            seconds = clock(setup.device) - self.started
            pairs = [pair for s, t in lengths for pair in zip(s.tolist(), t.tolist(), strict=True)]
            losses.clear()
            lengths.clear()
            turns.answer(Trained(seconds, found, pairs))
            self.wait(control)

    logging.getLogger("accelerate").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = transformers.Seq2SeqTrainingArguments(
            output_dir=scratch,
            bf16=setup.precision == "bfloat16",
            use_cpu=setup.device == "cpu",
            learning_rate=setup.rate,
            lr_scheduler_type="constant",
            weight_decay=DECAY,
            max_steps=SUPPLY,
            per_device_train_batch_size=setup.alike or DEFAULT_ROWS,
            train_sampling_strategy="group_by_length" if setup.alike else "random",
            seed=setup.seed,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        watched = Watched(
            model=model,
            args=arguments,
            train_dataset=data,
            data_collator=collate,
            callbacks=[Referee()],
        )
        watched.remove_callback(transformers.PrinterCallback)
        watched.train()


def _batches_in_words(setup: TrainingSetup) -> str:
    if setup.batch_tokens is not None:
        return "our batches"
    return f"its own batches of {setup.alike or DEFAULT_ROWS}" + (
        " rows of like lengths" if setup.alike else ""
    )


@dataclass(frozen=True)
class _Features:
    """Rows in the words of transformers' collator, each made when it is asked for."""

    rows: EncodedRows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, list[int]]:
        found = self.rows[row]
        source, target = list(found.source), list(found.target)
        return {"input_ids": source, "attention_mask": [1] * len(source), "labels": target}


def plain_loop(setup: TrainingSetup, turns: Turns) -> None:
    """transformers' model on exactly our batches, with AdamW over the same two groups: decay on
    the matrices, none on tables and norms."""
    import torch
    from torch import nn

    from mainspring.checkpoints.tokenizer import Tokenizer
    from mainspring.formulations import special_ids
    from mainspring.formulations.sequence_to_sequence import FORMULATION

    model = _transformers_model(setup).to(setup.device).train()
    tokenizer = Tokenizer.open(setup.folder)
    assert tokenizer is not None
    ids = special_ids(tokenizer, model.config.to_dict())
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)} - tables
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if id(p) in matrices], "weight_decay": DECAY},
            {"params": [p for p in parameters if id(p) not in matrices], "weight_decay": 0.0},
        ],
        lr=0.0,
        fused=True,
    )
    schedule, number, batches = setup.schedule(), 0, setup.batches()
    narrow = setup.precision == "bfloat16"

    def step(rows: tuple[int, ...]) -> float:
        batch = FORMULATION.collate([setup.rows[row] for row in rows], ids, 0, 16)
        batch = batch.to(torch.device(setup.device))
        with torch.autocast(setup.device, torch.bfloat16, enabled=narrow):
            loss = model(
                input_ids=batch.source_BS,
                attention_mask=None if batch.keep_BS is None else batch.keep_BS.long(),
                decoder_input_ids=batch.decoder_ids_BT,
                labels=batch.labels_BT,
                use_cache=False,
            ).loss
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        for group in optimizer.param_groups:
            group["lr"] = schedule.at(number)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    turns.answer(f"plain loop, attention {model.config._attn_implementation}, {setup.precision}")
    for request in turns:
        match request:
            case Steps(count):
                chosen = list(islice(batches, count))
                losses = []
                started = clock(setup.device)
                for rows in chosen:
                    losses.append(step(rows))
                    number += 1
                seconds = clock(setup.device) - started
                turns.answer(Trained(seconds, losses, _lengths(setup, chosen)))
            case Save(folder):
                model.save_pretrained(folder)
                tokenizer.save(folder)
                turns.answer(folder)
            case Peak():
                turns.answer(peak_of(setup.device))


def falls(losses: list[float]) -> bool:
    """Whether all losses are numbers and the last third lies below the first."""
    third = max(1, len(losses) // 3)
    finite = all(map(math.isfinite, losses))
    return finite and sum(losses[-third:]) < sum(losses[:third])
