"""Best of n: draw several answers, let a verifier choose one, and see what more of them are worth."""

from __future__ import annotations

import functools
import math
from typing import Any

from tinygpt.core import files
from tinygpt.core.config import from_dict
from tinygpt.core.events import Events
from tinygpt.eval.reward._answer import plain
from tinygpt.eval.verifier._candidate import Candidate, Judging, Verify
from tinygpt.runs import _plot
from tinygpt.runs._bon import TOLD, VERIFIERS, Config, cases, point
from tinygpt.runs._local_endpoint import LocalEndpoint


def run(config: Config, events: Events) -> dict[str, Any]:
    """The best answer to each prompt, and with --scan what the best of n is worth for each n. Written to
    --out, too."""
    technique = VERIFIERS.load(config.kind)
    options: list[Any] = []
    if told := TOLD[config.kind]:  # refused before anything is opened
        options = [
            from_dict(
                technique.Config, {to: getattr(config, name) for name, to in told.items()}, config.verifier
            )
        ]
    endpoint = LocalEndpoint.open(config.model, **config.worn, events=events)
    judging = Judging(model=endpoint, open=functools.partial(LocalEndpoint.open, events=None))
    verify: Verify = technique.build(judging, *options)
    asked = cases(config, endpoint.engine, events)
    n = config.most
    written = endpoint.engine.generate_batch([c.ids for c in asked for _ in range(n)], config, events=events)
    found: list[dict[str, Any]] = []
    scored: list[tuple[list[float], list[bool] | None]] = []
    for i, case in enumerate(asked):
        candidates = [Candidate(text=w.text, ids=w.ids) for w in written[i * n : (i + 1) * n]]
        scores = verify(case, candidates)
        right = None
        if case.expected is not None:
            right = [plain(c.text) == plain(case.expected) for c in candidates]
        best = max(range(n), key=lambda k: scores[k])
        scored.append((scores, right))
        row: dict[str, Any] = {"prompt": case.prompt, "best": candidates[best].text, "index": best}
        row["score"] = _finite(scores[best])
        found.append(
            row | ({"solved": right[best]} if right else {}) | {"scores": [_finite(x) for x in scores]}
        )
    result: dict[str, Any] = {
        "model": str(config.model), "verifier": config.verifier, "n": n, "seed": config.seed,
        "temperature": config.temperature, "prompts": len(asked), "not_judged": judging.n_failed,
        "answers": found,
    }  # fmt: skip
    if judging.n_failed:
        events.note(f"{judging.n_failed} answers could not be judged: {judging.last_error}", level="warning")
    if config.scan:
        curve = [point(scored, k) for k in config.counts]
        result["curve"] = [{name: _finite(value) for name, value in p.items()} for p in curve]
        if config.out is not None:
            names = [name for name in ("score", "solved") if all(name in p for p in curve)]
            lines = [(name, [p[name] for p in curve]) for name in names]
            title = f"best of n by {config.verifier}: {config.model.name}"
            if all(math.isfinite(v) for _, values in lines for v in values):
                chart = _plot.svg([p["n"] for p in curve], lines, title=title, x_label="n answers")
                files.write_text(config.out.with_suffix(".svg"), chart)
            else:
                why = "an answer that is empty, or could not be judged, has no score to draw"
                events.note(f"no curve was drawn: {why}", level="warning")
    if config.out is not None:
        files.write_json(config.out, result)
    return result


def _finite(score: float) -> float | None:
    """A score; None for that of an answer which could not be judged."""
    return score if math.isfinite(score) else None
