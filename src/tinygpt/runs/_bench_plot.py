"""A picture of a benchmark: throughput and delays over how many streams there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygpt.core import files
from tinygpt.core.errors import DependencyError

KINDS = (".png", ".svg", ".pdf")  # what a picture may be named
PANELS = (
    ("tok_s", "tokens a second, prompts not counted"),
    ("ttft_ms_p50", "first token, ms (bar: p99)"),
    ("itl_ms_p50", "between tokens, ms (bar: p99)"),
)


def draw(path: Path, settings: Sequence[dict[str, Any]], *, by: str, title: str) -> None:
    """Write the picture; its kind is the suffix's: .png, .svg or .pdf."""
    pyplot = plotter()
    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(5 * len(PANELS), 4), layout="constrained")
    for panel, (name, label) in zip(panels, PANELS, strict=True):
        for length in dict.fromkeys(one["prompt_tokens"] for one in settings):
            shown = [one for one in settings if one["prompt_tokens"] == length and name in one]
            x, y = [one[by] for one in shown], [one[name] for one in shown]
            worst = [one.get(name.replace("p50", "p99"), one[name]) for one in shown]
            above = [max(0.0, w - v) for v, w in zip(y, worst, strict=True)]
            spread = [[0.0] * len(y), above] if "p50" in name else None
            panel.errorbar(x, y, yerr=spread, marker="o", capsize=3, label=f"prompts of {length}")
        panel.set_xticks(sorted({one[by] for one in settings}))
        panel.set_ylim(0, 1.05 * panel.get_ylim()[1])
        panel.set(xlabel=by.replace("_", " "), title=label)
        panel.legend()
    figure.suptitle(title)
    write(pyplot, figure, path)


def plotter() -> Any:
    """matplotlib's pyplot, which draws to files alone."""
    try:
        import matplotlib  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DependencyError("matplotlib", "plot", "--plot") from error
    matplotlib.use("agg")
    import matplotlib.pyplot as pyplot  # pyright: ignore[reportMissingImports]

    return pyplot


def write(pyplot: Any, figure: Any, path: Path) -> None:
    """The picture as a file, of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path)
    except OSError as error:
        raise files.unwritable(path, error) from error
    finally:
        pyplot.close(figure)
