"""Choosing versions: pure, over candidates somebody else looks up.

`problem` says what is asked and answered, `option` and `options` what there is to choose from and
which choices cannot be together, `wants` what is wanted of a name, `search` finds a choice with
resolvelib, `decide` goes from a problem to its solution, which `result` looks through, `refute`
proves that there is none, and `sentences` and `hints` tell it. How it decides is described in
docs/resolver.md.
"""

from __future__ import annotations

from mbpm.resolver.problem import Installed, Problem, Request, Solution


def resolve(problem: Problem) -> Solution:
    """As `mbpm.resolver.decide.resolve`, which is imported only where there is something to
    decide."""
    from mbpm.resolver.decide import resolve as decide

    return decide(problem)


__all__ = ["Installed", "Problem", "Request", "Solution", "resolve"]
