"""Models of one shape with random weights in other programs, the counterparts of benches/decode.rs.

    python decode.py THREADS PEER MODEL WEIGHTS WORK      reads `decode|prefill tokens`

PEER: transformers, llama.cpp or ctranslate2. Files of the models are written to WORK. The answer is
in seconds per token: `decode` is greedy after a prompt of 32 tokens, `prefill` computes the logits
of the last token.
"""

import os
import sys
import time

from server import serve

THREADS, PEER, MODEL, WEIGHTS, WORK = int(sys.argv[1]), *sys.argv[2:6]
PROMPT = 32
SHAPES = {"llama-110m": (768, 12, 2048, 12), "llama-1b": (2048, 22, 5632, 32)}
VOCAB = 32000


def prompt(tokens):
    return [5 + 17 * i % 31000 for i in range(tokens)]


class Transformers:
    def __init__(self, name, weights):
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

        # It has no fast path for f16 on a processor: our f16 is compared with its bf16.
        dtype = torch.float32 if weights == "f32" else torch.bfloat16
        torch.set_num_threads(THREADS)
        torch.set_grad_enabled(False)
        torch.manual_seed(1)
        self.torch = torch
        if name == "gpt2-124m":
            model = GPT2LMHeadModel(GPT2Config())
        else:
            torch.set_default_dtype(dtype)
            model = LlamaForCausalLM(llama_config(name))
            torch.set_default_dtype(torch.float32)
        self.model = model.to(dtype).eval()

    def decode(self, tokens):
        ids = self.torch.tensor([prompt(PROMPT)])
        out = self.model(ids, use_cache=True, logits_to_keep=1)
        ids = out.logits[:, -1:].argmax(-1)
        start = time.perf_counter()
        for _ in range(tokens):
            out = self.model(ids, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
            ids = out.logits[:, -1:].argmax(-1)
        return (time.perf_counter() - start) / tokens

    def prefill(self, tokens):
        ids = self.torch.tensor([prompt(tokens)])
        start = time.perf_counter()
        self.model(ids, use_cache=True, logits_to_keep=1).logits.argmax(-1)
        return (time.perf_counter() - start) / tokens


def llama_config(name):
    from transformers import LlamaConfig

    width, layers, inner, heads = SHAPES[name]
    return LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )


def gguf_file(name, weights):
    """A GGUF file of that shape, with random weights that keep the activations finite."""
    path = os.path.join(WORK, f"{name}-{weights}.gguf")
    if os.path.exists(path):
        return path
    import gguf
    import numpy as np

    width, layers, inner, heads = SHAPES[name]
    kv = 4 * (width // heads)
    w = gguf.GGUFWriter(path + ".part", "llama")
    w.add_context_length(2048)
    w.add_embedding_length(width)
    w.add_block_count(layers)
    w.add_feed_forward_length(inner)
    w.add_head_count(heads)
    w.add_head_count_kv(4)
    w.add_rope_dimension_count(width // heads)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(10000.0)
    w.add_vocab_size(VOCAB)
    w.add_file_type(0 if weights == "f32" else 1)
    w.add_tokenizer_model("llama")
    tokens = [b"<unk>", b"<s>", b"</s>"] + [f"<0x{i:02X}>".encode() for i in range(256)]
    types = [2, 3, 3] + [6] * 256
    tokens += [f"\u2581t{i}".encode() for i in range(len(tokens), VOCAB)]
    w.add_token_list(tokens)
    w.add_token_scores([-float(i) for i in range(VOCAB)])
    w.add_token_types(types + [1] * (VOCAB - len(types)))
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    random = np.random.default_rng(1)

    def matrix(key, rows, cols):
        x = random.standard_normal((rows, cols), dtype=np.float32) * 0.02
        w.add_tensor(key + ".weight", x if weights == "f32" else x.astype(np.float16))

    def norm(key):
        w.add_tensor(key + ".weight", np.ones(width, dtype=np.float32))

    matrix("token_embd", VOCAB, width)
    norm("output_norm")
    matrix("output", VOCAB, width)
    for i in range(layers):
        norm(f"blk.{i}.attn_norm")
        norm(f"blk.{i}.ffn_norm")
        for key, rows, cols in [
            ("attn_q", width, width),
            ("attn_k", kv, width),
            ("attn_v", kv, width),
            ("attn_output", width, width),
            ("ffn_gate", inner, width),
            ("ffn_up", inner, width),
            ("ffn_down", width, inner),
        ]:
            matrix(f"blk.{i}.{key}", rows, cols)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    os.rename(path + ".part", path)
    return path


class LlamaCpp:
    """llama-cpp-python's library, built with its defaults for the processor of the build machine."""

    def __init__(self, name, weights):
        import ctypes

        import llama_cpp as l
        import numpy as np

        self.l, self.np = l, np
        # It logs every tensor.
        self.silent = l.llama_log_callback(lambda level, text, data: None)
        l.llama_log_set(self.silent, ctypes.c_void_p(0))
        l.llama_backend_init()
        self.model = l.llama_model_load_from_file(gguf_file(name, weights).encode(), l.llama_model_default_params())
        params = l.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 1024, 512, 512
        params.n_threads = params.n_threads_batch = THREADS
        self.context = l.llama_init_from_model(self.model, params)

    def step(self, ids):
        array = (self.l.llama_token * len(ids))(*ids)
        assert self.l.llama_decode(self.context, self.l.llama_batch_get_one(array, len(ids))) == 0
        logits = self.l.llama_get_logits_ith(self.context, -1)
        return int(self.np.ctypeslib.as_array(logits, shape=(VOCAB,)).argmax())

    def decode(self, tokens):
        self.l.llama_memory_clear(self.l.llama_get_memory(self.context), True)
        token = self.step(prompt(PROMPT))
        start = time.perf_counter()
        for _ in range(tokens):
            token = self.step([token])
        return (time.perf_counter() - start) / tokens

    def prefill(self, tokens):
        self.l.llama_memory_clear(self.l.llama_get_memory(self.context), True)
        start = time.perf_counter()
        self.step(prompt(tokens))
        return (time.perf_counter() - start) / tokens


class CTranslate2:
    """A checkpoint converted from transformers'; on this processor it multiplies in f32 or int8."""

    def __init__(self, name, weights):
        import ctranslate2
        import ctranslate2.converters
        import torch
        from tokenizers import Tokenizer, models
        from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedTokenizerFast

        folder = os.path.join(WORK, f"{name}-ct2")
        if not os.path.exists(folder):
            source = folder + "-source"
            torch.manual_seed(1)
            model = GPT2LMHeadModel(GPT2Config()) if name == "gpt2-124m" else LlamaForCausalLM(llama_config(name))
            model.save_pretrained(source)
            words = {f"w{i}": i for i in range(model.config.vocab_size)}
            tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
            names = {"bos_token": "w1", "eos_token": "w2", "unk_token": "w0"}
            PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(source)
            ctranslate2.converters.TransformersConverter(source).convert(folder, quantization="float32")
        self.model = ctranslate2.Generator(
            folder, device="cpu", compute_type="float32", intra_threads=THREADS, inter_threads=1
        )

    def run(self, prompt_len, new):
        words = [f"w{i}" for i in prompt(prompt_len)]
        start = time.perf_counter()
        self.model.generate_batch(
            [words], max_length=new, min_length=new, sampling_topk=1, include_prompt_in_result=False, end_token=[]
        )
        return time.perf_counter() - start

    def decode(self, tokens):
        return (self.run(PROMPT, tokens + 1) - self.run(PROMPT, 1)) / tokens

    def prefill(self, tokens):
        return self.run(tokens, 1) / tokens


PEERS = {"transformers": Transformers, "llama.cpp": LlamaCpp, "ctranslate2": CTranslate2}
peer = PEERS[PEER](MODEL, WEIGHTS)
serve(lambda what, tokens: getattr(peer, what)(int(tokens)))
