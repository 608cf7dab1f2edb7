"""The main job's results as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lmfusion.demo.comparison import Measurement


def draw(path: Path, error_rates: Mapping[str, float], rows: Sequence[Measurement],
         caption: str) -> Path:
    """Writes a PNG: word error rates on the left, seconds of every workload and engine right.

    Args:
        error_rates: by name, as fractions.
        caption: printed below.

    Returns:
        `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), width_ratios=(1, 2.4))
    bars = left.bar(list(error_rates), [100 * rate for rate in error_rates.values()],
                    color=["tab:gray", "tab:blue", "tab:cyan", "lightgray"])
    left.bar_label(bars, fmt="%.1f %%")
    left.set_ylabel("word error rate, %")
    left.set_title("lists and lattices, rescored")

    workloads = list(dict.fromkeys(row.workload for row in rows))
    engines = list(dict.fromkeys(row.engine for row in rows))
    width = 0.8 / len(engines)
    for i, engine in enumerate(engines):
        cells = [row for row in rows if row.engine == engine]
        bars = right.bar([workloads.index(row.workload) + (i - (len(engines) - 1) / 2) * width
                          for row in cells], [row.seconds for row in cells], width, label=engine)
        right.bar_label(bars, [f"{row.seconds:.2g} s\n{row.tokens:,}" for row in cells], fontsize=7)
    right.set_xticks(range(len(workloads)), workloads)
    right.set_yscale("log")
    right.margins(y=0.15)
    right.set_ylabel("seconds (log scale)")
    right.set_title("seconds and tokens computed, contexts x words")
    right.legend()
    figure.text(0.01, 0.01, caption, fontsize=8)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
