"""PyTorch, ONNX Runtime or candle against benches/encode.rs, alternating: all-MiniLM-L6-v2, from
token ids to normalised means, no padding.

    python encode.py --bench PATH --model DIR [--peer pytorch|onnxruntime|candle] [--packed]
                     [--precisions f32,bf16] [--threads N] [--rounds N] [--work FOLDER]

A ratio is theirs / ours in time, so above 1 ours is faster. `--packed`: ours keeps packed weights
(`Module::keep_packed`). ONNX Runtime and candle multiply in f32; the model is exported to FOLDER
for the former, CANDLE_MODELS is the path of benches/peers/rust's `models` for the latter.
"""

import argparse
import os
import statistics
import tempfile
import time

from server import Server


class PyTorch:
    def __init__(self, precision, args):
        import torch
        from transformers import AutoModel

        torch.set_num_threads(args.threads)
        self.torch = torch
        dtype = torch.float32 if precision == "f32" else torch.bfloat16
        self.model = AutoModel.from_pretrained(args.model, dtype=dtype).eval()

    def seconds(self, texts, length):
        ids = self.torch.randint(1000, 29000, (texts, length))
        start = time.perf_counter()
        with self.torch.inference_mode():
            for batch in ids.split(32):
                mean = self.model(input_ids=batch).last_hidden_state.mean(1)
                self.torch.nn.functional.normalize(mean)
        return time.perf_counter() - start


class OnnxRuntime:
    def __init__(self, precision, args):
        import onnxruntime

        path = os.path.join(args.work, "minilm.onnx")
        if not os.path.exists(path):
            self.export(path, args)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def export(self, path, args):
        import torch
        from transformers import AutoModel

        class Hidden(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = AutoModel.from_pretrained(args.model).eval()

            def forward(self, ids, mask):
                return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

        ids = torch.randint(1000, 29000, (32, 32))
        axes = {0: torch.export.Dim("batch", max=4096), 1: torch.export.Dim("length", max=512)}
        torch.onnx.export(
            Hidden(),
            (ids, torch.ones_like(ids)),
            path,
            input_names=["ids", "mask"],
            output_names=["hidden"],
            dynamo=True,
            external_data=False,
            dynamic_shapes={"ids": axes, "mask": axes},
        )

    def seconds(self, texts, length):
        import numpy as np

        ids = np.random.randint(1000, 29000, (texts, length))
        start = time.perf_counter()
        for first in range(0, texts, 32):
            batch = ids[first : first + 32]
            mean = self.session.run(None, {"ids": batch, "mask": np.ones(batch.shape, np.int64)})[0].mean(1)
            mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        return time.perf_counter() - start


class Candle:
    def __init__(self, precision, args):
        self.server = Server(os.environ["CANDLE_MODELS"], "bert", args.model)

    def seconds(self, texts, length):
        return self.server.ask(texts, length)


PEERS = {"pytorch": PyTorch, "onnxruntime": OnnxRuntime, "candle": Candle}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--peer", default="pytorch", choices=PEERS)
    parser.add_argument("--packed", action="store_true")
    parser.add_argument("--precisions", default="f32,bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", default=os.path.join(tempfile.gettempdir(), "loquat-peers"))
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)

    os.environ["LOQUAT_MINILM"] = args.model
    ours = Server(args.bench, "--serve")
    for precision in args.precisions.split(","):
        theirs = PEERS[args.peer](precision, args)
        own = precision + "-packed" * args.packed
        for texts, length in [(512, 32), (64, 256)]:
            ours.ask(own, texts // 8, length), theirs.seconds(texts // 8, length)  # warm
            times = []
            for _ in range(args.rounds):
                times.append((ours.ask(own, texts, length), theirs.seconds(texts, length)))
                time.sleep(0.05)  # OpenMP's threads spin for a while
            mine, other = (texts / statistics.median(x) for x in zip(*times))
            ratio = statistics.median(t / o for o, t in times)
            what = f"{own} {texts} x {length}"
            print(f"{what:>21}: loquat {mine:6.1f}, {args.peer} {other:6.1f} sentences/s, {ratio:.2f}x", flush=True)


main()
