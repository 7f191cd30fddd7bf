"""`python -m specs.schemas [--check]`: write the schemas, or compare them with the models."""

from __future__ import annotations

import argparse
import sys

from specs import schemas


def main(arguments: list[str]) -> int:
    """Return 0, or 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m specs.schemas", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, only compare")
    if not parser.parse_args(arguments).check:
        schemas.write()
        return 0
    wrong = schemas.outdated()
    for name in wrong:
        print(f"specs/schemas/{name} is not what the models say", file=sys.stderr)
    if wrong:
        print("\nhint: run `python -m specs.schemas`", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
