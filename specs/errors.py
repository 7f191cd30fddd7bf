"""Errors people see: a message, an optional hint with the next thing to type, an exit code.

Exit codes (documented in docs/exit-codes.md): 0 ok, 1 operation failed, 2 usage, 3 not found,
4 no resolution, 5 trust or integrity, 6 network, 7 authentication, 8 does not fit (disk or
memory), 9 gate failed, 10 upgrades exist (`mbpm outdated --exit-code`, no error), 130 interrupted.
"""

from __future__ import annotations

import errno


class MbpmError(Exception):
    """Base of every error that ends a command; also "the operation failed" itself."""

    exit_code = 1

    def __init__(
        self, message: str, *, hint: str | None = None, details: dict[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details or {}
        """More keys for the document that `--json` prints."""


class UsageError(MbpmError):
    """The command line, a configuration file or the data handed in is not what is accepted."""

    exit_code = 2


class NotFoundError(MbpmError):
    """A pack, version, base, file or registry that was named does not exist."""

    exit_code = 3


class ResolutionError(MbpmError):
    """No set of packs satisfies what was asked for."""

    exit_code = 4


class IntegrityError(MbpmError):
    """Bytes, a manifest or an adapter are not what they claim to be."""

    exit_code = 5


class NetworkError(MbpmError):
    """No source could be reached, or the network is switched off with `--offline`."""

    exit_code = 6


class AuthError(MbpmError):
    """A source refused the credentials, or wanted some and got none."""

    exit_code = 7


class DoesNotFitError(MbpmError):
    """Too little disk or memory for what was asked."""

    exit_code = 8


class GateError(MbpmError):
    """A quality gate refused: evaluation shows no gain, or routing takes more than its share."""

    exit_code = 9


def disk_full(error: OSError) -> bool:
    """Whether the system refused because the disk, or our share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
