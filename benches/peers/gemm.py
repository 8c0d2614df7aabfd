"""PyTorch's matrix products, the counterparts of benches/gemm.rs.

    python gemm.py THREADS      reads `kind layout m k n`

The closest product to each kind: f32 for kinds with f32 inputs and sums, bf16 inputs and outputs
for bf16.
"""

import sys

import torch
from server import seconds, serve

torch.set_num_threads(int(sys.argv[1]))
torch.set_grad_enabled(False)


def product(kind, layout, m, k, n):
    m, k, n = int(m), int(k), int(n)
    a = torch.randn(m, k) if layout[0] == "N" else torch.randn(k, m).t()
    b = torch.randn(k, n) if layout[1] == "N" else torch.randn(n, k).t()
    if "bf16" in kind:
        a, b = a.bfloat16(), b.bfloat16()
    if kind == "int8":
        a, b = (a * 50).to(torch.int8), (b * 50).to(torch.int8)
        return lambda: torch._int_mm(a, b)
    c = torch.empty(m, n, dtype=a.dtype)
    return lambda: torch.mm(a, b, out=c)


serve(lambda *words: seconds(product(*words)))
