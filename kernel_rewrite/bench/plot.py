"""A bar chart of times, as SVG, PNG or whatever the file's suffix says; needs matplotlib, which nothing else does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class MissingPlotting(Exception):
    """matplotlib is not installed; the message says how to install it."""


def save_bars(path: Path, groups: Mapping[str, Mapping[str, float]], *, title: str, axis: str) -> None:
    """Write a chart with one group of horizontal bars for each entry of `groups`: {group: {bar: length}}.

    The same bar has the same colour in every group. Raises MissingPlotting without matplotlib, and ValueError for a suffix
    that it does not write.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPlotting("matplotlib is not installed: `pip install 'kernel-rewrite[plot]'`") from None
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    height = 0.8 / max(1, len(names))
    figure = Figure(figsize=(9, 1.2 + 0.22 * len(names) * len(groups)), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(names):
        at = [group + place * height for group, bars in enumerate(groups.values()) if name in bars]
        lengths = [bars[name] for bars in groups.values() if name in bars]
        drawn = axes.barh(at, lengths, height=height, label=name, align="edge")
        axes.bar_label(drawn, fmt="%.3g", fontsize=7, padding=2)
    axes.set_yticks([group + 0.4 for group in range(len(groups))], list(groups), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(axis)
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="best", fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
