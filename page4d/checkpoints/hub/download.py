"""Downloads of checkpoints: through huggingface_hub, which has the cache, the token, mirrors and offline mode."""

from __future__ import annotations

import contextlib
import errno
import pathlib
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from page4d.checkpoints.hub.config_json import CONFIG
from page4d.checkpoints.hub.failures import cut_short, failures, is_unreachable, no_package, unreachable, worded
from page4d.checkpoints.hub.hub_id import HubId
from page4d.checkpoints.hub.repository_files import beside, checkpoint_in
from page4d.checkpoints.shard_index import ShardIndex, is_index
from page4d.errors import Page4DError
from page4d.files import sha256
from page4d.system.progress import SILENT, Progress

_PATIENCE = 30.0  # seconds for the list of a repository's files
_BROKEN = (
    RuntimeError,
    ValueError,
)  # beside what the client documents: of its transfer library, of a size out of range
_MIB = 1 << 20


@dataclass(frozen=True)
class Downloaded:
    """A checkpoint that lies in the hub's cache.

    Attributes:
        path: of the file, or of the index beside its files.
        source: repository, hash of the commit, and path in the repository.
        licence: the repository's licence as its page gives it, `apache-2.0`; empty where it is not known.
    """

    path: pathlib.Path
    source: HubId
    licence: str = ""


@dataclass(frozen=True)
class _Listing:
    """What is in a repository at a revision, or of it in the cache.

    Attributes:
        revision: hash of the commit.
        names: of all files, with `/`.
        hashes: sha256 of large files, by name.
        cached: whether this is what the cache has, because the hub cannot be asked.
    """

    revision: str
    names: tuple[str, ...]
    hashes: dict[str, str] = field(default_factory=dict)
    licence: str = ""
    cached: bool = False


def download(source: HubId, progress: Progress = SILENT) -> Downloaded:
    """A checkpoint of a repository, from the cache as far as it is there.

    Without a network, and in offline mode (`HF_HUB_OFFLINE=1`), the cache is all there is. `config.json` comes along.

    Args:
        source: which repository, revision and file.
        progress: told how much of each file has come.

    Raises:
        MissingBackendError: huggingface_hub is not installed.
        UsageError: no such repository, revision or file, or several that may be meant.
        Page4DError: the hub cannot be reached and the cache has nothing; it wants a token, or another one; the download
            broke off, or is not what the hub says that it is.
    """
    progress.note(f"asking the hub for {source.repository}", 0.0)
    try:
        import huggingface_hub as hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils  # the package itself imports its modules when they are first used
    except ModuleNotFoundError as error:
        raise no_package(source, error) from None
    listing = _listing(hub, source)
    name = checkpoint_in(source, listing.names)
    config = beside(name, CONFIG)
    if config in listing.names:
        _file(hub, source, listing, config, SILENT)
    path = _file(hub, source, listing, name, progress if not is_index(pathlib.Path(name)) else SILENT)
    if is_index(path):
        parts = ShardIndex.read(path).names
        for number, part in enumerate(parts):
            begin, end = number / len(parts), (number + 1) / len(parts)
            _file(hub, source, listing, beside(name, part), progress.part(begin, end))
    return Downloaded(path, HubId(source.repository, listing.revision, name), listing.licence)


def _listing(hub: ModuleType, source: HubId) -> _Listing:
    not_a_hub = (ValueError, KeyError, TypeError, AttributeError)  # what the content of another answer leads to
    try:
        info = hub.HfApi().model_info(
            source.repository, revision=source.revision or None, files_metadata=True, timeout=_PATIENCE
        )
        files = info.siblings or []
        licences = [tag.partition(":")[2] for tag in info.tags or [] if tag.startswith("license:")]
        return _Listing(
            revision=info.sha or "",
            names=tuple(file.rfilename for file in files),
            hashes={file.rfilename: file.lfs.sha256 for file in files if file.lfs is not None},
            licence="".join(licences[:1]),
        )
    except failures(hub) + not_a_hub as error:
        if not is_unreachable(hub, error):
            raise worded(hub, source, error) from None
        if listing := _cached(hub, source):
            return listing
        raise unreachable(hub, source, error) from None


def _cached(hub: ModuleType, source: HubId) -> _Listing | None:
    """What the cache has of a repository at a revision."""
    try:
        repositories = hub.scan_cache_dir(hub.constants.HF_HUB_CACHE).repos
    except (hub.errors.CacheNotFound, ValueError):
        return None
    asked = source.revision or "main"
    for repository in repositories:
        if (repository.repo_type, repository.repo_id) != ("model", source.repository):
            continue
        for revision in repository.revisions:
            if asked == revision.commit_hash or asked in revision.refs:
                folder = revision.snapshot_path
                names = sorted(file.file_path.relative_to(folder).as_posix() for file in revision.files)
                return _Listing(revision.commit_hash, tuple(names), cached=True)
    return None


def _file(hub: ModuleType, source: HubId, listing: _Listing, name: str, progress: Progress) -> pathlib.Path:
    """One file in the cache, downloaded if it is not there; whole, and of the sha256 that the hub states."""
    bar = _bar(hub, progress, source.repository, name)
    try:
        path = pathlib.Path(
            hub.hf_hub_download(
                source.repository,
                name,
                # by the revision's own name: the cache then knows it by that, too
                revision=source.revision or None,
                local_files_only=listing.cached,
                tqdm_class=bar,
            )
        )
    except failures(hub) + _BROKEN as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        if bar.began or not is_unreachable(hub, error):
            raise (cut_short if bar.began else worded)(hub, source.at(listing.revision, name), error) from None
        raise unreachable(hub, source.at(file=name), error) from None
    commit = path.parents[name.count("/")].name
    if commit != listing.revision:
        raise Page4DError(
            f"{source.repository} got a new revision while it was downloaded",
            got=f"{listing.revision}, then {commit}",
            allowed="files of one revision",
            hint=f"once more, or {HubId(source.repository, commit)}",
        )
    if bar.began and (stated := listing.hashes.get(name)):
        _check(path, stated, source.at(commit, name))
    return path


def _check(path: pathlib.Path, stated: str, source: HubId) -> None:
    """Compare a new file with the sha256 that the hub states; one of another leaves the cache again."""
    actual = sha256(path)
    if actual == stated:
        return
    with contextlib.suppress(OSError):
        path.resolve().unlink()
        path.unlink(missing_ok=True)
    raise Page4DError(
        f"{source} was damaged on its way: it is not what the hub says that it is, and was deleted from the cache",
        got=f"sha256 {actual}",
        allowed=f"sha256 {stated}",
        hint="once more; if it is the same, something between here and the hub changes files",
    )


def _bar(hub: ModuleType, progress: Progress, repository: str, name: str) -> Any:
    """A class of progress bar for the client: it prints nothing, and tells `progress` instead."""

    class Bar(hub.utils.tqdm):  # type: ignore[name-defined,misc]
        began = False
        """Whether a download of this file began."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **(options | {"disable": True}))
            Bar.began = True
            self.update(0)

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            total = self.total or 0
            size = f"{self.n / _MIB:.0f} of {total / _MIB:.0f} MiB" if total else f"{self.n / _MIB:.0f} MiB"
            progress.note(f"{repository}: {name}, {size}", self.n / total if total else 0.0)

    return Bar
