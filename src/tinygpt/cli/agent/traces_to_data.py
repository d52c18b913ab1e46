"""Make rows for sft, dpo or kto of what agents and servers recorded: whole conversations, with their tools.

Read are .atraj files, spans of OpenTelemetry (OTLP as JSON, or a span a line) and logs of OpenAI's form. Left
out are failed runs, turns that were none, refused calls, echoes and duplicates; each stage is counted.

Example:

    tinygpt traces-to-data traces/ --out rows.jsonl --success-only
    tinygpt traces-to-data traces/ --out pairs.jsonl --mode dpo --by state
    tinygpt traces-to-data traces/ --out tokens.jsonl --token-exact
    tinygpt traces-to-data proxy.jsonl --out rows.jsonl --judge-model http://127.0.0.1:8080/v1 \
--min-reward judge=7
"""

from __future__ import annotations

from tinygpt.cli._data import stages
from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.data.traces._values import FORMATS
from tinygpt.runs._traces_settings import JUDGE, OUTCOMES, SUCCESS
from tinygpt.runs.traces_to_data import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())

    def render() -> None:
        stages(found["stages"])
        if found["left_out"]:
            told = ", ".join(f"{n:,} {what}" for what, n in found["left_out"].items())
            print(f"left out of conversations: {told}")
        if found["dry_run"]:
            print(f"{found['rows']:,} rows would be written")
        else:
            print(f"{found['rows']:,} rows in {found['out']}, their card: {found['card']}")

    out.result(found, render)


main = from_config(
    Config,
    call,
    arguments=["paths"],
    choices={"format": ("auto", *FORMATS.names()), "outcome": OUTCOMES, "by": (JUDGE, SUCCESS)},
    needs={"judge_name": "judge_model", "judge_seconds": "judge_model"},
)
