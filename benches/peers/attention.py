"""PyTorch's `scaled_dot_product_attention`, the counterpart of benches/attention.rs; 8 heads of 64,
causal.

    python attention.py THREADS      reads `forward|both|one length`
"""

import sys

import torch
import torch.nn.functional as F
from server import seconds, serve

torch.set_num_threads(int(sys.argv[1]))


def case(what, length):
    shape = (1, int(length), 8, 64)
    q, k, v = (torch.randn(shape).transpose(1, 2).requires_grad_() for _ in range(3))
    dout = torch.randn(shape).transpose(1, 2)
    one = torch.randn(1, 8, 1, 64)

    def forward():
        with torch.no_grad():
            F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def both():
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        torch.autograd.grad(out, (q, k, v), dout)

    def one_query():
        with torch.no_grad():
            F.scaled_dot_product_attention(one, k, v)

    return {"forward": forward, "both": both, "one": one_query}[what]


serve(lambda what, length: seconds(case(what, length)))
