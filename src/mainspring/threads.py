"""How the threads of a matrix product wait for each other. Standard library only."""

import os


def wait_politely() -> None:
    """Waiting threads go to sleep soon, instead of keeping a core busy.

    OpenMP's threads wait for one another hundreds of times in a step. By default they do it by
    turning in circles for a while; where another process wants the core, that is the time the
    thread they wait for does not get, and a training step takes four to ten times as long. An
    idle machine is not slower for it. It must be said before torch is imported, and what the user
    has set (`GOMP_SPINCOUNT`, `OMP_WAIT_POLICY`) holds.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
