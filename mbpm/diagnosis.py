"""What is wrong with this machine or this home, and what to type to mend it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mbpm import facts
from mbpm.home import DEFAULT_BASE, Home
from mbpm.inventory import whole_base, whole_pack
from mbpm.output import size
from mbpm.registries import origins
from mbpm.registries.config import display_names
from specs.base_card import WEIGHTS_FILE
from specs.errors import MbpmError

if TYPE_CHECKING:
    from mbpm.registries.source import Source
    from registry_index.tree import Registry
    from specs.generation import Generation, InstalledPack

LOW_DISK_BYTES = 500_000_000
"""Below this there is no room for the default base and its download."""

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    """`note` is worth knowing and needs no mending."""
    subject: str
    text: str
    hint: str | None = None


@dataclass
class _Findings:
    found: list[Finding] = field(default_factory=list)

    def add(self, level: Level, subject: str, text: str, hint: str | None = None) -> None:
        self.found.append(Finding(level, subject, text, hint))

    @contextmanager
    def looking_at(self, subject: str, hint: str | None = None) -> Iterator[None]:
        """Turn an error on the way into a finding, so that the next thing is looked at too.

        Args:
            subject: What is looked at.
            hint: How to mend whatever is wrong; without one, the error's own.
        """
        try:
            yield
        except MbpmError as error:
            self.add("problem", subject, error.message, hint or error.hint)
        except OSError as error:
            self.add("problem", subject, str(error), hint)


def diagnose(
    home: Home, registries: Callable[[], Iterable[Source]], *, offline: bool = False
) -> list[Finding]:
    """Look at everything; slow only where torch must be imported to see the device.

    Args:
        home: What to look at.
        registries: Opens the registries; may fail as every other part.
        offline: Ask no registry.
    """
    findings = _Findings()
    _versions(findings)
    _device(findings)
    with findings.looking_at("home", "check who owns it, or use another with `--home DIR`"):
        _home(home, findings)
    with findings.looking_at("disk"):
        _disk(home, findings)
    generation = None
    with findings.looking_at("home"):
        generation = home.current()
        _installed(home, generation, findings)
    if generation is not None:
        # packs tell of registries too
        with findings.looking_at("registries"):
            for source in registries():
                name = display_names(home.path, [source.label])[source.label]
                _source(name, source, findings, offline)
    for scheme, url in facts.proxies().items():
        findings.add("ok", "proxy", f"{scheme}: {url}")
    return findings.found


def _versions(findings: _Findings) -> None:
    for name, version in facts.versions().items():
        if version is not None:
            findings.add("ok", name, version)
        else:
            findings.add("problem", name, "is not installed", f"`pip install {name}`")


def _device(findings: _Findings) -> None:
    cpu = facts.cpu()
    features = " ".join(cpu.features) or "features unknown"
    findings.add("ok", "cpu", f"{cpu.name}, {cpu.threads} threads, {features}")
    _native(findings)
    try:
        import torch
    except Exception as error:  # a broken torch fails in many ways, and all are the finding
        findings.add(
            "problem",
            "torch",
            f"cannot be imported ({type(error).__name__}: {error})",
            "`pip install --force-reinstall torch`",
        )
        return
    findings.add("ok", "threads", f"torch computes with {torch.get_num_threads()}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            findings.add(
                "ok", f"cuda:{index}", f"{properties.name}, {size(properties.total_memory)}"
            )
    elif torch.version.cuda:
        findings.add(
            "note",
            "cuda",
            "torch was built for CUDA and finds no device; the processor is used",
            "`nvidia-smi` shows whether the driver sees one",
        )
    else:
        findings.add("ok", "cuda", "no: this torch is for the processor only")


def _native(findings: _Findings) -> None:
    from runtime.native import instruction_set, why_not

    reason = why_not()
    if reason is None:
        with findings.looking_at("native", "unset MBPM_ISA"):
            findings.add("ok", "native", f"the engine for this processor: {instruction_set()}")
    else:
        findings.add(
            "note",
            "native",
            f"the engine for this processor is not here: {reason}; torch answers and "
            "trains, more slowly",
            "install a C++ compiler (`apt install g++`), then `pip install --force-reinstall "
            "--no-deps --no-cache-dir mbpm`",
        )


def _home(home: Home, findings: _Findings) -> None:
    existing = next(p for p in (home.path, *home.path.parents) if p.exists())
    if not existing.is_dir():
        raise MbpmError(f"{existing}: is not a directory", hint="use another with `--home DIR`")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise MbpmError(
            f"{existing}: cannot be written to",
            hint="check who owns it, or use another with `--home DIR`",
        )
    new = "" if home.path.exists() else " (made by the first install)"
    findings.add("ok", "home", f"{home.path}{new}")
    with findings.looking_at("home"):
        origins.read(home)
    if home.journal.exists():
        findings.add(
            "note",
            "home",
            "a change is under way, or was interrupted",
            "the next command that changes something finishes it or takes it back",
        )


def _disk(home: Home, findings: _Findings) -> None:
    found = facts.disk(home)
    text = f"{size(found.store)} used by packs and bases, {size(found.free)} free"
    if found.free < LOW_DISK_BYTES:
        findings.add(
            "problem",
            "disk",
            text,
            f"free {size(LOW_DISK_BYTES - found.free)} more, or use another disk with `--home DIR`",
        )
    else:
        findings.add("ok", "disk", text)
    if found.parts:
        findings.add(
            "note",
            "disk",
            f"{size(found.parts)} of unfinished downloads",
            "give the command that was cut off again and it goes on from there; "
            "or `mbpm clean` drops them",
        )


def _installed(home: Home, generation: Generation, findings: _Findings) -> None:
    if not generation.bases:
        findings.add(
            "note",
            "base",
            "none is installed",
            f"`mbpm install NAME` brings the base of a pack; or `mbpm base install {DEFAULT_BASE}`",
        )
    memory = facts.total_memory()
    for base in generation.bases:
        with findings.looking_at(
            f"base {base.name}", f"`mbpm base install {base.name} --reinstall`"
        ):
            card = home.store.card(base.card)
            home.base_dir(base)
            if not whole_base(home.store, card):
                raise MbpmError("a file is missing or has the wrong size")
            text = f"{size(card.resident_bytes)} of memory when loaded"
            if memory is not None and card.resident_bytes > memory:
                findings.add(
                    "problem",
                    f"base {base.name}",
                    f"{text}, and this machine has {size(memory)}",
                    "use a smaller base; `mbpm base list` shows what each takes",
                )
            else:
                findings.add("ok", f"base {base.name}", text)
            _engine_of(base.name, home.base_dir(base), findings)
    for pack in generation.packs:
        with findings.looking_at(f"pack {pack.name}", f"`mbpm install {pack.name} --reinstall`"):
            _pack(home, pack, generation)
            findings.add("ok", f"pack {pack.name}", pack.version)


def _engine_of(name: str, folder: Path, findings: _Findings) -> None:
    from runtime.gguf_file import model_config, open_gguf
    from runtime.native import UnsupportedError, check_supported, why_not

    if why_not() is not None:
        return
    file = folder / WEIGHTS_FILE
    try:
        check_supported(model_config(open_gguf(file)), file)
    except UnsupportedError as error:
        findings.add("note", f"base {name}", f"{error.message}; torch answers, more slowly")
    except (MbpmError, OSError):
        pass  # `mbpm verify` tells what is damaged


def _pack(home: Home, pack: InstalledPack, generation: Generation) -> None:
    base = generation.base(pack.base)
    if base is None:
        raise MbpmError(f"its base `{pack.base}` is not installed")
    manifest = home.store.manifest(pack.manifest)
    home.pack_dir(pack)
    if not whole_pack(home.store, manifest):
        raise MbpmError("a file is missing or has the wrong size")
    if manifest.base.fingerprint != base.fingerprint:
        raise MbpmError(f"was made for another `{pack.base}` than the one installed")


def _source(name: str, source: Source, findings: _Findings, offline: bool) -> None:
    from mbpm.registries.folder import FolderRegistry

    if isinstance(source, FolderRegistry):
        hint = "publish it again, or restore the file from a copy"
        with findings.looking_at(f"registry {name}", hint):
            _registry(f"registry {name}", source.registry, findings)
        return
    from mbpm.registries.remote import RemoteRegistry

    with findings.looking_at(f"registry {name}"):
        if isinstance(source, RemoteRegistry) and not offline:
            source.refresh()
        said = "not asked, for the network is switched off" if offline else "answers"
        where = "" if name == source.label else f"{source.label}, "
        findings.add("ok", f"registry {name}", f"{where}{said}, bases: {len(source.bases())}")


def _registry(subject: str, registry: Registry, findings: _Findings) -> None:
    names, newer, missing = registry.names(), 0, []
    for name in names:
        index = registry.index(name)
        newer += len(index.newer)
        missing += [x for x in index.lines if not registry.blob_path(x.manifest).is_file()]
    bases = registry.bases()
    if missing:
        line = missing[0]
        raise MbpmError(f"lacks the manifest of {line.name} {line.version}")
    findings.add("ok", subject, f"{registry.root}, packs: {len(names)}, bases: {len(bases)}")
    if newer:
        findings.add(
            "note",
            subject,
            f"versions in it that need a newer mbpm: {newer}",
            "`pip install --upgrade mbpm`",
        )
