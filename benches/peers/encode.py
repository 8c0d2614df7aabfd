"""all-MiniLM-L6-v2 in other programs, the counterparts of benches/encode.rs: from token ids to
normalised means, no padding, 32 texts at a time.

    python encode.py THREADS PEER PRECISION WORK [FOLDER]      reads `texts length`

PEER: pytorch, onnxruntime or sentence-transformers. Without the model's FOLDER its weights are
random. ONNX Runtime multiplies in f32, and its model is exported to WORK.
"""

import os
import sys
import time

from server import serve

THREADS, PEER, PRECISION, WORK = int(sys.argv[1]), *sys.argv[2:5]
FOLDER = sys.argv[5] if len(sys.argv) > 5 else None


def bert():
    from transformers import AutoModel, BertConfig, BertModel

    if FOLDER:
        return AutoModel.from_pretrained(FOLDER)
    sizes = dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    return BertModel(BertConfig(vocab_size=30522, **sizes))


class PyTorch:
    def __init__(self, precision):
        import torch

        torch.set_num_threads(THREADS)
        self.torch = torch
        dtype = torch.float32 if precision == "f32" else torch.bfloat16
        self.model = bert().to(dtype).eval()

    def seconds(self, texts, length):
        ids = self.torch.randint(1000, 29000, (texts, length))
        start = time.perf_counter()
        with self.torch.inference_mode():
            for batch in ids.split(32):
                mean = self.model(input_ids=batch).last_hidden_state.mean(1)
                self.torch.nn.functional.normalize(mean)
        return time.perf_counter() - start


class OnnxRuntime:
    def __init__(self, precision):
        import onnxruntime

        path = os.path.join(WORK, "minilm.onnx")
        if not os.path.exists(path):
            self.export(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def export(self, path):
        import torch

        class Hidden(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = bert().eval()

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


class SentenceTransformers:
    def __init__(self, precision):
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(THREADS)
        self.torch = torch
        dtype = torch.float32 if precision == "f32" else torch.bfloat16
        self.model = SentenceTransformer(FOLDER, device="cpu").to(dtype).eval()

    def seconds(self, texts, length):
        ids = self.torch.randint(1000, 29000, (texts, length))
        start = time.perf_counter()
        with self.torch.inference_mode():
            for batch in ids.split(32):
                self.model({"input_ids": batch, "attention_mask": self.torch.ones_like(batch)})
        return time.perf_counter() - start


PEERS = {"pytorch": PyTorch, "onnxruntime": OnnxRuntime, "sentence-transformers": SentenceTransformers}
peer = PEERS[PEER](PRECISION)
serve(lambda texts, length: peer.seconds(int(texts), int(length)))
