"""Have a teacher answer rows, in this process or over HTTP, and write what a student can learn from.

Every answer is kept as it comes: after a break --resume asks for what is missing, and no more. With a schema
or grammar each answer is checked, asked for again where it is wrong, and rejected with its reason in the end.
The key of a server is read from the environment alone.

Example:

    tinygpt synthesize --teacher http://127.0.0.1:8080/v1 --inputs prompts.jsonl --out labelled.jsonl
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, cell
from tinygpt.runs._synthesize import Config
from tinygpt.runs.synthesize import run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())

    def render() -> None:
        kept = f", {found['kept_from_before']} of them before" if found["kept_from_before"] else ""
        print(f"{found['labelled']} of {found['rows']} rows answered by {found['teacher']}{kept}")
        for reason, n in found["rejected"].items():
            print(f"  {n} rejected: {reason}")
        if found["skipped"]:
            print(f"  {found['skipped']} skipped: they ask nothing")
        print(f"tokens: {cell(found['prompt_tokens'])} read, {cell(found['completion_tokens'])} written")
        if found["cost"] is not None:
            print(f"cost: {cell(found['cost'])}")
        if found["seconds_median"] is not None:
            print(f"seconds: median {cell(found['seconds_median'])}, p95 {cell(found['seconds_p95'])}")
        for name in ("out", "rejects", "card"):
            if found[name]:
                print(f"{name}: {found[name]}")

    out.result(found, render)


main = from_config(Config, call, also={"json_schema": "schema", "adapter": "lora"})
