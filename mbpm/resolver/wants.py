"""What is wanted of one name: by whoever asks, or by a choice made for another name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mbpm.resolver.option import ANY, Option
from mbpm.resolver.options import Options
from specs.versions import Requirement


@dataclass(frozen=True, eq=False)
class Want:
    """A demand on what a name stands for."""

    key: str
    kind: Literal["ask", "need", "keep", "gone", "stand", "refuse", "provided", "base"]
    """Asked for by name; required; installed now; to be removed. And, as a consequence of a choice:
    a pack has to be able to stand in for another name; must not be there; provides this name; has
    this base."""
    wanted: Requirement = ANY
    by: Option | None = None
    digest: str | None = None
    """The one manifest that is asked for, or the fingerprint of the base."""

    @property
    def positive(self) -> bool:
        """Whether it takes something to meet it."""
        return self.kind in ("ask", "need", "keep", "stand")


def roots(options: Options) -> list[Want]:
    """What the command line asks for."""
    wants = []
    for request in options.problem.requests:
        digest = request.pinned.line.manifest if request.pinned is not None else None
        wants.append(Want(request.name, "ask", request.requirement or ANY, digest=digest))
    wants += [Want(name, "gone") for name in sorted(options.problem.remove)]
    return wants


def allows(want: Want, option: Option, options: Options) -> bool:
    """Whether an option meets a demand, as far as it alone decides about it."""
    if want.kind == "ask":
        return option.candidate is not None and _asked(want, option, options)
    if want.kind == "need":
        return options.satisfies(option, want.wanted)
    if want.kind == "keep":
        if option.candidate is not None:
            return options.opted_in(option)
        return option.replacing is not None or (option.via is None and _may_go(want.key, options))
    if want.kind == "gone":
        return option.candidate is None
    if want.kind == "stand":
        assert want.by is not None
        return options.can_stand(want.by, option) and options.opted_in(option)
    if want.kind == "refuse":
        assert want.by is not None
        old = option.installed and want.by.installed and not options.problem.exact
        if option.candidate is None or old:
            return True
        return not want.wanted.admits(option.version, prereleases=True)
    return True


def _asked(want: Want, option: Option, options: Options) -> bool:
    assert option.candidate is not None
    digest = option.candidate.line.manifest
    if want.digest is not None:
        return digest == want.digest
    if want.wanted is ANY:
        return options.opted_in(option)
    return options.satisfies(option, want.wanted)


def _may_go(name: str, options: Options) -> bool:
    record = options.problem.installed[name]
    free = options.problem.removable and name not in options.staying
    return free and not record.held and name not in options.asked
