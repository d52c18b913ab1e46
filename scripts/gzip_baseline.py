"""Bits per byte of gzip -9 on the files that a training run holds out: the bar for a language model of text.

    python scripts/gzip_baseline.py RUN [--text]

RUN is a run directory of `tinygpt train`. Prints each way of compressing them: file by file, and all in one
stream. --text prints the paths of the held-out files instead, for `tinygpt eval --corpus`.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

from tinygpt.core.config import load_file
from tinygpt.data.source import text
from tinygpt.data.tokenizer import byte


def held_out(run: Path) -> tuple[Path, ...]:
    """The held-out files of a run, found with the run's own settings."""
    config = load_file(run / "run.json")
    settings = text.Config(
        paths=tuple(Path(p) for p in config["corpus"]),
        glob=config["glob"],
        exclude=tuple(config["exclude"]),
        field=config.get("field", "text"),
        held_out=config["held_out"],
        cache=False,
    )
    source = text.build(settings, byte.load(), length=64, batch_size=1)
    assert source.held_out is not None, "the run held nothing out"
    return source.held_out.files


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--text", action="store_true", help="print the held-out paths")
    given = parser.parse_args()
    files = held_out(given.run)
    if given.text:
        print("\n".join(map(str, files)))
        return
    contents = [f.read_bytes() for f in files]
    size = sum(map(len, contents))
    each = sum(len(gzip.compress(c, 9)) for c in contents)
    joined = len(gzip.compress(b"".join(contents), 9))
    print(f"{len(files)} held-out files, {size:,} bytes")
    print(f"gzip -9, file by file: {8 * each / size:.4f} bits per byte")
    print(f"gzip -9, one stream:   {8 * joined / size:.4f} bits per byte")


if __name__ == "__main__":
    main()
