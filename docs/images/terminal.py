#!/usr/bin/env python3
"""Draws the output of a program as an SVG of a terminal, readable in light and dark mode.

    cargo run --quiet --release --example quickstart 2>&1 | docs/images/terminal.py \
        "cargo run --release --example quickstart" > docs/images/quickstart.svg

The text is drawn as it was printed; lines longer than 88 characters are wrapped.
"""
import sys
import textwrap
from html import escape

COLUMNS, SIZE, LINE, MARGIN, BAR = 88, 14, 20, 18, 34

command = sys.argv[1]
lines = [("prompt", "$ " + command)]
for text in sys.stdin.read().rstrip("\n").split("\n"):
    kind = "dim" if text.startswith(("step", "saved")) else "text"
    lines += [(kind, part) for part in textwrap.wrap(text, COLUMNS) or [""]]

width = round(COLUMNS * SIZE * 0.602) + 2 * MARGIN
height = BAR + len(lines) * LINE + MARGIN
print(f'''<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" \
height="{height}" role="img" aria-label="Output of {escape(command, quote=True)}">
<style>
  .window {{ fill: #f6f8fa; stroke: #d0d7de }} .dot {{ fill: #d0d7de }}
  text {{ font: {SIZE}px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }}
  .text {{ fill: #1f2328 }} .dim {{ fill: #59636e }} .prompt {{ fill: #0550ae; font-weight: 600 }}
  @media (prefers-color-scheme: dark) {{
    .window {{ fill: #0d1117; stroke: #3d444d }} .dot {{ fill: #3d444d }}
    .text {{ fill: #e6edf3 }} .dim {{ fill: #9198a1 }} .prompt {{ fill: #79c0ff }}
  }}
</style>
<rect class="window" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>''')
for i in range(3):
    print(f'<circle class="dot" cx="{MARGIN + 5 + 18 * i}" cy="17" r="5"/>')
for i, (kind, text) in enumerate(lines):
    if text:
        print(f'<text class="{kind}" x="{MARGIN}" y="{BAR + (i + 1) * LINE - 6}" xml:space="preserve">{escape(text)}</text>')
print("</svg>")
