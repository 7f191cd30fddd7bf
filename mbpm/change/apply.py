"""Carrying a change out under the writer's lock: fetch, check, stage, flip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from specs.errors import IntegrityError, ResolutionError
from specs.generation import Cause, Generation
from specs.plan import Plan

if TYPE_CHECKING:
    from mbpm.change.steps import PackStep, Prepared
    from mbpm.fetch import Wanted
    from mbpm.fetch.network import Network
    from mbpm.output import Output
    from mbpm.store import Store
    from mbpm.transaction import Writer
    from specs.blobs import Blob


def apply(
    writer: Writer,
    prepared: Prepared,
    again: Callable[[], Prepared],
    network: Network,
    out: Output,
    *,
    cause: Cause = "change",
    restores: int | None = None,
) -> tuple[Prepared, Generation]:
    """Make a plan true.

    Args:
        writer: The right to write.
        prepared: What was shown and agreed to.
        again: Makes the plan anew, in case something was installed in between.
        network: The way to registries.
        out: For progress.
        cause: What the history says of it.
        restores: The generation whose content it repeats.

    Returns:
        What was done, which is less than `prepared` where somebody else did some of it meanwhile,
        and the generation that counts now.

    Raises:
        ResolutionError: what is installed changed, and more would have to be done now.
        IntegrityError: a pack or blob is not what it claims to be; nothing was changed.
        MbpmError: as `mbpm.fetch.obtain_all`.
    """
    home, store = writer.home, writer.home.store
    if home.current() != prepared.before or _freed(prepared, store):
        renewed = again()
        if not _within(renewed.plan, prepared.plan):
            raise ResolutionError(
                "what is installed changed in the meantime, and with it this plan",
                hint="run the same command again",
            )
        prepared = renewed
    generation = prepared.before
    if prepared.commits:
        anew = _bring(prepared, store, network, out)
        generation = writer.commit(
            prepared.packs,
            prepared.bases,
            new_packs=[s.manifest for s in prepared.pack_steps],
            new_bases=[s.card for s in prepared.base_steps],
            anew=anew,
            cause=cause,
            restores=restores,
        )
    if prepared.purged:
        from mbpm.garbage import purge

        purge(writer, prepared.purged)
    return prepared, generation


def _freed(prepared: Prepared, store: Store) -> bool:
    """Whether bytes that the plan found in the store are not there any more."""
    packs = [s.manifest.blobs for s in prepared.pack_steps if s.candidate is None]
    bases = [[f.blob for f in s.card.files] for s in prepared.base_steps if s.offer is None]
    return not all(store.has(blob) for blobs in (*packs, *bases) for blob in blobs)


def _within(plan: Plan, agreed: Plan) -> bool:
    """Whether a plan does nothing but what was agreed to; what others did meanwhile is left out,
    and nobody is asked about marks."""
    packs = {(p.name, p.action, p.old, p.new, p.line and p.line.manifest) for p in agreed.packs}
    bases = {(b.name, b.action) for b in agreed.bases}
    return (
        all(
            (p.name, p.action, p.old, p.new, p.line and p.line.manifest) in packs
            for p in plan.packs
            if p.action != "mark"
        )
        and all((b.name, b.action) in bases for b in plan.bases if b.action != "mark")
        and plan.fetch_bytes <= agreed.fetch_bytes
    )


def _bring(prepared: Prepared, store: Store, network: Network, out: Output) -> frozenset[str]:
    """Have every blob in the store and every pack checked, before anything is changed.

    Returns:
        Digests of the manifests and cards whose folders have to be made again.
    """
    from mbpm.fetch import obtain_all, salvage
    from mbpm.files import remove

    damaged = _damaged(prepared, store)
    for digest in damaged:
        salvage(store, digest)
    wanted = _wanted(prepared, store)
    if wanted:
        obtain_all(store, wanted, network, out)
        remove(store.staging / "unpacked")
    fetched = {w.blob.sha256 for w in wanted} - damaged
    for pack in prepared.pack_steps:
        try:
            _check(pack, store)
        except IntegrityError:
            for blob in pack.manifest.blobs:
                if blob.sha256 in fetched:
                    store.drop("blob", blob.sha256)
            raise
    return frozenset(_folders_to_replace(prepared, store))


def _damaged(prepared: Prepared, store: Store) -> frozenset[str]:
    """Blobs of the steps that are in the store but are not what they were when they came: what
    waited there for a long time is looked at again before it is used."""
    from mbpm.inventory import wrong_chunk

    found = {d for s in prepared.pack_steps for d in s.damaged}
    found |= {d for s in prepared.base_steps for d in s.damaged}
    blobs = [b for s in prepared.pack_steps for b in s.manifest.blobs]
    blobs += [f.blob for s in prepared.base_steps for f in s.card.files]
    for blob in {b.sha256: b for b in blobs if b.sha256 not in found}.values():
        if store.has(blob) and wrong_chunk(store.blob_path(blob.sha256), blob):
            found.add(blob.sha256)
    return frozenset(found)


def _folders_to_replace(prepared: Prepared, store: Store) -> Iterator[str]:
    """Manifests and cards whose folder is there, but is not what linking it anew would make it."""
    from mbpm.inventory import whole_base, whole_pack

    for pack in prepared.pack_steps:
        digest = pack.manifest.digest()
        folder = store.pack_path(digest)
        linked = all(_linked(folder, b, store) for b in pack.manifest.blobs)
        if folder.is_dir() and not (linked and whole_pack(store, pack.manifest)):
            yield digest
    for base in prepared.base_steps:
        digest = base.card.digest()
        folder = store.base_path(digest)
        linked = all(_linked(folder, f.blob, store) for f in base.card.files)
        if folder.is_dir() and not (linked and whole_base(store, base.card)):
            yield digest


def _linked(folder: Path, blob: Blob, store: Store) -> bool:
    try:
        return (folder / blob.path).samefile(store.blob_path(blob.sha256))
    except OSError:
        return False


def _wanted(prepared: Prepared, store: Store) -> list[Wanted]:
    from mbpm.fetch import Wanted

    wanted = []
    scratch = store.staging / "unpacked"
    for step in prepared.pack_steps:
        title = f"{step.record.name} {step.record.version}"
        for blob in step.manifest.blobs:
            if not store.has(blob):
                origin = step.candidate.origin if step.candidate else None
                if origin is None:
                    raise IntegrityError(
                        f"{blob.path} of {title} is missing from the store",
                        hint="run the same command again",
                    )
                sources = origin.sources(blob, scratch)
                wanted.append(Wanted(blob, sources, f"{blob.path} of {title}", title))
    for base in prepared.base_steps:
        title = f"base {base.card.name}"
        for file in base.card.files:
            if not store.has(file.blob):
                if base.offer is None:
                    raise IntegrityError(
                        f"{file.blob.path} of {title} is missing from the store",
                        hint="run the same command again",
                    )
                what = f"{file.blob.path} of {title}"
                sources = base.offer.sources(file)
                wanted.append(Wanted(file.blob, sources, what, title, base.offer.folder))
    return wanted


def _check(step: PackStep, store: Store) -> None:
    """Everything that makes a pack fit to run, before it is anywhere near being installed."""
    from registry_index.contents import check_contents, prove_attach

    files = {b.path: store.blob_path(b.sha256) for b in step.manifest.blobs}
    try:
        check_contents(step.manifest, files)
        prove_attach(step.manifest, files, step.card)
    except IntegrityError as error:
        message = error.message
        for name, file in files.items():
            message = message.replace(str(file), name)
        raise IntegrityError(
            f"{step.record.name} {step.record.version}: {message}", hint=error.hint
        ) from None
