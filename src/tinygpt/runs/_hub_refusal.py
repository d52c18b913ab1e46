"""What a failed request to the hub means, in one line a person can act on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinygpt.core import files
from tinygpt.core.errors import RemoteError, TinyGPTError
from tinygpt.core.hub import HubName


def page(name: HubName) -> str:
    """The repository's page for people."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{name.path}"


def transport() -> type[Exception]:
    """What a client of the hub raises below the hub's own answers: httpx's HTTPError, of the version that the
    library has. The hub's own errors are children of it."""
    from huggingface_hub import errors

    return errors.HfHubHTTPError.__mro__[1]


class Unreachable(RemoteError):
    """Nobody answered: what is in the cache may do."""


def refusal(name: HubName, error: Exception, file: str = "") -> TinyGPTError:
    """What a failed request means, in one line. Nothing of the request is quoted: it holds the token."""
    from huggingface_hub import constants, errors

    what = f"{file} of {name}" if file else str(name)
    host = constants.ENDPOINT.removeprefix("https://")
    if isinstance(error, TinyGPTError):
        return error
    if isinstance(error, errors.GatedRepoError):
        return RemoteError(
            f"{name} is gated: its owners want you to agree to their terms first",
            hint=f"visit {page(name)}, then set HF_TOKEN to a token of yours",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return RemoteError(
            f"{name.repo} has no revision '{name.revision}'", hint=f"see {page(name)}/tree/main"
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return RemoteError(f"the hub lists {what}, but does not have it", hint="try again later")
    if isinstance(error, errors.HfHubHTTPError):
        return _answered(name, what, error.response)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return RemoteError("HF_HUB_OFFLINE is set", hint="unset it to fetch what is not here")
    if isinstance(error, transport()):
        slow = "Timeout" in type(error).__name__
        why = "does not answer in time" if slow else f"cannot be reached ({type(error).__name__})"
        return Unreachable(f"the hub at {host} {why}", hint="check the network; what was fetched is kept")
    if isinstance(error, OSError):
        return files.unwritable(Path(constants.HF_HUB_CACHE), error)
    if isinstance(error, ValueError | TypeError | KeyError | AttributeError):
        return RemoteError(f"the answer of {host} about {what} makes no sense", hint="check HF_ENDPOINT")
    raise error


def _answered(name: HubName, what: str, response: Any) -> TinyGPTError:
    """What a status code of the hub means."""
    code = response.status_code
    if code == 401 and response.headers.get("X-Error-Code") != "RepoNotFound":
        return RemoteError(
            f"the hub does not accept the token for {what}",
            hint="make another at huggingface.co/settings/tokens",
        )
    if code == 404 and what != str(name):
        return RemoteError(f"the hub lists {what}, but does not have it", hint="try again later")
    if code in (401, 404):
        return RemoteError(
            f"the hub has no {name.kind} {name.repo}, or it is private",
            hint="check its name; for a private one set HF_TOKEN",
        )
    if code == 403:
        return RemoteError(f"the hub refuses {what} to you", hint=f"visit {page(name)}, and check HF_TOKEN")
    if code == 429:
        wait = response.headers.get("Retry-After", "")
        later = f"in {wait} seconds" if wait.isdigit() else "later"
        return RemoteError(
            "the hub has had too many requests from here", hint=f"try again {later}; set HF_TOKEN"
        )
    if code >= 500:
        return Unreachable(f"the hub is out of order (status {code})", hint="try again later")
    return RemoteError(f"the hub refuses {what} (status {code})", hint=f"look at {page(name)}")
