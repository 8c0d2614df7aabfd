"""PyTorch's counterparts of benches/vecmath.rs.

    python vecmath.py                       only PyTorch: GB/s
    python vecmath.py --bench PATH [...]    alternating with ours: ratio theirs / ours in time

`benches/peers/vecmath.sh` builds and runs both. Options: --threads N, --rounds N, --sizes 1,64,
names of cases.
"""

import argparse
import statistics
import time

from server import Server, seconds

COLS, VOCAB = 1024, 8192


def cases(torch, mib):
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
    y_log = F.log_softmax(a.view(-1, VOCAB), 1)
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

    del y_log
    return {
        "exp": (2, lambda: torch.exp(a, out=c)),
        "tanh": (2, lambda: torch.tanh(a, out=c)),
        "sigmoid": (2, lambda: torch.sigmoid(a, out=c)),
        "relu": (2, lambda: torch.clamp_min(a, 0, out=c)),
        "gelu": (2, lambda: aten.gelu.out(a, out=c)),
        "gelu_tanh": (2, lambda: aten.gelu.out(a, approximate="tanh", out=c)),
        "silu": (2, lambda: aten.silu.out(a, out=c)),
        "gelu_backward": (3, lambda: aten.gelu_backward.grad_input(b, a, grad_input=c)),
        "gelu_tanh_backward": (3, lambda: aten.gelu_backward.grad_input(b, a, approximate="tanh", grad_input=c)),
        "silu_backward": (3, lambda: aten.silu_backward.grad_input(b, a, grad_input=c)),
        "add": (3, lambda: torch.add(a, b, out=c)),
        "add_assign": (3, lambda: c.add_(b)),
        "sum": (1, lambda: a.sum()),
        "sum_rows": (1, lambda: a2.sum(0)),
        "softmax": (2, lambda: aten._softmax.out(a2, 1, False, out=c2)),
        "softmax_backward": (3, lambda: aten._softmax_backward_data.out(b2, d2, 1, torch.float32, grad_input=c2)),
        "log_softmax": (2, lambda: aten._log_softmax.out(a2, 1, False, out=c2)),
        "cross_entropy": (3, cross_entropy),
        "layer_norm": (2, lambda: aten.native_layer_norm.out(a2, [COLS], w, bias, 1e-5, out0=c2, out1=mean, out2=rstd)),
        "layer_norm_backward": (
            3,
            lambda: aten.native_layer_norm_backward(b2, a2, [COLS], mean, rstd, w, bias, [True, True, True]),
        ),
        "rms_norm": (2, lambda: F.rms_norm(a2, [COLS], w, 1e-5)),
        "dropout": (2, lambda: F.dropout(a, 0.1)),
        "adamw": (7, adamw),
        "f32_to_bf16": (1.5, lambda: half.copy_(a)),
        "bf16_to_f32": (1.5, lambda: c.copy_(half)),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", default="1,64")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    ours = Server(args.bench, "--serve") if args.bench else None

    for mib in map(int, args.sizes.split(",")):
        size = mib << 20
        if ours:
            read, copy = size / ours.ask("limit_read", mib) / 1e9, 2 * size / ours.ask("limit_copy", mib) / 1e9
            print(f"{mib} MiB: limits read {read:.1f}, copy {copy:.1f} GB/s; {args.threads} threads")
        for name, (passes, f) in cases(torch, mib).items():
            if args.names and name not in args.names:
                continue
            theirs, mine = [], []
            for _ in range(args.rounds):
                if ours:
                    mine.append(ours.ask(name, mib))
                theirs.append(seconds(f))
                time.sleep(0.02)  # OpenMP's threads spin for a while
            rate = lambda times: passes * size / statistics.median(times) / 1e9
            line = f"{name:>20} {mib:>3} MiB: PyTorch {rate(theirs):6.1f} GB/s"
            if ours:
                ratio = statistics.median(t / m for t, m in zip(theirs, mine))
                share = rate(mine) / (read if passes == 1 else copy)
                line += f", loquat {rate(mine):6.1f} GB/s ({100 * share:3.0f} % of the limit), {ratio:5.2f}x"
            print(line, flush=True)


main()
