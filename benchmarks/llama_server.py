"""llama.cpp's server, out of the wheels of `xllamacpp`: it runs in this process and is asked by its
own HTTP API, over the loopback.

python llama_server.py < a `Serving` with "prompts" and "tokens", as JSON
> seconds of the best of some tries

Rows that come in one request are decoded in one batch a step. Nothing of the benchmarks is imported
here, so that a trial can be a process of its own.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product

Rows = Sequence[Sequence[int]]
TRIES = 3
# From the widest on: what decides how fast 8-bit weights are multiplied.
INSTRUCTIONS = ("AMX_INT8", "AVX512_VNNI", "AVX_VNNI", "AVX512", "AVX2")


@dataclass(frozen=True)
class Serving:
    """A GGUF file, how many rows come at most at a time, and how long they grow. `flash` is flash
    attention; with `spins` waiting threads turn in circles, as OpenMP has it, and do not sleep."""

    file: str
    threads: int
    rows: int
    length: int
    flash: bool = True
    spins: bool = True

    def __str__(self) -> str:
        flash, waiting = ("on" if self.flash else "off"), ("spin" if self.spins else "sleep")
        return f"flash attention {flash}, waiting threads {waiting}"


class Server:
    """A model that is loaded and waits for rows."""

    def __init__(self, serving: Serving):
        if serving.spins:  # read when the library is loaded, which brings an OpenMP of its own
            os.environ.pop("GOMP_SPINCOUNT", None)
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path, params.port, params.verbosity = serving.file, 0, -1
        # A slot and a stretch of the cache for each row; room for what the server adds.
        params.n_parallel = serving.rows
        params.n_ctx = serving.rows * (serving.length + 64)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = serving.threads
        kinds = xllamacpp.llama_flash_attn_type
        params.flash_attn_type = (
            kinds.LLAMA_FLASH_ATTN_TYPE_ENABLED
            if serving.flash
            else kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        self.server = xllamacpp.Server(params)
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def write(self, rows: Rows, tokens: int) -> list[list[int]]:
        """Exactly `tokens` greedy ids after each of the rows."""
        question = {
            "prompt": [list(row) for row in rows],
            "n_predict": tokens,
            "ignore_eos": True,
            # The likeliest token by the shortest chain of samplers.
            "samplers": ["top_k"],
            "top_k": 1,
            "temperature": 0.0,
            "return_tokens": True,
            "cache_prompt": False,
        }
        request = urllib.request.Request(
            self.server.listening_address + "/completion",
            json.dumps(question).encode(),
            {"Content-Type": "application/json"},
        )
        with self.opener.open(request, timeout=600) as answer:
            found = json.load(answer)
        answers = found if isinstance(found, list) else [found]
        return [one["tokens"] for one in sorted(answers, key=lambda one: one["index"])]


def described() -> str:
    """The version of the wheels and the widest instructions that they were built for."""
    import xllamacpp

    built = xllamacpp.get_system_info()
    widest = next((name for name in INSTRUCTIONS if f"{name} = 1" in built), "no AVX")
    return f"xllamacpp {xllamacpp.__version__} ({widest})"


def fastest(serving: Serving, rows: Rows, tokens: int) -> Serving:
    """The settings that are fastest on these rows: each tried in a process of its own, so that
    those that are not chosen leave no memory behind."""

    def seconds(tried: Serving) -> float:
        question = {**asdict(tried), "prompts": rows, "tokens": tokens}
        done = subprocess.run(
            [sys.executable, __file__],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            timeout=600,
            check=True,
        )
        return float(done.stdout.splitlines()[-1])

    kinds = product((True, False), repeat=2)
    return min((replace(serving, flash=flash, spins=spins) for flash, spins in kinds), key=seconds)


def _trial(question: dict) -> float:
    rows, tokens = question.pop("prompts"), question.pop("tokens")
    server = Server(Serving(**question))
    found = []
    for _ in range(TRIES):
        started = time.perf_counter()
        server.write(rows, tokens)
        found.append(time.perf_counter() - started)
    return min(found)


if __name__ == "__main__":
    print(_trial(json.load(sys.stdin)), flush=True)
    os._exit(0)  # the server's threads would be waited for
