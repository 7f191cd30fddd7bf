"""Work on a registry directory.

    python -m registry_index base FOLDER REGISTRY    put a base folder into it
    python -m registry_index summarise REGISTRY      make its summary anew

The registry keeps a base's card and small files; weights stay with the card's sources. Publishing
keeps the summary up to date: it has to be made anew only where index files were written by hand.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from registry_index.publish import publish_base
from registry_index.summarising import rebuild
from registry_index.writing import writing
from specs.base_card import BASE_ROUTING_FILE, CARD_FILE, BaseCard
from specs.errors import MbpmError


def main(arguments: list[str]) -> int:
    """The command line of this module; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m registry_index",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    base = commands.add_parser("base", help="put a base folder into a registry")
    base.add_argument("folder", type=Path)
    base.add_argument("registry", type=Path)
    summary = commands.add_parser("summarise", help="make a registry's summary anew")
    summary.add_argument("registry", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.command == "base":
            return _base(options.folder, options.registry)
        return _summarise(options.registry)
    except MbpmError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code


def _base(folder: Path, registry: Path) -> int:
    card = BaseCard.read(folder / CARD_FILE)
    routing = folder / BASE_ROUTING_FILE
    files = {BASE_ROUTING_FILE: routing} if routing.is_file() else {}
    publish_base(card, registry, files)
    print(f"{card.name} {card.fingerprint[:12]} -> {registry}")
    return 0


def _summarise(root: Path) -> int:
    with writing(root) as registry:
        problems = rebuild(registry)
        print(f"{root}: packs: {len(registry.names())}, damaged: {len(problems)}")
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    return 5 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
