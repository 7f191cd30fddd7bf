"""A proof in words."""

from __future__ import annotations

from mbpm.resolver.options import Options
from mbpm.resolver.refute import Refutation


def in_one_line(options: Options, proof: Refutation) -> str:
    return f"nothing is left for {proof.name}"
