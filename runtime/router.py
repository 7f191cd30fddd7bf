"""Which pack takes part: a score per pack, a calibrated threshold, and the right to abstain.

Features of general prompts give the base a whitening: a space in which unrelated directions count
alike (one shared covariance; Mahalanobis scores, Lee et al., arXiv 1807.03888). In it a pack is a
prototype, the direction that separates its own prompts from all others (Fisher's linear
discriminant), or several, one for each kind of its prompts. A prototype's score is 0 for the
average general prompt and 1 for the average one of its kind; the pack's is the highest of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from runtime.engine import F32
from specs.errors import IntegrityError, UsageError
from specs.safetensors_header import read_header, with_sorted_metadata

SHRINKAGE = 1.0
"""Added to every variance of the standardised background: few prompts estimate small ones badly."""
OWN_SHRINKAGE = 1.0
"""The same for a pack's own prompts, relative to the background's whitened unit variance."""
FALSE_FIRES = 0.02
"""The threshold lets this share of general prompts pass."""
LEAST_PROMPTS = 8
"""Fewer own or general prompts than this calibrate nothing."""
HARD_WEIGHT = 0.5
"""How much of what a pack is told apart from is hard negatives, where there are some."""
LEAST_REACH = 0.3
"""The share of a kind's distance from general prompts that hard negatives must leave it."""
MAX_QUESTIONS, MAX_QUESTION_LETTERS = 64, 500
"""Most questions of a sort that a card may hold, and the letters of each."""
MAX_PROTOTYPES = 16
KMEANS_ROUNDS = 30
FORMAT = "1"


@dataclass(frozen=True)
class BaseRouting:
    """A base's whitening: z = (feature - mean) @ whitening."""

    fingerprint: str
    layer: int
    mean: F32
    """[D]."""
    whitening: F32
    """[D, D]; its values fit float16, which is how they are stored."""

    def whiten(self, features: F32) -> F32:
        """[n, D] or [D] features in the whitened space."""
        return np.asarray((features - self.mean) @ self.whitening, dtype=np.float32)

    def save(self) -> bytes:
        """The bytes of the base's `routing.safetensors`."""
        tensors: dict[str, Any] = {
            "mean": self.mean,
            "whitening": self.whitening.astype(np.float16),
        }
        metadata = {"format": FORMAT, "base": self.fingerprint, "layer": str(self.layer)}
        return with_sorted_metadata(save(tensors, metadata))

    @classmethod
    def load(cls, file: Path, fingerprint: str) -> BaseRouting:
        """Read a base's `routing.safetensors`.

        Raises:
            IntegrityError: it is malformed, or of another base than `fingerprint`.
        """
        tensors, metadata = _read(file, fingerprint)
        mean, whitening = _tensor(tensors, "mean", 1, file), _tensor(tensors, "whitening", 2, file)
        if whitening.shape != (mean.size, mean.size):
            raise IntegrityError(f"{file}: tensor `whitening` does not match `mean`")
        return cls(fingerprint, int(_number(metadata, "layer", file)), mean, whitening)


@dataclass(frozen=True)
class PackRouting:
    """A pack's prototypes and what calibration found."""

    fingerprint: str
    prototypes: F32
    """[k, D] in the base's whitened space; score = the highest whitened feature . prototype."""
    threshold: float
    recall: float
    """Share of its own held-out prompts that pass the threshold."""
    false_fires: float
    """Share of general prompts, unseen in calibration, that do."""
    validation: tuple[str, ...] = ()
    """Held-out questions of its own, by which others can measure what they would take of them."""
    negatives: tuple[str, ...] = ()
    """Questions of others that lay nearest, and that it was told apart from."""

    @classmethod
    def unreachable(cls, base: BaseRouting) -> PackRouting:
        """Of a pack that no question is routed to, because none of its own are known."""
        return cls(base.fingerprint, np.zeros_like(base.mean)[None], 1.0, 0.0, 0.0)

    def score(self, whitened: F32) -> F32:
        """Scores of [n, D] whitened features, or of one."""
        return np.asarray((whitened @ self.prototypes.T).max(axis=-1), dtype=np.float32)

    def save(self) -> bytes:
        """The bytes of the pack's `routing.safetensors`."""
        metadata = {
            "format": FORMAT,
            "base": self.fingerprint,
            "threshold": repr(self.threshold),
            "recall": repr(self.recall),
            "false_fires": repr(self.false_fires),
        }
        for name in ("validation", "negatives"):
            if questions := getattr(self, name):
                metadata[name] = json.dumps(questions, ensure_ascii=False)
        # safetensors writes an array as it lies in memory
        prototypes = np.ascontiguousarray(self.prototypes)
        one = len(prototypes) == 1
        tensors = {"prototype": prototypes[0]} if one else {"prototypes": prototypes}
        return with_sorted_metadata(save(tensors, metadata))

    @classmethod
    def load(cls, file: Path, base: BaseRouting) -> PackRouting:
        """Read a pack's `routing.safetensors`.

        Raises:
            IntegrityError: it is malformed, or was made for another base.
        """
        numbers = sum(math.prod(t.shape) for t in read_header(file).tensors.values())
        if numbers > MAX_PROTOTYPES * base.mean.size:  # before any of them is read
            raise _unfit("its numbers do", base, file)
        tensors, metadata = _read(file, base.fingerprint)
        return cls(
            base.fingerprint,
            _prototypes(tensors, base, file),
            threshold=_number(metadata, "threshold", file),
            recall=_number(metadata, "recall", file),
            false_fires=_number(metadata, "false_fires", file),
            validation=_questions(metadata, "validation", file),
            negatives=_questions(metadata, "negatives", file),
        )


@dataclass(frozen=True)
class Score:
    """How one pack fared."""

    pack: str
    score: float
    threshold: float
    reason: str
    """The outcome in words."""


@dataclass(frozen=True)
class Decision:
    """Which pack takes part; None: the base alone. Scores come best first."""

    pack: str | None
    scores: tuple[Score, ...]


class Router:
    """Decides among the packs of one base."""

    def __init__(self, base: BaseRouting, packs: Mapping[str, PackRouting]) -> None:
        self.base = base
        self._packs = dict(packs)

    def decide(self, feature: F32) -> Decision:
        """The pack whose threshold is passed by most, if any is.

        Args:
            feature: [D], see runtime.features.
        """
        whitened = self.base.whiten(feature)
        scored = [(n, p, float(p.score(whitened))) for n, p in self._packs.items()]
        # where 0 is the threshold and 1 the pack's average own prompt, packs can be compared
        scored.sort(key=lambda x: (-(x[2] - x[1].threshold) / max(1 - x[1].threshold, 0.05), x[0]))
        passed = [name for name, pack, score in scored if score >= pack.threshold]
        chosen = passed[0] if passed else None
        scores = []
        for name, pack, score in scored:
            side = "above" if score >= pack.threshold else "below"
            outcome = f"{side} its threshold {pack.threshold:.2f}"
            if name in passed[1:]:
                outcome += f", but {chosen} is further above its own"
            scores.append(Score(name, score, pack.threshold, f"score {score:.2f}, {outcome}"))
        return Decision(chosen, tuple(scores))


def fit_base(features: F32, groups: Sequence[str], *, fingerprint: str, layer: int) -> BaseRouting:
    """The whitening of a base from features [n, D] of general prompts.

    Args:
        groups: kind of each prompt; a kind counts by the square root of its size, so that many
            prompts of one kind do not drown the others.

    Raises:
        UsageError: too few prompts.
    """
    if len(features) < LEAST_PROMPTS:
        raise UsageError(f"{len(features)} prompts are too few (expected {LEAST_PROMPTS} or more)")
    sizes = {g: list(groups).count(g) for g in set(groups)}
    weights = np.array([sizes[g] ** -0.5 for g in groups])
    weights /= weights.sum()
    x = features.astype(np.float64)
    mean = weights @ x
    centred = x - mean
    covariance = (centred * weights[:, None]).T @ centred
    deviation = np.sqrt(np.diag(covariance)) + 1e-6
    correlation = covariance / np.outer(deviation, deviation)
    values, vectors = np.linalg.eigh(correlation)
    whitening = vectors / np.sqrt(np.maximum(values, 0) + SHRINKAGE) / deviation[:, None]
    # what is stored is what is used
    rounded = whitening.astype(np.float16).astype(np.float32)
    if not np.isfinite(rounded).all():
        raise UsageError("the prompts are too much alike to calibrate routing")
    return BaseRouting(fingerprint, layer, mean.astype(np.float32), rounded)


def fit_pack(
    base: BaseRouting,
    own_train: F32,
    own_heldout: F32,
    background_heldout: F32,
    hard: F32 | None = None,
    kinds: int = 1,
) -> PackRouting:
    """A pack's prototypes and threshold.

    Args:
        own_train: features [n, D] of the pack's own prompts.
        own_heldout: features of others of its prompts, for `recall` only.
        background_heldout: features of general prompts that did not fit the base. Each half gives
            the threshold at which the other half's false fires are counted; the threshold that is
            kept comes from all.
        hard: features of prompts that are not its own although they lie near; they count for
            HARD_WEIGHT of everything that is not its own.
        kinds: Its own prompts are sorted into so many kinds, each with a prototype; into fewer
            where one would have less than LEAST_PROMPTS.

    Raises:
        UsageError: too few prompts.
    """
    for kind, rows in (("own", own_train), ("general", background_heldout)):
        if len(rows) < LEAST_PROMPTS:
            raise UsageError(
                f"{len(rows)} {kind} prompts are too few to calibrate routing "
                f"(expected {LEAST_PROMPTS} or more)"
            )
    own = base.whiten(own_train).astype(np.float64)
    sorts = _sorted(own, kinds)
    means = np.stack([own[sorts == sort].mean(axis=0) for sort in range(sorts.max() + 1)])
    within = np.cov((own - means[sorts]).T, bias=True)
    # whitened, general prompts have mean 0 and unit covariance
    others, away = np.eye(own.shape[1]), np.zeros(own.shape[1])
    if hard is not None and len(hard):
        near = base.whiten(hard).astype(np.float64)
        away = HARD_WEIGHT * near.mean(axis=0)
        second = near.T @ near / len(near)
        others = (1 - HARD_WEIGHT) * others + HARD_WEIGHT * second - np.outer(away, away)
    scatter = within + others + OWN_SHRINKAGE * np.eye(own.shape[1])
    prototypes = np.linalg.solve(scatter, (means - away).T).T
    alone = np.linalg.solve(scatter, means.T).T
    reach, full = ((p * means).sum(axis=1) for p in (prototypes, alone))
    # a kind that lies where the hard negatives do would lift the threshold of all
    kept = reach >= min(LEAST_REACH, (reach / full).max()) * full
    if reach[kept].min() <= 0:
        prototypes, reach = alone, full
    prototypes = prototypes[kept] / reach[kept, None]
    scores = (base.whiten(background_heldout) @ prototypes.T).max(axis=1)
    own_scores = (base.whiten(own_heldout) @ prototypes.T).max(axis=1)
    halves = scores[0::2], scores[1::2]
    fires = [float(np.sum(other >= _threshold(half))) for half, other in (halves, halves[::-1])]
    threshold = _threshold(scores)
    return PackRouting(
        fingerprint=base.fingerprint,
        prototypes=prototypes.astype(np.float32),
        threshold=threshold,
        recall=float(np.mean(own_scores >= threshold)) if len(own_scores) else 0.0,
        false_fires=sum(fires) / len(scores),
    )


def _sorted(points: Any, kinds: int) -> Any:
    """Which of at most so many kinds each of points [n, D] is, counted from 0 (k-means).

    It begins with far-off points (Arthur and Vassilvitskii, "k-means++", 2007), by a fixed seed.
    """
    rng = np.random.default_rng(0)
    centres = points[:1]
    for _ in range(kinds - 1):
        far = _distances(points, centres).min(axis=1)
        if not far.any():
            break
        centres = np.vstack([centres, points[rng.choice(len(points), p=far / far.sum())]])
    for _ in range(KMEANS_ROUNDS):
        nearest = _distances(points, centres).argmin(axis=1)
        centres = np.stack([points[nearest == k].mean(axis=0) for k in np.unique(nearest)])
    sizes = np.bincount(_distances(points, centres).argmin(axis=1), minlength=len(centres))
    kept = centres[sizes >= LEAST_PROMPTS] if sizes.max() >= LEAST_PROMPTS else centres[:1]
    return np.unique(_distances(points, kept).argmin(axis=1), return_inverse=True)[1]


def _distances(points: Any, centres: Any) -> Any:
    """[n, D], [k, D] -> squared distances [n, k]."""
    return np.stack([((points - centre) ** 2).sum(axis=1) for centre in centres], axis=1)


def _threshold(background: Any) -> float:
    """What FALSE_FIRES of these scores reach; never as low as half-way to nothing in common."""
    return max(float(np.quantile(background, 1 - FALSE_FIRES)), 0.2)


def _read(file: Path, fingerprint: str) -> tuple[dict[str, Any], dict[str, str]]:
    metadata = read_header(file).metadata
    if metadata.get("format") != FORMAT:
        raise IntegrityError(f"{file}: is not routing data of format {FORMAT}")
    if metadata.get("base") != fingerprint:
        raise IntegrityError(
            f"{file}: was made for base {metadata.get('base', '')[:12]}, not {fingerprint[:12]}"
        )
    try:
        return load_file(file), metadata
    except (SafetensorError, ValueError, KeyError) as error:
        raise IntegrityError(f"{file}: is not a usable safetensors file ({error})") from None


def _tensor(tensors: Mapping[str, Any], name: str, dimensions: int, file: Path) -> F32:
    tensor = tensors.get(name)
    if tensor is None or tensor.ndim != dimensions or tensor.dtype.kind != "f":
        raise IntegrityError(f"{file}: has no tensor `{name}` of {dimensions} dimensions")
    values: F32 = tensor.astype(np.float32)
    if not np.isfinite(values).all():
        raise IntegrityError(f"{file}: tensor `{name}` holds NaN or infinity")
    return values


def _prototypes(tensors: Mapping[str, Any], base: BaseRouting, file: Path) -> F32:
    """[k, D], from the tensor `prototype` [D] or `prototypes` [k, D]."""
    name, dimensions = ("prototypes", 2) if "prototypes" in tensors else ("prototype", 1)
    found = np.atleast_2d(_tensor(tensors, name, dimensions, file))
    if found.shape[1] != base.mean.size or not 1 <= len(found) <= MAX_PROTOTYPES:
        raise _unfit(f"tensor `{name}` does", base, file)
    return found


def _unfit(what: str, base: BaseRouting, file: Path) -> IntegrityError:
    return IntegrityError(
        f"{file}: {what} not fit the base's features (expected at most {MAX_PROTOTYPES} of "
        f"{base.mean.size} numbers)"
    )


def _questions(metadata: Mapping[str, str], key: str, file: Path) -> tuple[str, ...]:
    try:
        found = json.loads(metadata.get(key, "[]"))
    except (ValueError, RecursionError):
        found = None
    if (
        not isinstance(found, list)
        or len(found) > MAX_QUESTIONS
        or not all(isinstance(q, str) and len(q) <= MAX_QUESTION_LETTERS for q in found)
    ):
        raise IntegrityError(
            f"{file}: metadata `{key}` is not a list of at most {MAX_QUESTIONS} questions of at "
            f"most {MAX_QUESTION_LETTERS} letters"
        )
    return tuple(found)


def _number(metadata: Mapping[str, str], key: str, file: Path) -> float:
    try:
        value = float(metadata[key])
    except (KeyError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise IntegrityError(f"{file}: metadata `{key}` is not a number")
    return value
