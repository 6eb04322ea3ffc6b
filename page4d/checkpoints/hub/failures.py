"""Errors of downloads, in words: what was wrong, and how to get the file by hand."""

from __future__ import annotations

from types import ModuleType

from page4d.checkpoints.hub.hub_id import PREFIX, HubId
from page4d.errors import MissingBackendError, Page4DError, UsageError

_HUB = "https://huggingface.co"
_BUSY = (408, 425, 429)  # and all from 500 on: another time it may work


def failures(hub: ModuleType) -> tuple[type[Exception], ...]:
    """What the client raises when a repository cannot be read."""
    return hub.errors.HTTPError, OSError, hub.errors.EntryNotFoundError, hub.errors.HFValidationError


def page_of(source: HubId, hub: ModuleType | None = None) -> str:
    """The repository's page."""
    return f"{_HUB if hub is None else hub.constants.ENDPOINT}/{source.repository}"


def no_package(source: HubId, error: ModuleNotFoundError) -> Page4DError:
    """huggingface_hub, or what it needs, is not installed."""
    return MissingBackendError(
        f"{source.repository} is no file or folder here, and a repository of the Hugging Face hub needs the package"
        " huggingface_hub and a network",
        got=f"no module {error.name}",
        hint=f'pip install "page4d[hub]"; or {_by_hand(source)}',
    )


def is_unreachable(hub: ModuleType, error: Exception) -> bool:
    """Whether nothing was heard of the repository: no network, offline mode, a hub out of order."""
    status = _status(error)
    if status is not None:
        return status >= 500 or status in _BUSY
    answers = (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError, hub.errors.HFValidationError)
    is_local = isinstance(error, hub.errors.LocalEntryNotFoundError)
    return is_local or (isinstance(error, hub.errors.HTTPError | OSError) and not isinstance(error, answers))


def unreachable(hub: ModuleType, source: HubId, error: Exception) -> Page4DError:
    """The hub was not reached, and the cache lacks what was asked for."""
    cache = f"the cache, {hub.constants.HF_HUB_CACHE}, does not have it"
    if hub.constants.HF_HUB_OFFLINE:
        what, got = f"{source} is not here, and offline mode is on", "HF_HUB_OFFLINE"
    else:
        what, got = f"{source} cannot be downloaded: {hub.constants.ENDPOINT} was not reached", _reason(error)
    return Page4DError(
        what,
        got=f"{got}; {cache}",
        allowed="a network, a mirror (HF_ENDPOINT), or a cache that has the files (HF_HOME)",
        hint=_by_hand(source, hub),
    )


def cut_short(hub: ModuleType, source: HubId, error: Exception) -> Page4DError:
    """A download that began did not come to its end."""
    return Page4DError(
        f"the download of {source} broke off",
        got=_reason(error),
        hint=f"once more; or {_by_hand(source, hub)}",
    )


def worded(hub: ModuleType, source: HubId, error: Exception) -> Page4DError:
    """What the hub answered."""
    errors, repository, page = hub.errors, source.repository, page_of(source, hub)
    if isinstance(error, errors.GatedRepoError):
        return Page4DError(
            f"{repository} is gated: its authors decide who may download it",
            got="no access with this token, or no token",
            hint=f"ask for access at {page}, then HF_TOKEN=hf_.. with a token of yours",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UsageError(
            f"{repository} has no such revision",
            got=source.revision,
            allowed="a branch, a tag, or the whole hash of a commit",
            hint=f"{PREFIX}{repository} for the newest",
        )
    if isinstance(error, errors.RepositoryNotFoundError) or _status(error) == 404:
        return UsageError(
            "there is no such checkpoint: no file or folder here, and no repository on the hub, or a private one",
            got=repository,
            allowed="a path, or OWNER/NAME of a repository",
            hint=f"look at {page}; for a private one HF_TOKEN=hf_.. with a token that may read it",
        )
    if _status(error) in (401, 403):
        return Page4DError(
            f"the hub does not let this token read {repository}",
            got=_reason(error),
            hint="HF_TOKEN=hf_.. with a token that may read it, or none",
        )
    return Page4DError(
        f"{source} cannot be downloaded: {hub.constants.ENDPOINT} does not answer as a hub does",
        got=_reason(error),
        allowed="a hub, or a mirror of it (HF_ENDPOINT); networks that ask for a login answer in its place",
        hint=_by_hand(source, hub),
    )


def _by_hand(source: HubId, hub: ModuleType | None = None) -> str:
    folder = f"{page_of(source, hub)}/tree/{source.revision or 'main'}"
    return f"by hand: download {source.file or 'model.safetensors'} from {folder} and give its path"


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _reason(error: Exception) -> str:
    """The first line of an error, with the one that it came from."""
    cause = error.__cause__ or error
    text = (str(cause).strip().splitlines() or [""])[0][:300]
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__
