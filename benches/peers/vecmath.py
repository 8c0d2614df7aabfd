"""PyTorch's counterparts of benches/vecmath.rs.

    python vecmath.py THREADS      reads `name MiB`
"""

import functools
import sys

import torch
from server import seconds, serve

torch.set_num_threads(int(sys.argv[1]))
torch.set_grad_enabled(False)
COLS, VOCAB = 1024, 8192


@functools.lru_cache(1)
def cases(mib):
    F = torch.nn.functional
    n = mib << 18
    i = torch.arange(n, dtype=torch.float32)
    a, b = 3 * torch.sin(i * 0.731), 3 * torch.sin(i * 0.0917)
    d = (3 * torch.sin(i * 0.013)).abs()
    c = torch.empty(n)
    rows = (-1, COLS)
    a2, b2, c2, d2 = a.view(rows), b.view(rows), c.view(rows), d.view(rows)
    w, bias = b[:COLS].clone(), b[COLS : 2 * COLS].clone()
    half = a.bfloat16()
    labels = torch.arange(n // VOCAB) * 77 % COLS
    aten = torch.ops.aten
    _, mean, rstd = aten.native_layer_norm(a2, [COLS], w, bias, 1e-5)
    total = torch.tensor(1.0)
    adam = [torch.zeros(n), torch.zeros(n), [torch.tensor(10.0)]]

    def cross_entropy():
        x = a.view(-1, VOCAB)
        y = aten._log_softmax(x, 1, False)
        loss, weight = aten.nll_loss_forward(y, labels, None, 2, -100)
        dy = aten.nll_loss_backward(total, y, labels, None, 2, -100, weight)
        aten._log_softmax_backward_data(dy, y, 1, torch.float32)

    def adamw():
        torch._fused_adamw_(
            [a], [b], [adam[0]], [adam[1]], [], adam[2], lr=1e-4, beta1=0.9, beta2=0.95, weight_decay=0.1,
            eps=1e-8, amsgrad=False, maximize=False,
        )

    return {
        "exp": lambda: torch.exp(a, out=c),
        "tanh": lambda: torch.tanh(a, out=c),
        "sigmoid": lambda: torch.sigmoid(a, out=c),
        "relu": lambda: torch.clamp_min(a, 0, out=c),
        "gelu": lambda: aten.gelu.out(a, out=c),
        "gelu_tanh": lambda: aten.gelu.out(a, approximate="tanh", out=c),
        "silu": lambda: aten.silu.out(a, out=c),
        "gelu_backward": lambda: aten.gelu_backward.grad_input(b, a, grad_input=c),
        "gelu_tanh_backward": lambda: aten.gelu_backward.grad_input(b, a, approximate="tanh", grad_input=c),
        "silu_backward": lambda: aten.silu_backward.grad_input(b, a, grad_input=c),
        "add": lambda: torch.add(a, b, out=c),
        "add_assign": lambda: c.add_(b),
        "sum": lambda: a.sum(),
        "sum_rows": lambda: a2.sum(0),
        "softmax": lambda: aten._softmax.out(a2, 1, False, out=c2),
        "softmax_backward": lambda: aten._softmax_backward_data.out(b2, d2, 1, torch.float32, grad_input=c2),
        "log_softmax": lambda: aten._log_softmax.out(a2, 1, False, out=c2),
        "cross_entropy": cross_entropy,
        "layer_norm": lambda: aten.native_layer_norm.out(a2, [COLS], w, bias, 1e-5, out0=c2, out1=mean, out2=rstd),
        "layer_norm_backward": lambda: aten.native_layer_norm_backward(
            b2, a2, [COLS], mean, rstd, w, bias, [True, True, True]
        ),
        "rms_norm": lambda: F.rms_norm(a2, [COLS], w, 1e-5),
        "dropout": lambda: F.dropout(a, 0.1),
        "adamw": adamw,
        "f32_to_bf16": lambda: half.copy_(a),
        "bf16_to_f32": lambda: c.copy_(half),
    }


serve(lambda name, mib: seconds(cases(int(mib))[name]))
