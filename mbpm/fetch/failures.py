"""Telling why a blob could not be had: every source with its reason."""

from __future__ import annotations

from collections.abc import Sequence

from mbpm.fetch.network import shown
from mbpm.fetch.wanted import AnySource
from specs.blobs import FileSource, UrlSource
from specs.errors import AuthError, IntegrityError, MbpmError, NetworkError, NotFoundError

_KINDS: tuple[tuple[type[MbpmError], str], ...] = (
    (IntegrityError, "a proxy, the disk or memory may corrupt bytes; try again elsewhere"),
    (AuthError, "check the credentials of that source"),
    (NetworkError, "run the same command again; what was fetched is kept"),
    (NotFoundError, "the files may have moved; `pip install --upgrade mbpm` may know where"),
)
"""The most telling kind decides the exit code."""
_OFFLINE = "run it again without `--offline`; what was fetched is kept"
_PLACES = (FileSource, UrlSource)
_INCOMPLETE = (
    "the registry or folder is incomplete: whoever keeps it can restore the file, or publish again"
)


def called(source: AnySource) -> str:
    """A source by name, without a password."""
    return shown(str(source))


def all_failed(
    what: str, failures: Sequence[tuple[AnySource, MbpmError]], *, offline: bool
) -> MbpmError:
    """What to raise when no source had it."""
    if not failures:
        return NotFoundError(f"no source is named for {what}")
    reasons = "".join(f"\n  {called(source)}: {error.message}" for source, error in failures)
    message = f"no source yields {what}:{reasons}"
    errors = [error for _, error in failures]
    for kind, hint in _KINDS:
        if found := [e for e in errors if isinstance(e, kind)]:
            if kind is NetworkError and offline:
                hint = _OFFLINE
            elif kind is NetworkError:
                hint = found[0].hint or hint
            elif kind is NotFoundError and all(isinstance(s, _PLACES) for s, _ in failures):
                hint = _INCOMPLETE
            return kind(message, hint=hint)
    return MbpmError(message, hint=errors[0].hint)


def together(failures: Sequence[BaseException]) -> BaseException:
    """One error for those of several blobs."""
    for failure in failures:
        if not isinstance(failure, MbpmError):
            return failure
    known = [f for f in failures if isinstance(f, MbpmError)]
    if len(known) == 1:
        return known[0]
    first = known[0]
    return type(first)("\n".join(f.message for f in known), hint=first.hint)
