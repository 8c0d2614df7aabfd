"""A training step in PyTorch eager, the counterpart of benches/train_step.rs; bf16 is PyTorch's
autocast.

    python train_step.py THREADS      reads `recipe precision`
"""

import contextlib
import functools
import sys
import types

import torch
import torch.nn as nn
import torch.nn.functional as F
from server import seconds, serve
from train_lm import Gpt

torch.set_num_threads(int(sys.argv[1]))
RECIPES = {  # layers, heads, dim, context, batch, dropout: as in benches/train_step.rs
    "cpu": (4, 4, 128, 64, 12, 0.0),
    "small": (6, 6, 384, 256, 12, 0.0),
    "gpu": (6, 6, 384, 256, 64, 0.2),
}
VOCABULARY = 65


@functools.lru_cache(1)
def peer(recipe, precision):
    layers, heads, dim, context, batch, dropout = RECIPES[recipe]
    a = types.SimpleNamespace(layers=layers, heads=heads, dim=dim, context=context, dropout=dropout)
    torch.manual_seed(1)
    model = Gpt(VOCABULARY, a)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    x, y = (torch.randint(0, VOCABULARY, (batch, context)) for _ in range(2))
    cast = torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()

    def step():
        with cast:
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


serve(lambda recipe, precision: seconds(peer(recipe, precision), 0.5))
