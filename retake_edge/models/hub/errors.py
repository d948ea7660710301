"""Errors of the hub, each as one sentence."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from retake_edge.errors import ModelError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class HubError(ModelError):
    """A model of the hub is not there, not to be had, or not what the hub says it is."""


class HubWarning(UserWarning):
    """A file of the cache is not what it should be, and is fetched again."""


@contextmanager
def translate_errors(repo: str, endpoint: str) -> Iterator[None]:
    """Turn what huggingface_hub and the system raise into HubError.

    Raises:
        HubError: no such repository, no access, no connection, a full disk, another answer than
        a hub's.
    """
    from huggingface_hub import errors

    network_error = errors.HTTPError  # the base of all of httpx's, or httpx2's, by version
    try:
        yield
    except errors.HfHubHTTPError as error:
        raise HubError(_refusal(error, repo, endpoint)) from None
    except network_error as error:
        raise HubError(
            f"{endpoint} cannot be reached ({_reason(error)}); check the network, or HF_ENDPOINT."
        ) from None
    except OSError as error:
        raise HubError(_system_error(error, repo)) from None
    except errors.HFValidationError:
        raise HubError(f"{repo} cannot be the name of a repository; check it.") from None


def _refusal(error: Any, repo: str, endpoint: str) -> str:
    from huggingface_hub import errors, get_token

    status = error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{repo} is gated; accept its terms at {endpoint}/{repo}, and set HF_TOKEN to a token "
            "of yours."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        need = "is not open to your token" if get_token() else "needs HF_TOKEN to be set"
        return f"There is no repository {repo} at {endpoint}, or it {need}; check the name."
    if status in (401, 403):
        return (
            f"{endpoint} refuses access to {repo} ({status}); check HF_TOKEN, or the terms of the "
            "repository."
        )
    return f"{endpoint} answers {status} for {repo}; try again later."


def _system_error(error: OSError, repo: str) -> str:
    if error.errno in _FULL:
        return (
            f"There is no room for the files of {repo} ({error.strerror}); make room, and pull "
            "again: it goes on where it stopped."
        )
    if error.filename:
        return (
            f"The files of {repo} cannot be kept at {error.filename} ({error.strerror}); check "
            "that folder, or set HF_HUB_CACHE to another one."
        )
    return f"The files of {repo} cannot be fetched ({_reason(error)}); try again."


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return re.sub(r"^\[Errno -?\d+\] ", "", lines[0]).rstrip(".") if lines else type(error).__name__
