"""Who fine-tunes by LoRA: Mainspring as `fit --lora` does it, and transformers with PEFT in a plain
loop. Each answers `Steps` with what it did and how long it took."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from benchmarks.training_contestants import CLIP, SUPPLY, Steps, Trained
from benchmarks.turns import Turns
from mainspring.data.batches import BatchPlan, plan_batches
from mainspring.training.optimizer import LearningRate
from mainspring.training.rows import EncodedRows

ROWS = 16  # of a batch that is made without looking at lengths


@dataclass(frozen=True)
class LoraSetup:
    """The same for all but `batch_tokens`: with None batches are 16 rows in random order, else
    everyone takes those of the batch plan. All arithmetic is bfloat16, all adapters float32."""

    folder: Path
    rows: EncodedRows
    batch_tokens: int | None
    rank: int = 16
    rate: float = 1e-3
    seed: int = 17

    def plan(self, epoch: int) -> BatchPlan:
        return plan_batches(
            self.rows.token_counts, tokens=self.batch_tokens, seed=self.seed, epoch=epoch
        )

    def batches(self) -> Iterator[tuple[int, ...]]:
        """The row numbers of every step, for ever."""
        epoch = 0
        while True:
            if self.batch_tokens is None:
                order = list(range(len(self.rows)))
                random.Random(self.seed + epoch).shuffle(order)
                yield from (tuple(order[at : at + ROWS]) for at in range(0, len(order), ROWS))
            else:
                yield from self.plan(epoch).batches
            epoch += 1

    def lengths(self, batches: list[tuple[int, ...]]) -> list[tuple[int, int]]:
        """The tokens of every row; a decoder reads prompt and answer on one side."""
        return [(len(self.rows[row].source), 0) for rows in batches for row in rows]


def mainspring(setup: LoraSetup, turns: Turns) -> None:
    """The pieces that `fit --lora` is made of, in its order."""
    from mainspring.checkpoints.adapters import AdapterConfig
    from mainspring.checkpoints.bundle import load
    from mainspring.compute.lora import attach
    from mainspring.compute.memory import keep_freed_memory
    from mainspring.compute.training import prepare_for_training
    from mainspring.formulations import special_ids
    from mainspring.formulations.causal import FORMULATION
    from mainspring.training.loop import BatchSource, train
    from mainspring.training.optimizer import build_optimizer

    keep_freed_memory()
    bundle = load(setup.folder)
    assert bundle.tokenizer is not None
    attach(bundle.model, bundle.family, AdapterConfig(setup.rank), seed=setup.seed)
    ids = special_ids(bundle.tokenizer, bundle.config, bundle.spec)
    source = BatchSource(setup.rows, FORMULATION, ids, lru_cache(maxsize=2)(setup.plan), setup.seed)
    optimizer = build_optimizer(bundle.model, "adamw", weight_decay=0.0)
    prepared = prepare_for_training(bundle.model, "bfloat16")
    rate = LearningRate(setup.rate, SUPPLY, 1 / SUPPLY, "constant")
    steps = train(bundle.model, optimizer, source, rate.at, clip=CLIP, refresh=prepared.refresh)
    batches = setup.batches()
    turns.answer(f"training.loop.train, {prepared.precision}, rank {setup.rank}")
    for request in turns:
        assert isinstance(request, Steps)
        started = time.perf_counter()
        done = list(islice(steps, request.count))
        seconds = time.perf_counter() - started
        lengths = setup.lengths(list(islice(batches, request.count)))
        turns.answer(Trained(seconds, [step.loss for step in done], lengths))


def peft(setup: LoraSetup, turns: Turns) -> None:
    """transformers' model under PEFT's `LoraConfig` for all linear layers, bfloat16 by autocast,
    torch's fused AdamW over the adapter."""
    import warnings

    import torch
    import transformers
    from torch import Tensor

    warnings.filterwarnings("ignore")
    from peft import LoraConfig, get_peft_model

    transformers.logging.set_verbosity_error()
    torch.manual_seed(setup.seed)
    base = transformers.AutoModelForCausalLM.from_pretrained(setup.folder, dtype=torch.float32)
    config = LoraConfig(
        r=setup.rank,
        lora_alpha=2 * setup.rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config).train()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=setup.rate, weight_decay=0.0, fused=True)
    batches = setup.batches()

    def padded(rows: list[list[int]], value: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in rows], batch_first=True, padding_value=value
        )

    def step(rows: tuple[int, ...]) -> float:
        examples = [setup.rows[row] for row in rows]
        sources = [list(example.source) for example in examples]
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(
                input_ids=padded(sources, 0),
                attention_mask=padded([[1] * len(source) for source in sources], 0),
                labels=padded([list(example.target) for example in examples], -100),
                use_cache=False,
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    kind = base.config._attn_implementation
    turns.answer(f"plain loop, bf16 autocast, attention {kind}, rank {setup.rank}")
    for request in turns:
        assert isinstance(request, Steps)
        chosen = list(islice(batches, request.count))
        started = time.perf_counter()
        losses = [step(rows) for rows in chosen]
        seconds = time.perf_counter() - started
        turns.answer(Trained(seconds, losses, setup.lengths(chosen)))
