"""Making a base's catalogue entry: its card, and the calibration of its hidden space for routing.

    python -m trainer.make_base NAME --weights FILE.gguf --output FOLDER

What the GGUF file does not say (sources, licence, description) comes from `trainer/bases/`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Annotated

from pydantic import Field

from runtime.gguf_file import fingerprint, model_config, open_gguf
from runtime.modules import module_shapes
from runtime.torch_engine import TorchEngine
from specs.base_card import BASE_ROUTING_FILE, CARD_FILE, WEIGHTS_FILE, BaseBlob, BaseCard
from specs.blobs import Blob, Source
from specs.errors import NotFoundError
from specs.model import Contract
from specs.names import Name
from trainer.routing import fit_base_routing

FOLDER = Path(__file__).parent / "bases"
HALF_BYTES = 2
"""Keys and values are kept in float16."""


class BaseDescription(Contract):
    """What a person says about a base."""

    name: Name
    description: str
    license: str
    parameters: int
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]


def read_description(name: str) -> BaseDescription:
    """Read `trainer/bases/NAME.toml`.

    Raises:
        NotFoundError: there is none.
    """
    file = FOLDER / f"{name}.toml"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in FOLDER.glob("*.toml")))
        raise NotFoundError(f"no description of base `{name}` (there are {known})")
    return BaseDescription.read_toml(file)


def make_base(description: BaseDescription, weights: Path, output: Path) -> BaseCard:
    """Write `card.json`, `routing.safetensors` and a copy of the weights to `output`."""
    output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, output / WEIGHTS_FILE)
    file = open_gguf(output / WEIGHTS_FILE)
    config = model_config(file)
    blob = Blob.of_file(output / WEIGHTS_FILE)
    card = BaseCard(
        name=description.name,
        description=description.description,
        license=description.license,
        architecture=config.architecture,  # type: ignore[arg-type]  # checked by pydantic
        parameters=description.parameters,
        layers=config.layers,
        hidden_size=config.hidden_size,
        context_length=config.context_length,
        kv_bytes_per_token=2 * config.layers * config.kv_heads * config.head_dim * HALF_BYTES,
        resident_bytes=blob.size,
        fingerprint=fingerprint(file),
        modules=module_shapes(file, config),
        files=(BaseBlob(blob=blob, sources=description.sources),),
    )
    (output / CARD_FILE).write_bytes(card.canonical())
    engine = TorchEngine(output, device="cpu")
    (output / BASE_ROUTING_FILE).write_bytes(fit_base_routing(engine, output))
    routing = BaseBlob(blob=Blob.of_file(output / BASE_ROUTING_FILE))
    card = card.model_copy(
        update={
            "resident_bytes": engine.memory()["weights"],
            "files": (*card.files, routing),
        }
    )
    (output / CARD_FILE).write_bytes(card.canonical())
    return card


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    make_base(read_description(arguments.name), arguments.weights, arguments.output)


if __name__ == "__main__":
    main()
