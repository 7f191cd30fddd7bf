from __future__ import annotations

from mbpm.resolver.options import Options
from mbpm.resolver.refute import Refutation
from specs.errors import MbpmError, ResolutionError


def failure(options: Options, proof: Refutation) -> MbpmError:
    return ResolutionError(f"nothing is left for {proof.name}")
