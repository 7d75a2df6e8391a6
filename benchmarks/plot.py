"""The plot: what a token costs per viewer, by shape and sender. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.results import Bar

# The same figures give the same file.
mpl.rcParams["svg.hashsalt"] = "bridge"
mpl.rcParams["svg.fonttype"] = "none"


def draw(bars: Sequence[Bar], title: str, file: Path) -> None:
    """Groups of bars with a logarithmic scale: the slowest takes many times what the fastest does."""
    groups, names = list(dict.fromkeys(b.group for b in bars)), list(dict.fromkeys(b.name for b in bars))
    width = 0.8 / len(names)
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for place, name in enumerate(names):
        found = {bar.group: bar.micros for bar in bars if bar.name == name}
        at = [number + (place - (len(names) - 1) / 2) * width for number, _ in enumerate(groups)]
        drawn = axes.bar(at, [found.get(group, 0) for group in groups], width, label=name)
        axes.bar_label(
            drawn, [f"{found[g]:.1f}" if g in found else "" for g in groups], padding=2, fontsize=8
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    # A logarithmic scale has no zero to stand on; one for all runs lets pictures be compared.
    axes.set_ylim(bottom=min(1.0, *(bar.micros for bar in bars)))
    axes.set_ylabel("sender's CPU per token and viewer, µs")
    axes.set_xticks(range(len(groups)), groups)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False, fontsize=8)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
