"""Draws docs/demo.png from the README's excerpt of the demo, so that picture and text agree.

    python scripts/readme_picture.py

The demo draws the same picture of its own figures into out/.
"""

from __future__ import annotations

import re
from pathlib import Path

from lmfusion.demo.comparison import Measurement
from lmfusion.demo.picture import draw

ROOT = Path(__file__).parents[1]
RATE = re.compile(r"^  word error rate (\w+) +([\d.]+)%", re.MULTILINE)
ROW = re.compile(r"^  (.+?)  +(.+?)  +([\d.]+) +([\d,]+) +([\d.]+) x$", re.MULTILINE)


def main() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rates = {name: float(rate) / 100 for name, rate in RATE.findall(text)}
    rows = [Measurement(workload, engine, 0, float(seconds), int(tokens.replace(",", "")), 0.0,
                        float(speed_up))
            for workload, engine, seconds, tokens, speed_up in ROW.findall(text)]
    print(draw(ROOT / "docs" / "demo.png", rates, rows,
               "the README's figures: float32, 2 threads of an AMD EPYC (Zen 5) virtual machine"))


if __name__ == "__main__":
    main()
