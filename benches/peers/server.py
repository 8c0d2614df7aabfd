"""What the peers' programs share. Each reads lines of words from standard input and prints the
seconds for each line, as the benches do with `--serve`; `benches/report` runs both in turns."""

import os
import statistics
import sys
import time

# Libraries print to standard output too, which is for the answers alone.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def serve(answer):
    """Answers each line by `answer(*words)`, in seconds."""
    for line in sys.stdin:
        print(f"{answer(*line.split()):e}", file=answers, flush=True)


def seconds(f, budget=0.1):
    """The seconds of a call: the median of rounds of at least 5 ms."""
    start = time.perf_counter()
    f()
    once = time.perf_counter() - start
    calls = max(1, min(1_000_000, int(5e-3 / once)))
    rounds = []
    while len(rounds) < 3 or time.perf_counter() - start < budget:
        t = time.perf_counter()
        for _ in range(calls):
            f()
        rounds.append((time.perf_counter() - t) / calls)
    return statistics.median(rounds)
