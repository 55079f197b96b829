"""Who writes in the chat benchmark beside those of `generation_contestants`: llama.cpp."""

import os
import time
from dataclasses import dataclass
from multiprocessing import util
from pathlib import Path

from benchmarks.generation_contestants import TRIAL_TOKENS, Made
from benchmarks.llama_server import Server, Serving, described, fastest
from benchmarks.turns import Turns


@dataclass(frozen=True)
class LlamaSetup:
    """A GGUF file in Q8_0, the threads, the most rows of a job, and the most tokens of a row."""

    file: Path
    threads: int
    rows: int
    length: int


def llama_cpp(setup: LlamaSetup, turns: Turns) -> None:
    """llama.cpp on 8-bit weights: its server takes the rows of a job in one request and decodes
    them in one batch a step, with the settings that a trial finds fastest.

    torch must not have multiplied anything in this process: both share one OpenMP, which lets
    threads sleep at once where there are more of them than cores, and llama.cpp then writes at
    less than half its speed.
    """
    # Any text does: what is tried is how fast it goes on.
    some = [list(range(10, 10 + setup.length // 2))] * setup.rows
    serving = Serving(str(setup.file), setup.threads, setup.rows, setup.length)
    serving = fastest(serving, some, TRIAL_TOKENS)
    server = Server(serving)
    # The server's threads would be waited for when this process ends.
    util.Finalize(None, os._exit, args=(0,), exitpriority=-1)
    turns.answer(f"{described()}, Q8_0, {serving}")
    for job in turns:
        started = time.perf_counter()
        written = server.write(job.rows, job.new_tokens)
        seconds = time.perf_counter() - started
        turns.answer(Made(seconds, written, sum(map(len, written))))
