"""Write docs/cli.md, techniques.md, events.md, checkpoint.md and eval-row.schema.json from the code.

python scripts/docs.py            write the pages                                     (make docs)
python scripts/docs.py --check    exit 1 when a page is not what the code says
"""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import row_schema

ROOT = Path(__file__).resolve().parent.parent
SEEN = ROOT / "tests/contract/seen.json"  # written by the run of the contract tests that comes before
CLI_INTRODUCTION = (
    "`tinygpt COMMAND --help` shows the same. Results go to stdout, progress to stderr. Exit codes: 0 yes,",
    "1 the answer is no, 2 usage or an expected error, 70 a bug, 130 interrupted.",
    "",
)
EVENTS_INTRODUCTION = (
    "A run writes `events.jsonl`, one JSON object a line. Every line has `v` (version), `t` (seconds since",
    "1970) and `kind`; the rest depends on the kind. Numbers that JSON cannot hold (NaN, infinity) are null.",
    "`progress` is shown, not written.",
)
MADE = "<!-- Made by `make docs`: edit the code, not this page. -->\n\n"


def cli() -> str:
    """Every command: its help text, usage, arguments and options."""
    from tinygpt.cli._root import HEADINGS

    lines = ["# Commands", "", *CLI_INTRODUCTION]
    found = parsed()
    for heading, title in HEADINGS.items():
        names = [n for n, (file, _) in found.items() if file.heading == heading]
        if not names:
            continue
        lines += [f"## {title}", ""]
        for name in names:
            lines += command_page(name, *found[name])
    return MADE + "\n".join(lines)


def parsed() -> dict[str, tuple[Any, Any]]:
    """(file, parsed command) of every command by name."""
    import typer.main

    from tinygpt.cli import _root

    files = _root.commands()
    group: Any = typer.main.get_command(_root.build(*files))
    return {name: (file, group.commands[name]) for name, file in files.items()}


def command_page(name: str, file: Any, command: Any) -> list[str]:
    import typer

    text = ast.get_docstring(ast.parse(file.path.read_text(encoding="utf-8"))) or ""
    context = typer.Context(command, info_name=f"tinygpt {name}")
    lines = [f"### tinygpt {name}", "", *docstring(text), ""]
    rows: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None:
            rows[parameter.param_type_name].append(record)
    for kind, records in rows.items():
        if records:
            lines += table([kind, "meaning"], [(f"`{a}`", b) for a, b in records])
    return lines


def docstring(text: str) -> list[str]:
    """A docstring as Markdown: indented blocks become fenced code."""
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        code = line.startswith("    ")
        if line.strip() and code != fenced:
            lines.append("```")
            if fenced:
                lines.append("")
            fenced = code
        lines.append(line[4:] if code else line)
    text = "\n".join(lines) + ("\n```" if fenced else "")
    return re.sub(r"\n+\n```\n\n", "\n```\n\n", text).splitlines()


def table(columns: list[str], rows: list[tuple[str, ...]]) -> list[str]:
    """A Markdown table, with its blank line after it."""

    def line(cells: Any) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ").strip() for c in cells) + " |"

    return [line(columns), "|" + "---|" * len(columns), *map(line, rows), ""]


def techniques() -> str:
    """Every family as a table, then every technique with its knobs."""
    from tinygpt.runs import explain

    lines = ["# Techniques", "", "One file each; `tinygpt explain NAME` shows a page of it.", ""]
    for kind in explain.KINDS:
        family = kind.family
        lines += [f"## {kind.name}", "", family_line(kind), ""]
        all_of = [explain.technique(kind, name) for name in family.names()]
        rows = [(f"[{t['name']}](../{t['file']})", t["summary"], t["paper"]) for t in all_of]
        lines += table(["technique", "what", "paper"], rows)
        for t in all_of:
            if t["knobs"]:
                lines += [f"Knobs of `{t['name']}`:", ""]
                rows = [
                    (f"`{k['name']}`", k["type"], f"`{shown(k['default'])}`", k["help"]) for k in t["knobs"]
                ]
                lines += table(["knob", "type", "default", "meaning"], rows)
        lines += claims(family.kind, family.names())
    return MADE + "\n".join(lines)


def claims(family: str, names: Sequence[str]) -> list[str]:
    """What the contract tests saw of each technique of a family, as the last `make docs` kept it."""
    seen = json.loads(SEEN.read_text(encoding="utf-8")).get(family)
    if not seen:
        return []
    told = [name for name in names if any(name in of for of in seen.values())]
    rows = [(claim, *(str(of.get(name, "")) for name in told)) for claim, of in seen.items()]
    return ["What the tests saw: in how many settings each claim held.", "", *table(["claim", *told], rows)]


def family_line(kind: Any) -> str:
    choose = kind.choose("NAME")
    return f"{kind.title}. Verb `{kind.verb}`" + (f"; chosen with `{choose}`." if choose else ".")


def shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def events() -> str:
    """Every kind of event with its fields."""
    from tinygpt.core import events as ev

    base = {f"`{name}`" for name in ("v", "t", "kind")}
    lines = ["# Events", "", *EVENTS_INTRODUCTION, f"The version is {ev.VERSION}.", ""]
    for kind, cls in ev.KINDS.items():
        lines += [f"## {kind}", "", (cls.__doc__ or "").strip(), ""]
        rows = [(f"`{f.name}`", str(f.type).replace("|", "or")) for f in dataclasses.fields(cls)]
        assert base.isdisjoint(r[0] for r in rows), f"{kind} redefines a field of every line"
        lines += table(["field", "type"], rows)
    return MADE + "\n".join(lines)


def checkpoint() -> str:
    """The directory as a nano model really writes it, and every sentence that says how one can be wrong."""
    from tinygpt.core.backend import mx
    from tinygpt.model import checkpoint as ck
    from tinygpt.model.config import ModelConfig
    from tinygpt.model.lm import LM

    sizes = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    with tempfile.TemporaryDirectory() as scratch:
        folder = ck.save(
            Path(scratch) / "out.tinygpt", LM(ModelConfig(**sizes)),
            state={"step": 1}, optimizer={"m": mx.zeros((1,))}, run={"command": "train"},
        )  # fmt: skip
        names = sorted(p.name for p in folder.iterdir())
        config = json.loads((folder / "config.json").read_text())
        manifest = json.loads((folder / ck.MANIFEST).read_text())
        tensors = ck.read_tensors(folder, "model")
        tensor_rows = [(f"`{n}`", "x".join(map(str, t.shape))) for n, t in sorted(tensors.items())]
    source = (ROOT / "src/tinygpt/model/checkpoint.py").read_text(encoding="utf-8")
    lines = ["# Checkpoints", "", *docstring(ast.get_docstring(ast.parse(source)) or ""), ""]
    lines += [
        f"Format version {ck.FORMAT}. Kinds: {', '.join(ck.KINDS)}.",
        "",
        "## What a nano model writes",
        "",
    ]
    lines += [f"- `{name}`" for name in names]
    lines += [
        "",
        "`config.json`:",
        "",
        "```json",
        json.dumps(config, indent=2),
        "```",
        "",
        f"`{ck.MANIFEST}`:",
        "",
    ]
    lines += table(["key", "holds"], [(f"`{k}`", type(v).__name__) for k, v in manifest.items()])
    lines += ["Tensors of `model.safetensors`:", "", *table(["tensor", "shape"], tensor_rows)]
    lines += ["## Every way a checkpoint can be wrong", "", *[f"- {s}" for s in sentences(source)], ""]
    return MADE + "\n".join(lines)


def sentences(source: str) -> list[str]:
    """The message of every CheckpointError of a module, placeholders in braces."""
    found = []
    for node in ast.walk(ast.parse(source)):
        call = node.exc if isinstance(node, ast.Raise) else None
        if isinstance(call, ast.Call) and call.args and ast.unparse(call.func) == "CheckpointError":
            found.append((node.lineno, message(call.args[0])))
    return [f"`{text}`" for _, text in sorted(found)]


def message(node: ast.expr) -> str:
    """An f-string as a person reads it; what is worked out (counts, nearest names) is left out."""
    match node:
        case ast.JoinedStr():
            return "".join(message(v) for v in node.values)
        case (
            ast.FormattedValue(value=ast.Call(args=[ast.Constant(value=name), *_]))
            | ast.FormattedValue(value=ast.Subscript(slice=ast.Constant(value=str(name))))
        ):
            return "{" + str(name) + "}"
        case ast.FormattedValue(value=ast.Call()):
            return ""
        case (
            ast.FormattedValue(value=ast.Subscript(value=ast.Name(id=name)))
            | ast.FormattedValue(value=ast.Name(id=name))
        ):
            return "{" + name + "}"
        case ast.FormattedValue():
            return "{" + ast.unparse(node.value) + "}"
    return str(node.value) if isinstance(node, ast.Constant) else ast.unparse(node)


PAGES: dict[str, Callable[[], str]] = {
    "docs/cli.md": cli,
    "docs/techniques.md": techniques,
    "docs/events.md": events,
    "docs/checkpoint.md": checkpoint,
    "docs/eval-row.schema.json": row_schema.page,
}


def pages() -> dict[str, str]:
    """Every generated page by its path, ending in one newline."""
    return {path: make().rstrip("\n") + "\n" for path, make in PAGES.items()}


def stale(root: Path) -> list[str]:
    """One line for each page below `root` that is not what the code says."""
    found = []
    for path, text in pages().items():
        file = root / path
        old = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        new = text.splitlines()
        if old != new:
            pairs = enumerate(zip([*old, "(end)"], [*new, "(end)"], strict=False), 1)
            number, (was, now) = next((n, p) for n, p in pairs if p[0] != p[1])
            found.append(f"{path}:{number}: says {was!r}, the code says {now!r}: run `make docs`")
    return found


def main(arguments: list[str]) -> int:
    """0 when written or current, 1 when stale."""
    if "--check" in arguments:
        found = stale(ROOT)
        print(*(found or ["docs are current"]), sep="\n")
        return 1 if found else 0
    for path, text in pages().items():
        (ROOT / path).write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
