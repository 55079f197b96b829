"""llama.cpp as the oracle, in a process of its own: what it makes of a GGUF file.

python llamacpp.py < {"file": ..., "texts": [...], "prompts": [[ids]], "tokens": 24}
> {"texts": [[ids]], "written": [[ids]]}
"""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path


def ask(
    file: Path, texts: list[str], prompts: list[list[int]], tokens: int
) -> tuple[list[list[int]], list[list[int]]]:
    """(ids of the texts with special tokens added, what is written greedily after the prompts)."""
    question = {"file": str(file), "texts": texts, "prompts": prompts, "tokens": tokens}
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["texts"], answer["written"]


def serve(question: dict) -> dict:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = question["file"]
    params.port, params.warmup, params.n_parallel, params.n_ctx = 0, False, 1, 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    # Keys and values as the weights are multiplied: in float32.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)

    def post(path: str, **body: object) -> dict:
        request = urllib.request.Request(
            server.listening_address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return json.loads(opener.open(request, timeout=280).read())

    texts = [post("/tokenize", content=t, add_special=True)["tokens"] for t in question["texts"]]
    greedy = {"temperature": 0.0, "top_k": 1, "return_tokens": True, "cache_prompt": False}
    greedy |= {"n_predict": question["tokens"], "ignore_eos": True}
    written = [post("/completion", prompt=ids, **greedy)["tokens"] for ids in question["prompts"]]
    return {"texts": texts, "written": written}


if __name__ == "__main__":
    print(json.dumps(serve(json.load(sys.stdin))), flush=True)
    os._exit(0)  # its threads would be waited for
