#!/usr/bin/env python3
"""Opens folders that loquat wrote in other programs, and compares.

    python benches/peers/open_in_transformers.py DIR PROMPT [path of the generate binary]

for a folder of `train_gpt --arch gpt`: compares the greedy text of `transformers` with ours.

    LOQUAT_SAVED=DIR LOQUAT_MINILM=MODEL cargo test --test saved_folders -- --ignored
    python benches/peers/open_in_transformers.py --saved DIR

for every architecture and head: compares with what `transformers` computed before
(`tests/fixtures`); with `sentence-transformers` installed, also its vectors with ours. Needs torch,
transformers, tokenizers.
"""
import json
import pathlib
import subprocess
import sys

import torch


def same_greedy_text(folder, prompt, binary="target/release/examples/generate"):
    from transformers import GPT2LMHeadModel

    command = [binary, "--model", folder, "--prompt", prompt, "--greedy", "--max-new-tokens", "50", "--json"]
    ours = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    with torch.no_grad():
        out = model.generate(
            torch.tensor([ours["prompt_ids"]]), max_new_tokens=50, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    theirs = out[0, len(ours["prompt_ids"]) :].tolist()
    print("ours  ", ours["ids"])
    print("theirs", theirs)
    print("same 50 tokens" if ours["ids"] == theirs else "DIFFERENT")
    return ours["ids"] == theirs


def same_outputs(saved):
    import transformers as hf
    from safetensors.torch import load_file

    fixtures = pathlib.Path(__file__).parents[2] / "tests" / "fixtures"
    worst = {}
    # Keys that transformers expects and we do not write: the bias of an untied last layer; the
    # pooler of a body.
    unread = dict(untied=("lm_head.bias", "predictions.bias"), long=("pooler.dense.weight", "pooler.dense.bias"))

    def compare(name, ours, theirs, mask=None):
        assert ours.shape == theirs.shape, name
        difference = (ours - theirs).abs()
        if mask is not None:
            difference = difference[mask == 1]
        worst[name] = max(worst.get(name, 0.0), difference.max().item())

    def opened(auto, folder):
        model, report = auto.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
        missing = {key for key in report["missing_keys"] if not key.endswith(unread.get(folder.name, ()))}
        assert not missing and not report["unexpected_keys"], (folder, report)
        return model.eval()

    for name, index, tensors in [("gpt2", "options.json", "options"), ("llama", "cases.json", "expected")]:
        expected = load_file(fixtures / name / f"{tensors}.safetensors")
        for case, given in json.loads((fixtures / name / index).read_text()).items():
            model = opened(hf.AutoModelForCausalLM, saved / name / case)
            mask = torch.tensor(given["attention_mask"])
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            with torch.no_grad():
                logits = model(torch.tensor(given["input_ids"]), attention_mask=mask, position_ids=positions).logits
            compare(f"{name}: {case}", logits[mask == 1], expected[f"{case}/logits"])

    classes = dict(Model="", untied="ForMaskedLM", long="")
    for folder in sorted((saved / "encoders").glob("*/*")):
        head = classes.get(folder.name, folder.name)
        model = opened(getattr(hf, "AutoModel" + head), folder)
        expected = load_file(fixtures / folder.relative_to(saved) / "expected.safetensors")
        batch = {k: expected[k].long() for k in ("input_ids", "attention_mask", "token_type_ids") if k in expected}
        with torch.no_grad():
            result = model(**batch)
        # The output of padding is not specified, nor the pooled output of a sequence that begins
        # with padding.
        mask = batch.get("attention_mask")
        for key in ("last_hidden_state", "logits", "start_logits", "end_logits"):
            if key in expected:
                by_token = mask if mask is None or expected[key].shape[:2] == mask.shape else mask[:, 0]
                compare(str(folder.relative_to(saved)), result[key], expected[key], by_token)

    folder = saved / "sentence-transformers"
    if folder.exists():
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            print("sentence-transformers is not installed")
        else:
            given = json.loads((folder / "expected.json").read_text())
            vectors = SentenceTransformer(str(folder), device="cpu").encode(given["texts"], convert_to_tensor=True)
            compare("sentence-transformers: all-MiniLM-L6-v2", torch.tensor(given["vectors"]), vectors)
    for name, difference in worst.items():
        print(f"{difference:8.1e}  {name}")
    print(f"{len(worst)} folders, worst difference {max(worst.values()):.1e}")
    return max(worst.values()) <= 1e-4


if __name__ == "__main__":
    if sys.argv[1] == "--saved":
        sys.exit(not same_outputs(pathlib.Path(sys.argv[2])))
    sys.exit(not same_greedy_text(*sys.argv[1:4]))
