"""Who may import whom: strictly downwards, siblings never, no run another run, heavy modules late."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from house.tree import blocks, parse, sources

LEVELS = {
    "core": 0,
    "model": 1, "data": 1,
    "train": 2, "infer": 2, "peft": 2, "quant": 2, "convert": 2, "merge": 2,
    "distill": 3, "eval": 3, "interp": 3, "serve": 3, "agent": 3, "router": 3,
    "runs": 4,
    "project": 5, "studio": 5,
    "cli": 6,
}  # fmt: skip
CALLED = ("Family", "import_module")  # calls whose first argument names a module
BACKEND = "src/tinygpt/core/backend.py"
# core/ is the standard library alone, but for the file that knows MLX and the one that finds a BLAS for it.
CORE_MAY = {BACKEND: {"mlx"}, "src/tinygpt/core/_blas.py": {"scipy_openblas32"}}


def check(root: Path) -> list[str]:
    """One line for each import that points the wrong way."""
    heavy = banned(root)
    found: list[str] = []
    for path in sources(root, "src/tinygpt"):
        for node, target, in_function in imports(root, path):
            place = f"{path.relative_to(root)}:{node.lineno}"
            found += [f"{place}: {why}" for why in judge(root, path, target, in_function, heavy)]
    return list(dict.fromkeys(found))


def banned(root: Path) -> set[str]:
    """Modules that cost too much at the top of a file; their one list is ruff's, in pyproject.toml."""
    ruff = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    return set(ruff["flake8-tidy-imports"]["banned-module-level-imports"])


def imports(root: Path, path: Path) -> Iterator[tuple[ast.stmt | ast.Call, str, bool]]:
    """(node, dotted module, inside a function or TYPE_CHECKING) of imports, import_module and Family."""
    text = path.read_text(encoding="utf-8")
    called = any(f"{word}(" in text for word in CALLED)
    for node, inside in _inner(parse(path), called):
        match node:
            case ast.Import(names=names):
                yield from ((node, a.name, inside) for a in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = module or ""
                if level:
                    above = path.relative_to(root / "src").with_suffix("").parts[:-level]
                    base = ".".join([*above, *([module] if module else [])])
                yield from ((node, _module(root, base, a.name), inside) for a in names)
            case ast.Call(
                func=ast.Name(id=named) | ast.Attribute(attr=named),
                args=[ast.Constant(value=str(name)), *_],
            ):
                if named.endswith(CALLED):
                    yield node, name, inside


def _inner(tree: ast.Module, called: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Nodes, and whether they are run later than the module; expressions only where calls count."""
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, inside = waiting.pop()
        for child in ast.iter_child_nodes(node) if called else blocks(node):
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            lazy = lazy or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
            yield child, inside
            waiting.append((child, inside or lazy))


def _module(root: Path, base: str, name: str) -> str:
    """`from a import b` names the module a.b when there is one, else a."""
    folder = root / "src" / Path(*base.split("."), name)
    return f"{base}.{name}" if folder.is_dir() or folder.with_suffix(".py").is_file() else base


def judge(root: Path, path: Path, target: str, in_function: bool, heavy: set[str]) -> Iterator[str]:
    """Why a file may not import a module; nothing when it may."""
    name = str(path.relative_to(root))
    parts = path.relative_to(root / "src" / "tinygpt").parts
    package = parts[0] if len(parts) > 1 else ""
    top, _, rest = target.partition(".")
    if package and package not in LEVELS:
        yield f"the package {package}/ has no layer: add it to docs/design.md and tests/house/layers.py"
        return
    if top != "tinygpt":
        yield from _foreign(name, package, target, in_function, heavy)
        return
    other = rest.split(".")[0]
    if not package or not rest or other == package or other not in LEVELS:
        yield from _inside(parts, package, target)
    elif LEVELS[other] == LEVELS[package]:
        yield f"{package} imports its sibling {target}: let runs/ join them"
    elif LEVELS[other] > LEVELS[package]:
        yield f"{package} (layer {LEVELS[package]}) imports upwards: {target} (layer {LEVELS[other]})"
    if package == "data" and target == "tinygpt.core.backend":
        yield "data/ is read without MLX: return numpy arrays"


def _inside(parts: tuple[str, ...], package: str, target: str) -> Iterator[str]:
    """Files of one package may import each other; of runs and commands only those named _*.py are shared."""
    own = ".".join(("tinygpt", *parts)).removesuffix(".py").removesuffix(".__init__")
    if package not in ("runs", "cli") or not target.startswith(f"tinygpt.{package}.") or target == own:
        return
    if target.count(".") != 2 or not target.rsplit(".", 1)[-1].startswith("_"):
        who = "a run" if package == "runs" else "the command line"
        yield f"{who} imports {target}: only {package}/_*.py is shared"


def _foreign(name: str, package: str, target: str, in_function: bool, heavy: set[str]) -> Iterator[str]:
    top = target.partition(".")[0]
    if top in sys.stdlib_module_names:
        return
    if package == "core" and top not in CORE_MAY.get(name, set()):
        yield f"core/ imports {target}: only the standard library is allowed there"
    elif top in heavy and not in_function:
        yield f"{target} is imported at the top of the file: import it inside the function that needs it"
    elif package == "data" and top == "mlx":
        yield "data/ is read without MLX: return numpy arrays"
    elif target in ("mlx", "mlx.core", "mlx.nn") and name != BACKEND:
        yield "MLX is imported directly: `from tinygpt.core.backend import mx, nn` prepares it first"
