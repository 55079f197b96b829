"""Who writes in the chat benchmark beside those of `generation_contestants`: llama.cpp."""

import ctypes
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.generation_contestants import Job, Made
from benchmarks.turns import Turns


@dataclass(frozen=True)
class LlamaSetup:
    """A model folder, where its GGUF form goes, and the threads."""

    folder: Path
    file: Path
    threads: int


def llama_cpp(setup: LlamaSetup, turns: Turns) -> None:
    """llama.cpp's Python binding on 8-bit weights: all rows decoded in one batch a step, by the
    binding's own functions over the library."""
    import llama_cpp as peer

    from mainspring.checkpoints.bundle import load
    from mainspring.checkpoints.gguf_writing import write_gguf

    write_gguf(load(setup.folder), setup.file, "q8_0")
    silent = peer.llama_log_callback(lambda level, text, data: None)
    peer.llama_log_set(silent, ctypes.c_void_p(0))
    peer.llama_backend_init()
    options = peer.llama_model_default_params()
    model = peer.llama_model_load_from_file(str(setup.file).encode(), options)
    vocabulary = peer.llama_vocab_n_tokens(peer.llama_model_get_vocab(model))
    turns.answer(f"llama-cpp-python {peer.__version__}, Q8_0")
    for job in turns:
        turns.answer(_write(peer, model, vocabulary, job, setup.threads))


def _write(peer: Any, model: Any, vocabulary: int, job: Job, threads: int) -> Made:
    """Greedy rows, each a sequence of its own in one context."""
    import numpy as np

    rows, longest = len(job.rows), max(map(len, job.rows)) + job.new_tokens
    options = peer.llama_context_default_params()
    options.n_ctx, options.n_seq_max = rows * (longest + 32), rows
    options.n_batch = sum(map(len, job.rows))
    options.n_threads = options.n_threads_batch = threads
    context = peer.llama_init_from_model(model, options)
    batch = peer.llama_batch_init(options.n_batch, 0, 1)

    def put(place: int, token: int, at: int, row: int, read: bool) -> None:
        batch.token[place], batch.pos[place] = token, at
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, row
        batch.logits[place] = read

    def best(place: int) -> int:
        logits = peer.llama_get_logits_ith(context, place)
        return int(np.ctypeslib.as_array(logits, (vocabulary,)).argmax())

    def decode(tokens: int) -> None:
        batch.n_tokens = tokens
        if peer.llama_decode(context, batch) != 0:
            raise RuntimeError("llama_decode failed")

    started = time.perf_counter()
    place, ends = 0, []
    for row, ids in enumerate(job.rows):
        for at, token in enumerate(ids):
            put(place, token, at, row, at + 1 == len(ids))
            place += 1
        ends.append(place - 1)
    decode(place)
    written = [[best(end)] for end in ends]
    for step in range(job.new_tokens - 1):
        for row, new in enumerate(written):
            put(row, new[-1], len(job.rows[row]) + step, row, True)
        decode(rows)
        for row, new in enumerate(written):
            new.append(best(row))
    seconds = time.perf_counter() - started
    peer.llama_batch_free(batch)
    peer.llama_free(context)
    return Made(seconds, written, rows * job.new_tokens)
