"""The hub: whether it answers, and what its refusals mean for the user."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

HUB_SECONDS = 3.0


def hub_answers() -> bool:
    """One short request to the hub; its own five retries take 23 s on a machine without network."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def explained(error: BaseException, name: str, revision: str = "") -> str:
    """What the hub's refusal of a model means and its cure; empty where the error is another."""
    from huggingface_hub import errors

    for cause in _causes(error):
        if isinstance(cause, errors.GatedRepoError):
            return (
                f"is gated: accept its licence at https://huggingface.co/{name}, then log in with `hf auth login` "
                "or set HF_TOKEN"
            )
        if isinstance(cause, errors.RevisionNotFoundError):
            return f"has no revision {revision or 'main'!r} on the hub; give a branch, tag or commit behind the @"
        if isinstance(cause, errors.RepositoryNotFoundError):
            return (
                "is not on the hub, or private: check the id; for a private one log in with `hf auth login` or set "
                "HF_TOKEN"
            )
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
