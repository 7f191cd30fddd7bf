"""`mbpm export`: a pack in another program's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mbpm.state import State
from specs.errors import UsageError

FORMATS = ("peft", "gguf", "merged-gguf", "ollama")


def command(
    ctx: typer.Context,
    pack: Annotated[
        str,
        typer.Argument(
            metavar="PACK", help="An installed pack, a pack folder or a `.mbpack` archive"
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the files go: a new or empty folder")
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="peft, gguf, merged-gguf or ollama")
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="For `merged-gguf` and `ollama`: the type of the matrices that change, F32, F16, "
            "Q8_0, Q5_0, Q4_1 or Q4_0 [default: Q8_0]",
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME", help="For `peft`: the repository PEFT is to load as the base"
        ),
    ] = None,
) -> None:
    """Write a pack for another program, and say what it could not carry.

    `peft` is an adapter folder as the Hugging Face Hub has them. `gguf` is an adapter that
    llama.cpp loads beside the base (`llama-server --model BASE --lora adapter.gguf`). `merged-gguf`
    is the whole model with the pack merged into it. `ollama` is that with a Modelfile
    (`ollama create NAME -f DIR/Modelfile`).

    What was written is read back and its logits compared with the pack's own.

    $ mbpm export medical --to peft medical-peft --base-model HuggingFaceTB/SmolLM2-135M-Instruct
    $ mbpm export medical --to gguf medical-gguf
    """
    state: State = ctx.obj
    out = state.out
    from mbpm.files import is_free, whole_folder

    if to not in FORMATS:
        raise UsageError(f"`--to {to}` is no format (expected {', '.join(FORMATS)})")
    if kind is not None and to not in ("merged-gguf", "ollama"):
        raise UsageError("`--type` goes with `--to merged-gguf` and `--to ollama`")
    if base_model is not None and to != "peft":
        raise UsageError("`--base-model` goes with `--to peft`")
    if not is_free(folder):
        raise UsageError(f"{folder}: is no empty folder", hint="name one that does not exist yet")

    from mbpm.interchange import as_json, show
    from mbpm.pack_place import base_of, opened
    from trainer.gguf_write import FILE_TYPES
    from trainer.interchange.export import export

    kind = (kind or "Q8_0").upper()
    if kind not in FILE_TYPES:
        raise UsageError(f"`--type {kind}` is not one of {', '.join(FILE_TYPES)}")
    with opened(state, pack) as found:
        base = base_of(state, found.manifest)
        with whole_folder(folder) as partial:
            done = export(
                state.home.base_dir(base),
                found.place,
                found.manifest,
                to,  # type: ignore[arg-type]  # checked above
                partial,
                kind=kind,
                base_model=base_model,
                say=out.note,
            )
        manifest = found.manifest
    out.line(f"exported {manifest.name} {manifest.version} to {folder}: {', '.join(done.files)}")
    show(out, done.agreement, done.lost)
    out.result(
        {
            "pack": {"name": manifest.name, "version": manifest.version},
            "format": to,
            "folder": str(folder),
            "files": list(done.files),
            **as_json(done.agreement, done.lost),
        }
    )
