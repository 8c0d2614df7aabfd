"""NumPy's matrix product and `argpartition`, the counterparts of benches/nearest.rs: ten nearest of
400 000 × 300.

    python nearest.py      reads `one|batch`

The rows are normalised beforehand.
"""

import numpy as np
from server import seconds, serve

rows = np.random.default_rng(1).random((400_000, 300), dtype=np.float32) - 0.5
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
QUERIES = {"one": rows[:1].copy(), "batch": rows[:100].copy()}


def top(queries):
    scores = queries @ rows.T
    best = np.argpartition(scores, -10, axis=1)[:, -10:]
    np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1), 1)


serve(lambda what: seconds(lambda: top(QUERIES[what]), 0.5))
