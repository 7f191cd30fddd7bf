"""Names of software licences and what sort each is, from ScanCode's index in license-expression.

Each object has `license_key`, `spdx_license_key` and `category`. The group is the family: the key
up to its version, so that `gpl-2.0` and `gpl-3.0` stand on one side.
"""

from __future__ import annotations

import random
import re
from typing import Annotated

from pydantic import Field

from specs.model import Contract
from trainer.data.converters.objects import array, text
from trainer.data.converters.taking import taken
from trainer.data.example import Example

KIND = "licence-kind"
SORTS = {
    "Permissive": "Permissive: it allows nearly everything and asks for the notice to be kept.",
    "Copyleft": "Copyleft: works made from it must be passed on under the same licence.",
    "Copyleft Limited": "Limited copyleft: only changes to the licensed files themselves must stay "
    "under it.",
    "Public Domain": "Public domain: it gives up the author's rights.",
    "Proprietary Free": "Proprietary: it may be used without payment, and not freely changed and "
    "passed on.",
    "Commercial": "Commercial: it has to be paid for.",
    "Source-available": "Source-available: the source may be read, and its use is restricted.",
}
"""Category -> the answer; others are left out."""
_PROMPTS = (
    "What kind of software licence is {n}?",
    "Is the licence {n} permissive or copyleft?",
    "My dependency is under {n}. What sort of licence is that?",
    "What does a project under the {n} licence ask of me?",
)


class LicencesOptions(Contract):
    """How many licences to take, at most."""

    licences: Annotated[int, Field(ge=1)]


def convert(raw: bytes, options: LicencesOptions, seed: int) -> list[Example]:
    """Examples of licences that SPDX lists and of a seeded sample of others.

    Raises:
        IntegrityError: `raw` is not the index.
    """
    rng = random.Random(seed)
    made = []
    for row in array(raw, "licences"):
        key, category = text(row, "license_key", "licences"), text(row, "category", "licences")
        spdx = row.get("spdx_license_key")
        if category not in SORTS or row.get("is_exception") or row.get("is_deprecated"):
            continue
        listed = isinstance(spdx, str) and not spdx.startswith("LicenseRef")
        name = str(spdx) if listed else key
        made.append(
            Example.of_pair(
                rng.choice(_PROMPTS).format(n=name),
                SORTS[category],
                f"licence {family(key)}",
                choices=tuple(SORTS.values()),
                kind=KIND,
            )
        )
    missing = "licences: holds no licence of a known category"
    return taken(made, rng, missing, most=options.licences)


def family(key: str) -> str:
    """`gpl-2.0-plus` -> `gpl`: what stands before the first number."""
    return re.split(r"[-_.]?v?\d", key, maxsplit=1)[0] or key
