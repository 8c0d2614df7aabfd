"""NumPy's matrix product and `argpartition` against benches/nearest.rs, alternating: ten nearest of
400 000 × 300.

    cargo bench -p loquat-benches --bench nearest --no-run   # prints the path of the binary
    python benches/peers/nearest.py --bench PATH [--rounds N]

NumPy's rows are normalised beforehand. A ratio is theirs ÷ ours in time, so above 1 ours is faster.
"""

import argparse
import statistics

import numpy as np
from server import Server, seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    ours = Server(args.bench, "--serve")
    rows = np.random.default_rng(1).random((400_000, 300), dtype=np.float32) - 0.5
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    def top(queries):
        scores = queries @ rows.T
        best = np.argpartition(scores, -10, axis=1)[:, -10:]
        np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1), 1)

    for name, queries in [("one", rows[:1].copy()), ("batch", rows[:100].copy())]:
        ask = lambda: (ours.ask("limit_read"), ours.ask(name), seconds(lambda: top(queries), 0.5))
        times = [ask() for _ in range(args.rounds)]
        limit, mine, theirs = (statistics.median(x) for x in zip(*times))
        ratio = statistics.median(t / o for _, o, t in times)
        read = f" (reading alone {limit * 1e3:.1f} ms)" if name == "one" else ""
        print(f"{name:>5}: loquat {mine * 1e3:.1f} ms{read}; NumPy {theirs * 1e3:.1f} ms; {ratio:.2f}x", flush=True)


main()
