"""Judge a model against a baseline, so that a build fails when it got worse.

Exit code 0: it passed, 1: it fell, 2: that cannot be said. Suites are programs or suites of tinygpt; a fall
counts when it is larger than the threshold and no noise. Rows that are missing, have fewer examples, other
data or failed answers are no pass.

Example:

    tinygpt eval-gate --spec eval-gate.json --update-baseline
    tinygpt eval-gate --spec eval-gate.json --summary gate.md --junit gate.xml
    tinygpt eval-gate --candidate new.jsonl --baseline old.jsonl --threshold 3
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, line, table
from tinygpt.core.errors import DataError, GateFailed
from tinygpt.eval.gate.report import HEAD, lines, problems, result
from tinygpt.runs.gate import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())

    def render() -> None:
        table(HEAD, lines(found))
        for text in problems(found):
            line(text)
        if found.exit_code == 0:
            line(found.sentence)

    out.result(result(found), render)
    if found.exit_code == 1:
        raise GateFailed(found.sentence, hint=f"{config.out} says what fell")
    if found.exit_code:
        raise DataError(found.sentence, hint=f"{config.out} says what is wrong")


main = from_config(Config, call)
