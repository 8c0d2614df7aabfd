#!/usr/bin/env python3
"""Runs the programs of the guides and compares what they print with the output in the guide.

    docs/outputs.py [--update] [--dev] [FILE.md ...]

Without files, all guides. `--update` writes the new output into the guide; `--dev` builds without
optimisation. Programs marked `no_run` (they need a downloaded model) and `ignore` are left out. The
last digits may differ from those of the processor that the guides were written on (AVX-512).
"""
import os
import pathlib
import re
import subprocess
import sys

root = pathlib.Path(__file__).resolve().parent.parent
options = {argument for argument in sys.argv[1:] if argument.startswith("--")}
files = [pathlib.Path(argument) for argument in sys.argv[1:] if argument not in options]
files = files or sorted((root / "docs").glob("*.md"))
target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target")).resolve()

# Every program is a binary of one package below the target folder.
package = target / "guides"
(package / "src/bin").mkdir(parents=True, exist_ok=True)
(package / "Cargo.toml").write_text(
    f'[package]\nname = "guides"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\nloquat = {{ path = "{root}" }}\n'
    'rayon = "1"\nserde_json = "1"\n[workspace]\n', encoding="utf-8")
block = re.compile(r"^```rust\n(.*?)^```\n\n```text\n(.*?)^```\n", re.DOTALL | re.MULTILINE)

different = 0
for path in files:
    text = path.read_text(encoding="utf-8")
    for i, found in enumerate(block.finditer(text)):
        name = f"{path.stem}_{i}"
        (package / "src/bin" / f"{name}.rs").write_text(found[1], encoding="utf-8")
        command = ["cargo", "run", "--quiet", "--manifest-path", package / "Cargo.toml", "--bin", name]
        command += [] if "--dev" in options else ["--release"]
        environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
        printed = subprocess.run(command, cwd=package, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        same = printed.stdout == found[2]
        print(f"{path.name} {i}: {'same' if same else 'different'}")
        if not same:
            different += 1
            print(printed.stdout)
            text = text.replace(found[0], found[0].replace(found[2], printed.stdout))
    if "--update" in options:
        path.write_text(text, encoding="utf-8")
sys.exit(f"{different} outputs differ" if different and "--update" not in options else 0)
