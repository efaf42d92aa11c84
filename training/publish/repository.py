"""Change a repository of the Hugging Face Hub in one commit: compare with what is there, send the difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.entry import EntryError
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import huggingface_hub
    from huggingface_hub import errors

    from zoo.sources import hub
else:
    huggingface_hub = lazy_module("huggingface_hub")
    errors = lazy_module("huggingface_hub.errors")
    hub = lazy_module("zoo.sources.hub")

Kind = Literal["model", "dataset", "space"]
Log = Callable[[object], None]
PRECONDITION_FAILED = 412  # HTTP status where the parent commit is no longer the branch's last one
URL_PREFIXES: Mapping[Kind, str] = {"model": "", "dataset": "datasets/", "space": "spaces/"}


@dataclass(frozen=True)
class Change:
    """Paths that a publication adds, changes and deletes in a repository."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    deleted: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether everything is there already."""
        return not (self.added or self.changed or self.deleted)

    def lines(self) -> Iterator[str]:
        """One line per file."""
        for sign, paths in (("+", self.added), ("~", self.changed), ("-", self.deleted)):
            yield from (f"{sign} {path}" for path in paths)


@dataclass(frozen=True)
class Publication:
    """Result of a publication.

    Attributes:
        repo: The repository, NAMESPACE/NAME.
        sha: The commit that holds it; None after a dry run for a new repository.
        url: Page of the repository, or of the pull request.
        change: What was changed, or would be.
        tag: Name given to the commit.
    """

    repo: str
    sha: str | None
    url: str
    change: Change
    tag: str | None = None


def check_name(repo: str) -> None:
    """Raise EntryError if `repo` is not the name of a repository."""
    if not hub.REPO.fullmatch(repo):
        raise EntryError(
            f"{repo} is not the name of a repository: give NAMESPACE/NAME of letters, digits, dots and dashes."
        )


def create_repository(repo: str, kind: Kind, private: bool) -> None:
    """Create a repository unless it exists; `private` holds for a new one only."""
    options: dict[str, Any] = {"space_sdk": "docker"} if kind == "space" else {}
    hub.api().create_repo(repo, repo_type=kind, private=private or None, exist_ok=True, **options)


def repository_url(repo: str, kind: Kind) -> str:
    """Page of a repository."""
    return f"{hub.api().endpoint}/{URL_PREFIXES[kind]}{repo}"


def repository_state(repo: str, kind: Kind) -> tuple[str | None, dict[str, hub.File]]:
    """Last commit and files of the main branch; None and no files if the repository does not exist."""
    try:
        info: Any = hub.api().repo_info(repo, repo_type=kind, files_metadata=True, timeout=hub.request_timeout())
    except errors.RepositoryNotFoundError:
        return None, {}
    return info.sha, {sibling.rfilename: hub.file_of(sibling) for sibling in info.siblings or []}


def find_changes(staged: Path, published: Mapping[str, hub.File], is_ours: Callable[[str], bool]) -> Change:
    """Compare a local folder with a repository.

    Args:
        staged: The folder that the repository is to hold.
        published: Files of the repository by path.
        is_ours: Whether a file may be deleted if it is not staged; others stay.
    """
    local = {path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()}
    common = local & set(published)
    changed = {name for name in common if hub.file_hash(staged / name, published[name]) != published[name].oid}
    return Change(
        added=tuple(sorted(local - common)),
        changed=tuple(sorted(changed)),
        deleted=tuple(sorted(name for name in set(published) - common if is_ours(name))),
    )


def commit_change(
    repo: str, kind: Kind, staged: Path, change: Change, parent: str | None, message: str
) -> tuple[str, str]:
    """Send a change in one commit.

    Args:
        repo: The repository.
        kind: What it holds.
        staged: Folder of the files.
        change: What to send and delete.
        parent: The main branch's last commit; None opens a pull request instead of changing the branch.
        message: Commit message.

    Returns:
        The commit and its page.

    Raises:
        EntryError: Another commit was made meanwhile, or the card is not valid. Nothing was changed.
    """
    operations: list[Any] = [
        huggingface_hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=staged / name)
        for name in (*change.added, *change.changed)
    ]
    operations += [huggingface_hub.CommitOperationDelete(path_in_repo=name) for name in change.deleted]
    try:
        # the client uploads large files first and has the Hub check the card, so that an interruption changes nothing
        commit = hub.api().create_commit(
            repo,
            operations,
            repo_type=kind,
            commit_message=message,
            parent_commit=parent,
            create_pr=parent is None,
        )
    except errors.HfHubHTTPError as error:
        if error.response.status_code == PRECONDITION_FAILED:
            raise EntryError(
                f"{repo}: somebody else published meanwhile, nothing was changed. Run the command again."
            ) from error
        raise
    except ValueError as error:
        raise EntryError(f"{repo}: the Hub does not accept the card. {error}") from error
    return commit.oid, commit.pr_url or repository_url(repo, kind)


def publish_folder(
    staged: Path,
    repo: str,
    kind: Kind,
    message: str,
    is_ours: Callable[[str], bool],
    log: Log,
    private: bool = False,
    dry_run: bool = False,
) -> Publication:
    """Make a repository hold a local folder; files that are there already are not sent again.

    Raises:
        EntryError: Another commit was made meanwhile, or the card is not valid. Nothing was changed.
    """
    if not dry_run:
        create_repository(repo, kind, private)
    head, published = repository_state(repo, kind)
    change, url = find_changes(staged, published, is_ours), repository_url(repo, kind)
    if dry_run:
        return Publication(repo, head, url, change)
    if change.is_empty:
        log(f"{repo}: nothing has changed.")
        return Publication(repo, head, url, change)
    sha, url = commit_change(repo, kind, staged, change, str(head), message)
    return Publication(repo, sha, url, change)
