"""What a gate found, as gate-result.json, a Markdown summary for a pull request, and JUnit XML."""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygpt.eval.gate.evidence import Key
from tinygpt.eval.gate.verdict import BROKEN, FAIL, MISSING, NEW, SIGNS, Judged, stderr

HEAD = ["suite", "score", "baseline", "candidate", "change", "95 % interval", "p", "n", "verdict"]
MARKS = {"pass": "✅", FAIL: "❌", MISSING: "⚠️", BROKEN: "⚠️", NEW: "🆕"}
SUMMARY_MARKS = ("✅", "❌", "⚠️")  # by exit code
SHOWN = 20  # ids of examples that changed
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")  # what XML 1.0 cannot hold


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a suite took: seconds of all its passes, and the most memory of its processes (MiB)."""

    seconds: float = 0.0
    peak_mb: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(seconds=self.seconds + other.seconds, peak_mb=max(self.peak_mb, other.peak_mb))


@dataclass(frozen=True, kw_only=True)
class Found:
    """All that a gate found. `problems` are (suite, what): why it cannot be judged; "" is the gate itself."""

    judged: Sequence[Judged] = ()
    problems: Sequence[tuple[str, str]] = ()
    protocol: dict[str, Any] = field(default_factory=dict[str, Any])
    contamination: dict[str, Any] = field(default_factory=dict[str, Any])
    spent: dict[str, Spent] = field(default_factory=dict[str, Spent])
    """What each suite took, where the gate ran it."""
    notes: Sequence[str] = ()

    def count(self, verdict: str) -> int:
        return sum(one.verdict == verdict for one in self.judged)

    @property
    def broken(self) -> bool:
        """Whether something could not be judged, so that nothing can be said of the whole."""
        return bool(self.problems) or bool(self.count(MISSING) + self.count(BROKEN)) or not self.judged

    @property
    def exit_code(self) -> int:
        """2 where the gate is broken, even where something fell too; 1 where something fell."""
        return 2 if self.broken else 1 if self.count(FAIL) else 0

    @property
    def sentence(self) -> str:
        counts = [(FAIL, "fell"), (MISSING, "missing"), (BROKEN, "cannot be judged"), (NEW, "new")]
        told = [f"{n} {what}" for verdict, what in counts if (n := self.count(verdict))]
        told += [f"{len(self.problems)} problems" if len(self.problems) > 1 else "a problem"] * bool(
            self.problems
        )
        of = f"{len(self.judged)} score{'s' if len(self.judged) != 1 else ''}"
        how = ("passed", "not passed: regressed", "not passed: the gate is broken")[self.exit_code]
        return f"{how} ({', '.join([of, *told])})"


def result(found: Found) -> dict[str, Any]:
    """gate-result.json: the original's keys, and more."""
    return {
        "suites": [_suite(one) for one in found.judged],
        "passed": found.exit_code == 0,
        "exitCode": found.exit_code,
        "failedCount": found.count(FAIL),
        "missingCount": found.count(MISSING),
        "brokenCount": found.count(BROKEN),
        "problems": [{"suite": suite or None, "what": what} for suite, what in found.problems],
        "spent": {
            name: {"seconds": round(one.seconds, 3), "peakMb": round(one.peak_mb, 1)}
            for name, one in found.spent.items()
        },
        "protocol": found.protocol,
        "contamination": found.contamination,
        "notes": list(found.notes),
    }


def _suite(one: Judged) -> dict[str, Any]:
    points = one.unit == "pp"
    told: dict[str, Any] = {
        "name": one.name, "task": one.key.task, "subtask": one.key.subtask or None, "metric": one.key.metric,
        "direction": "lowerIsBetter" if one.lower else "higherIsBetter",
        "baselineScore": one.baseline, "candidateScore": one.candidate,
        "nBaseline": one.n_baseline, "nCandidate": one.n,
        "deltaPP": one.delta if points else None, "thresholdPP": one.threshold if points else None,
        "unit": one.unit or None, "delta": one.delta, "threshold": one.threshold if one.unit else None,
        "verdict": one.verdict, "why": one.why or None, "notes": list(one.notes),
    }  # fmt: skip
    if len(one.trials) > 1:
        mean, error = statistics.fmean(one.trials), stderr(one.trials)
        told["candidateStats"] = {
            "n": len(one.trials), "trialScores": list(one.trials), "mean": mean,
            "stdev": statistics.stdev(one.trials), "stderr": error,
            "ci95Low": mean - 1.96 * error, "ci95High": mean + 1.96 * error,
        }  # fmt: skip
    if one.change is not None:
        names = {"p_fall": "pFall", "p_rise": "pRise"}
        told["change"] = {names.get(k, k): v for k, v in dataclasses.asdict(one.change).items()}
    if one.lost or one.won:
        told["lost"], told["won"] = ({"n": len(ids), "ids": list(ids[:SHOWN])} for ids in (one.lost, one.won))
    return told


def label(key: Key) -> str:
    """A score's name for people."""
    return f"{key.task}/{key.subtask} {key.metric}" if key.subtask else f"{key.task} {key.metric}"


def lines(found: Found) -> list[list[str]]:
    """The cells under HEAD."""
    body = []
    for one in found.judged:
        sign = SIGNS.get(one.unit, "")
        change = "-" if one.delta is None else f"{one.delta:+.2f}{sign} (at least {-one.threshold:g}{sign})"
        known = one.change is not None and one.change.low is not None
        spread = f"{one.change.low:+.3f} to {one.change.high:+.3f}" if known and one.change else "-"
        p = "-" if one.change is None or one.change.p_fall is None else f"{one.change.p_fall:.2g}"
        scores = ["-" if score is None else f"{score:.4g}" for score in (one.baseline, one.candidate)]
        better = " (lower is better)" if one.lower else ""
        body.append(
            [one.name, label(one.key) + better, *scores, change, spread, p, str(one.n), _verdict(one)]
        )
    return body


def _verdict(one: Judged) -> str:
    return ": ".join(filter(None, (one.verdict, one.why))) + "".join(f"; {note}" for note in one.notes)


def problems(found: Found) -> list[str]:
    """The problems and notes as sentences."""
    told = [f"problem: {f'{suite}: ' if suite else ''}{what}" for suite, what in found.problems]
    return told + [f"note: {note}" for note in found.notes]


def markdown(found: Found) -> str:
    """A summary for a pull request."""
    mark = SUMMARY_MARKS[found.exit_code]
    parts = [f"## {mark} Eval gate: {found.sentence}", ""]
    if found.judged:
        rows = [HEAD, ["---"] * len(HEAD)]
        for one, cells in zip(found.judged, lines(found)):
            rows.append([*cells[:-1], f"{MARKS[one.verdict]} {cells[-1]}"])
        parts += [f"| {' | '.join(map(_cell, row))} |" for row in rows] + [""]
    parts += [f"- {_plain(text)}" for text in problems(found)]
    for one in found.judged:
        if one.verdict == FAIL and one.lost:
            more = f" and {len(one.lost) - SHOWN} more" if len(one.lost) > SHOWN else ""
            parts.append(f"- {_plain(label(one.key))} lost: {_plain(', '.join(one.lost[:SHOWN]))}{more}")
    for suite, told in found.contamination.items():
        parts.append(
            f"- {_plain(suite)}: {told['seen']} of {told['examples']} examples are in the training data"
        )
    parts += ["", "p: the chance of such a fall where nothing changed; a positive change is better."]
    return "\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Text of a model or a harness, so that it makes no Markdown or HTML of its own."""
    return re.sub(r"([\\`*\[\]<>])", r"\\\1", " ".join(text.split()))


def junit(found: Found) -> str:
    """One test suite for each suite, one case for each score; a fall is a failure, what cannot be judged an
    error."""
    from xml.etree import ElementTree as tree

    root = tree.Element("testsuites")
    names = dict.fromkeys([*(one.name for one in found.judged), *(suite for suite, _ in found.problems)])
    for name in names or {"": None}:
        mine = [one for one in found.judged if one.name == name]
        bad = [what for suite, what in found.problems if suite == name]
        if not found.judged and not found.problems:
            bad = ["nothing was gated"]
        errors = len(bad) + sum(one.verdict in (MISSING, BROKEN) for one in mine)
        fell = sum(one.verdict == FAIL for one in mine)
        seconds = found.spent.get(name, Spent()).seconds
        element = tree.SubElement(root, "testsuite", _attributes(
            name=name or "eval-gate", tests=len(mine) + len(bad), failures=fell,
            errors=errors, skipped=0, time=f"{seconds:.3f}",
        ))  # fmt: skip
        for one in mine:
            case = tree.SubElement(
                element, "testcase", _attributes(classname=one.name, name=label(one.key), time="0")
            )
            told = " | ".join(f"{h}: {c}" for h, c in zip(HEAD, lines(Found(judged=[one]))[0]))
            if one.verdict in (FAIL, MISSING, BROKEN):
                kind = "failure" if one.verdict == FAIL else "error"
                bad_one = tree.SubElement(case, kind, _attributes(message=_verdict(one), type=one.verdict))
                bad_one.text = CONTROL.sub("?", told)
            else:
                tree.SubElement(case, "system-out").text = CONTROL.sub("?", told)
        for i, what in enumerate(bad):
            case = tree.SubElement(
                element,
                "testcase",
                _attributes(classname=name or "eval-gate", name=f"problem {i + 1}", time="0"),
            )
            tree.SubElement(case, "error", _attributes(message=what, type="problem"))
    tree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tree.tostring(root, encoding="unicode") + "\n"


def _attributes(**values: Any) -> dict[str, str]:
    return {name: CONTROL.sub("?", str(value)) for name, value in values.items()}
