"""Runs one command and prints, as JSON, how long it took and how much memory it held at most.

A small program of its own: a child's peak of memory begins with what the process that started it
held, and this one holds next to nothing. Standard library only.

    python launch.py COMMAND ...
"""

import json
import os
import subprocess
import sys
import time


def main(command: list[str]) -> None:
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    first = child.stdout.readline()
    until_first = time.perf_counter() - started
    rest = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    found = {
        "first": until_first,
        "whole": time.perf_counter() - started,
        "peak": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "status": os.waitstatus_to_exitcode(status),
        "text": (first + rest).strip(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
