"""How the threads of a matrix product wait for each other. Standard library only."""

import os
import time
from pathlib import Path

SOON, LATER = 1_000, 10_000  # turns of the waiting loop: some 13 and 130 microseconds
LOOKS, BETWEEN = 3, 0.002  # how often, and how many seconds apart, others are counted


def wait_politely() -> None:
    """Waiting threads go to sleep soon, instead of keeping a core busy.

    OpenMP's threads wait for one another hundreds of times in a step. By default they do it by
    turning in circles for a while; where another process wants the core, that is the time the
    thread they wait for does not get, and a step takes four to twenty times as long. On a machine
    where others work, threads sleep at once. On one that is free they wait about as long as it
    takes from one product to the next, which makes small steps twice as fast (benchmarks/LOG.md).
    It must be said before torch is imported, and what the user has set (`GOMP_SPINCOUNT`,
    `OMP_WAIT_POLICY`) holds.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(LATER if is_free() else SOON))


def is_free(loads: Path = Path("/proc/loadavg")) -> bool:
    """Whether at most a quarter of the processors is at work for others now; False where the
    system does not tell."""
    others = []
    for look in range(LOOKS):
        if look:
            time.sleep(BETWEEN)
        try:
            running = loads.read_text(encoding="ascii").split()[3].partition("/")[0]
            others.append(int(running) - 1)  # without ourselves
        except (OSError, IndexError, ValueError):
            return False
    return 4 * min(others) <= (os.cpu_count() or 1)
