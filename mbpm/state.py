"""What every command is handed as `ctx.obj`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.output import Output
from specs.errors import UsageError

if TYPE_CHECKING:
    from mbpm.catalogue import Catalogue
    from mbpm.fetch.network import Network
    from mbpm.home import Home

_TRUE = frozenset(["1", "true", "yes", "on"])
_FALSE = frozenset(["", "0", "false", "no", "off"])


def _as_typed(arguments: Sequence[str]) -> str:
    """The command line, quoted so that it can be typed again; what is no text is escaped."""
    line = shlex.join(["mbpm", *arguments])
    return line.encode(errors="backslashreplace").decode()


@dataclass
class State:
    """The global options of one command line; changed only while it is being parsed."""

    home_path: Path | None = None
    """None means the default: `MBPM_HOME`, else the user's data folder."""
    out: Output = field(default_factory=Output)
    offline: bool = False
    profile: str | None = None
    """Which of the home's profiles to work on; None: a project's own for its commands, else the
    default one."""
    limit_rate: str | None = None
    """Bytes per second that downloads may take together, as written."""
    command_line: str = "mbpm"
    """The command as typed, for the history."""

    @classmethod
    def from_environment(cls, arguments: list[str], environ: Mapping[str, str]) -> State:
        """The state before any option is read.

        Raises:
            UsageError: `MBPM_OFFLINE` holds neither a yes nor a no.
        """
        offline = environ.get("MBPM_OFFLINE", "").strip().lower()
        if offline not in _TRUE | _FALSE:
            raise UsageError(
                f"`MBPM_OFFLINE` is {offline!r}", hint="set it to `1` or `0`, or leave it out"
            )
        home = environ.get("MBPM_HOME")
        return cls(
            home_path=Path(home).expanduser() if home else None,
            out=Output(no_color=bool(environ.get("NO_COLOR"))),
            offline=offline in _TRUE,
            profile=environ.get("MBPM_PROFILE") or None,
            limit_rate=environ.get("MBPM_LIMIT_RATE") or None,
            command_line=_as_typed(arguments),
        )

    @cached_property
    def home(self) -> Home:
        """The home folder this command works on.

        Raises:
            UsageError: its path or the profile's name is none that can be used.
        """
        from mbpm.files import recordable
        from mbpm.home import DEFAULT_PROFILE, Home

        profile = self.profile or DEFAULT_PROFILE
        if self.home_path is not None:
            return Home(recordable(self.home_path.absolute()), profile)
        import platformdirs

        return Home(Path(platformdirs.user_data_dir("mbpm", appauthor=False)), profile)

    @cached_property
    def network(self) -> Network:
        """The one way to any server."""
        from mbpm.fetch.network import Network
        from mbpm.registries.tokens import Tokens

        return Network(
            offline=self.offline,
            limit_rate=self.limit_rate,
            authorize=Tokens(self.home.path).authorize,
            say=self.out.note,
        )

    def catalogue(self, registries: Sequence[str] | None = None) -> Catalogue:
        """What can be installed.

        Args:
            registries: Names, directories or addresses given as `--registry`; looked at first.
        """
        from mbpm.catalogue import Catalogue

        return Catalogue.open(self.home, self.network, registries or (), self.out)
