"""`doctor`: what this machine has, and what Mainspring will therefore do."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "mainspring",
    "torch",
    "safetensors",
    "tokenizers",
    "huggingface-hub",
    "numpy",
    "pyarrow",
    "rouge-score",
)


@dataclass(frozen=True)
class Report:
    """Facts by name, and what follows from them."""

    facts: dict[str, str]
    advice: tuple[str, ...]
    exit_code: int = 0

    def lines(self, as_json: bool) -> Iterator[str]:
        if as_json:
            yield json.dumps({**self.facts, "therefore": list(self.advice)}, ensure_ascii=False)
            return
        width = max(map(len, self.facts))
        for name, value in self.facts.items():
            yield f"{name:<{width}}  {value}"
        yield ""
        yield "Therefore:"
        yield from (f"- {line}" for line in self.advice)


def doctor() -> Report:
    """Show what this machine has, and what Mainspring will therefore do."""
    import torch
    from huggingface_hub import constants

    from mainspring.compute import packed
    from mainspring.compute.hardware import detect
    from mainspring.compute.native import library
    from mainspring.compute.precision import choose

    hardware = detect()
    cap = os.environ.get("ONEDNN_MAX_CPU_ISA")
    operators = {
        "packed bfloat16": packed.has_bfloat16(),
        "packed int8": packed.has_int8(),
        "int8 single rows": packed.has_int8_row(),
    }
    facts = {
        "python": sys.version.split()[0],
        "cpu": hardware.cpu,
        "instructions": ", ".join(hardware.instructions) or "none that matter here",
        "threads": f"{hardware.threads} usable, torch uses {torch.get_num_threads()}",
        "memory": f"{hardware.memory / 1e9:.1f} GB" if hardware.memory else "unknown",
        "gpu": ", ".join(hardware.gpus) or "none",
        "operators": ", ".join(f"{n}: {'yes' if ok else 'no'}" for n, ok in operators.items()),
        "kernels": "built" if library.kernels() else f"none: {library.why_not()}",
        "hub": "offline" if constants.HF_HUB_OFFLINE else "online when asked",
        "hub cache": str(constants.HF_HUB_CACHE),
        "versions": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }
    if cap:
        facts["ONEDNN_MAX_CPU_ISA"] = cap
    device = torch.device("cuda" if hardware.gpus else "cpu")
    precision = choose("auto", hardware, device)
    advice = [f"training and inference compute in {precision} on the {device.type} (--precision)"]
    if precision == "float32":
        advice.append(
            "this machine has no fast bfloat16; a newer CPU or a GPU is several times faster"
        )
    wants_kernels = "AVX512_CORE_AMX" in hardware.instructions
    if wants_kernels and library.kernels() is None and library.SWITCH not in os.environ:
        why = library.why_not()
        advice.append(f"with kernels generation would be about twice as fast here: {why}")
    if hardware.fast_int8 and operators["packed int8"]:
        advice.append(
            "--precision int8 is available for inference, with less memory and more speed"
        )
    if constants.HF_HUB_OFFLINE:
        advice.append("hub names are looked up in the cache only; local folders always work")
    if torch.get_num_threads() < hardware.threads:
        advice.append(
            f"torch uses fewer threads than there are: set OMP_NUM_THREADS={hardware.threads}"
        )
    return Report(facts, tuple(advice))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
