"""Where the hub is, and where on this machine its cache keeps what was fetched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tinygpt.core import files
from tinygpt.core.errors import ConfigError, DependencyError
from tinygpt.core.hub import HubName


def headers() -> dict[str, str]:
    """What every request says of us: the version, and the token if there is one."""
    from huggingface_hub.utils import build_hf_headers

    import tinygpt

    return build_hf_headers(library_name="tinygpt", library_version=tinygpt.__version__)


def url(name: HubName, commit: str, file: str) -> str:
    """Where a file of a commit is."""
    return f"{library().constants.ENDPOINT}/{name.path}/resolve/{commit}/{quote(file)}"


def library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise DependencyError("huggingface_hub", "hub", "a model of the hub") from error
    token = huggingface_hub.get_token()
    if token and not re.fullmatch(r"[!-~]+", token):
        raise ConfigError("the token for the hub holds letters that no token has", hint="set HF_TOKEN anew")
    return huggingface_hub


def offline() -> bool:
    """Whether the hub is not to be asked."""
    return library().constants.is_offline_mode()


def cache(name: HubName) -> Path:
    """The repository's folder in the hub's cache."""
    return Path(library().constants.HF_HUB_CACHE).expanduser() / name.folder


def refer(name: HubName, commit: str) -> None:
    """Note which commit a branch or tag was last, for days without a network."""
    ref = cache(name) / "refs" / (name.revision or "main")
    if not name.pinned and (not ref.is_file() or ref.read_text() != commit):
        files.write_text(ref, commit)


def last_commit(name: HubName) -> str:
    """The commit that a revision was when it was last asked for; "" where it never was."""
    ref = cache(name) / "refs" / (name.revision or "main")
    return name.revision if name.pinned else ref.read_text().strip() if ref.is_file() else ""
