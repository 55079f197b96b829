"""Who generates: Mainspring, transformers and CTranslate2, each from the same saved folder.

Each answers a `Job` with what it wrote and how long that took, and `Peak` with its memory.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.card import Peak, clock, peak_of
from benchmarks.turns import Turns

TRIAL_TOKENS = 8


@dataclass(frozen=True)
class GenerationSetup:
    """A model folder and the arithmetic; CTranslate2 writes its own form of it into `converted`.
    `device` is that of torch."""

    folder: Path
    precision: Literal["float32", "bfloat16", "int8"]
    threads: int
    converted: Path | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Job:
    """A request: continue or answer these rows of ids (without padding) in one batch.

    `forced` makes exactly `new_tokens` for every row, so that all contestants do the same work;
    otherwise rows end where the model ends them, at the latest there. One beam is greedy. `static`
    is whether transformers may try its static cache, for which it compiles on a card.
    """

    rows: tuple[tuple[int, ...], ...]
    new_tokens: int
    beams: int = 1
    forced: bool = False
    static: bool = True


@dataclass(frozen=True)
class Made:
    """The new ids of each row up to its end token, and how many were made in all (end tokens
    included). `how` names settings that were chosen by trial."""

    seconds: float
    rows: list[list[int]]
    tokens: int
    how: str = ""

    @property
    def speed(self) -> float:
        """New tokens per second."""
        return self.tokens / self.seconds


def _padded(rows: tuple[tuple[int, ...], ...], pad: int, *, left: bool) -> tuple[Any, Any]:
    """ids and mask (rows, longest); prompts of a decoder-only model are padded on the left."""
    import torch

    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros(len(rows), longest, dtype=torch.int64)
    for i, row in enumerate(rows):
        place = slice(longest - len(row), None) if left else slice(0, len(row))
        ids[i, place] = torch.tensor(row)
        mask[i, place] = 1
    return ids, mask


def _made(seconds: float, rows: list[list[int]], eos: int, how: str = "") -> Made:
    """Cuts off each row's end token and what follows it."""
    ends = [row.index(eos) if eos in row else len(row) for row in rows]
    tokens = sum(min(end + 1, len(row)) for end, row in zip(ends, rows, strict=True))
    return Made(seconds, [row[:end] for end, row in zip(ends, rows, strict=True)], tokens, how)


# -- Mainspring ------------------------------------------------------------------------------------


def mainspring(setup: GenerationSetup, turns: Turns) -> None:
    """`generate` on a model prepared as `run` does it."""
    from mainspring.checkpoints.bundle import load
    from mainspring.compute.precision import ready
    from mainspring.generation.options import GenerationOptions
    from mainspring.generation.search import generate

    bundle = load(setup.folder)
    prepared = ready(bundle.model, setup.precision, setup.device)
    eos, pad = bundle.generation["eos_token_id"], bundle.generation["pad_token_id"]
    left = bundle.spec.encoder is None
    turns.answer(prepared.describe())
    for job in turns:
        if isinstance(job, Peak):
            turns.answer(peak_of(setup.device))
            continue
        ids, mask = _padded(job.rows, pad, left=left)
        keep = None if bool(mask.all()) else mask.to(setup.device)
        ids = ids.to(setup.device)
        given = {"max_new_tokens": job.new_tokens, "num_beams": job.beams}
        if job.forced:
            given["min_new_tokens"] = job.new_tokens
        options = GenerationOptions.merge(bundle.generation, **given)
        started = clock(setup.device)
        made = generate(bundle.model, ids, keep, options)
        seconds = clock(setup.device) - started
        rows = [made.new_ids(row) for row in range(len(job.rows))]
        turns.answer(_made(seconds, rows, eos))


# -- transformers ----------------------------------------------------------------------------------


def transformers(setup: GenerationSetup, turns: Turns) -> None:
    """`generate` with its best settings: for each kind of job a short trial picks the attention
    (sdpa, eager), then the cache (dynamic, static), that is fastest here."""
    import torch
    import transformers as peer

    peer.logging.set_verbosity_error()
    config = peer.AutoConfig.from_pretrained(setup.folder)
    kind = peer.AutoModelForSeq2SeqLM if config.is_encoder_decoder else peer.AutoModelForCausalLM
    model = kind.from_pretrained(setup.folder, dtype=getattr(torch, setup.precision)).eval()
    model.to(setup.device)
    eos, pad = model.generation_config.eos_token_id, model.generation_config.pad_token_id
    left = not config.is_encoder_decoder
    best: dict[tuple[int, int], tuple[str, str | None]] = {}

    def make(job: Job, attention: str, cache: str | None) -> tuple[float, Any]:
        ids, mask = (t.to(setup.device) for t in _padded(job.rows, pad, left=left))
        model.set_attn_implementation(attention)
        started = clock(setup.device)
        made = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=job.new_tokens,
            min_new_tokens=job.new_tokens if job.forced else None,
            num_beams=job.beams,
            do_sample=False,
            cache_implementation=cache,
        )
        seconds = clock(setup.device) - started
        return seconds, made[:, ids.shape[1] if left else 1 :]

    def settings(job: Job) -> tuple[str, str | None]:
        key = len(job.rows), job.beams
        if key not in best:
            trial = replace(job, new_tokens=TRIAL_TOKENS, forced=True)

            def seconds(trial: Job, attention: str, cache: str | None) -> float:
                """Infinite where a setting does not work at all."""
                try:
                    if setup.device != "cpu":
                        make(trial, attention, cache)  # a compilation does not count
                    return make(trial, attention, cache)[0]
                except Exception:  # noqa: BLE001  (a compiler may raise whatever it likes)
                    return math.inf

            make(trial, "eager", None)  # warms up
            attention = min(("sdpa", "eager"), key=lambda name: seconds(trial, name, None))
            cache = None
            if job.static:
                # What is compiled is for one length of the cache: there the whole job is tried.
                whole = trial if setup.device == "cpu" else job
                caches = (None, "static")
                cache = min(caches, key=lambda name: seconds(whole, attention, name))
            best[key] = attention, cache
        return best[key]

    turns.answer(f"{model.dtype}")
    for job in turns:
        if isinstance(job, Peak):
            turns.answer(peak_of(setup.device))
            continue
        attention, cache = settings(job)
        seconds, made = make(job, attention, cache)
        how = f"attention {attention}, {cache or 'dynamic'} cache"
        turns.answer(_made(seconds, made.tolist(), eos, how))


# -- CTranslate2 -----------------------------------------------------------------------------------


def ctranslate2(setup: GenerationSetup, turns: Turns) -> None:
    """`translate_batch` of the converted folder, the whole batch at once. For each kind of job a
    trial picks how many threads it is fastest with here, one or all; the weights are held once."""
    import ctranslate2 as peer
    from ctranslate2.converters import TransformersConverter

    from mainspring.checkpoints.tokenizer import Tokenizer

    assert setup.converted is not None
    TransformersConverter(str(setup.folder)).convert(str(setup.converted), force=True)
    tokenizer = Tokenizer.open(setup.folder)
    assert tokenizer is not None and tokenizer.eos_id is not None
    eos = tokenizer.eos_id
    counts = sorted({1, setup.threads}, reverse=True) if setup.device == "cpu" else [setup.threads]
    by_threads = {}
    for count in counts:
        by_threads[count] = peer.Translator(
            str(setup.converted),
            device=setup.device,
            compute_type=setup.precision,
            intra_threads=count,
            inter_threads=1,
        )
        kind = by_threads[count].compute_type  # told only while the weights are there
        by_threads[count].unload_model()
    best: dict[tuple[int, int, int], int] = {}

    def make(job: Job, threads: int) -> tuple[float, Any]:
        for count, translator in by_threads.items():
            if count != threads:
                translator.unload_model()
        by_threads[threads].load_model()
        rows = [tokenizer.tokens(row) for row in job.rows]
        started = clock("cpu")
        made = by_threads[threads].translate_batch(
            rows,
            beam_size=job.beams,
            max_input_length=0,
            max_decoding_length=job.new_tokens,
            min_decoding_length=job.new_tokens if job.forced else 0,
            return_end_token=True,
        )
        return clock("cpu") - started, made

    def threads(job: Job) -> int:
        # How long the rows grow counts too: a job of a few tokens is reading rather than writing.
        key = len(job.rows), job.beams, job.new_tokens
        if key not in best and len(counts) > 1:
            seconds = {count: min(make(job, count)[0] for _ in range(2)) for count in counts}
            best[key] = min(counts, key=lambda count: seconds[count])
        return best.get(key, setup.threads)

    turns.answer(f"{kind}, {peer.__version__}")
    for job in turns:
        if isinstance(job, Peak):
            turns.answer(peak_of("cpu"))  # torch does not see what it holds on a card
            continue
        count = threads(job)
        seconds, made = make(job, count)
        ids = [[_id(tokenizer, token) for token in answer.hypotheses[0]] for answer in made]
        turns.answer(_made(seconds, ids, eos, "1 thread" if count == 1 else f"{count} threads"))


def _id(tokenizer: Any, token: str) -> int:
    """A token's id; -1 for the names that the converter gives to rows without a token."""
    found = tokenizer.id_of(token)
    return -1 if found is None else found
