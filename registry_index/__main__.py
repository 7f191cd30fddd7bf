"""Put a base folder into a registry: `python -m registry_index FOLDER REGISTRY`.

The registry keeps the card and the base's small files; weights stay with the card's sources.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from registry_index.publish import publish_base
from specs.base_card import BASE_ROUTING_FILE, CARD_FILE, BaseCard


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m registry_index", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("registry", type=Path)
    arguments = parser.parse_args()
    card_file = arguments.folder / CARD_FILE
    card = BaseCard.parse(card_file.read_bytes(), str(card_file))
    routing = arguments.folder / BASE_ROUTING_FILE
    files = {BASE_ROUTING_FILE: routing} if routing.is_file() else {}
    publish_base(card, arguments.registry, files)
    print(f"{card.name} {card.fingerprint[:12]} -> {arguments.registry}")


if __name__ == "__main__":
    main()
