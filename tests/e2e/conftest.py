"""What the end-to-end tests share: a folder with a corpus, rows, pairs and a short run."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.shell import NANO, good, preferences, sentences, sums


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpus.txt, rows.jsonl and a short run of the nano model in run/."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "corpus.txt").write_text(sentences(300), encoding="utf-8")
    sums(folder / "rows.jsonl")
    preferences(folder / "pairs.jsonl")
    with pytest.MonkeyPatch.context() as patch:  # the fixture of every test comes later than this one
        patch.setenv("TINYGPT_CACHE", str(folder / "cache"))
        good(
            "train", "--corpus", folder / "corpus.txt", "--out", folder / "run", "--steps", 6,
            "--save-every", 2, "--seed", 1, *NANO,
        )  # fmt: skip
    return folder
