"""What a classifier's report looks like in a terminal."""

from __future__ import annotations

from typing import Any

from tinygpt.cli._render import Output, table


def told(found: dict[str, Any], out: Output) -> None:
    """The report of a classifier that was just trained."""

    def show() -> None:
        lines = [
            (name, found["learned_from"][name], c["rows"], c["precision"], c["recall"], c["f1"])
            for name, c in found["classes"].items()
        ]
        table(["class", "learned from", "held out", "precision", "recall", "F1"], lines)
        names = list(found["classes"])
        crossed = [(name, *row) for name, row in zip(names, found["confusion"], strict=True)]
        table(["is \\ taken for", *names], crossed)
        parts = {"macro-F1": "macro_f1", "accuracy": "accuracy", "calibration error": "ece"}
        print(", ".join(f"{label} {found[name]:.3f}" for label, name in parts.items()))
        print(f"wrote {found['out']} (report.json, calibration.png)")

    out.result(found, show)
