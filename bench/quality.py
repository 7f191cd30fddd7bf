"""`quality`: how far engines are from the float32 reference on held-out text, beside llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from bench.engines import open_engine
from bench.held_out import chunks
from bench.inference import Setting
from bench.llama_logits import llama_logits
from bench.peers import SERVER_MISSING, llama_tool
from bench.report import Case, Report, cores, tell
from bench.rounded_cache import Kind, RoundedCache
from runtime.engine import F32, Cache, Engine
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import WEIGHTS_FILE

PEER = "llama.cpp llama-perplexity"
KINDS: tuple[Kind, ...] = ("int8", "float16")
_KV = "reference with {} keys and values"


@dataclass
class Score:
    """What one engine said of every token, beside the reference."""

    kl: list[F32] = field(default_factory=list)
    """Kullback-Leibler divergence from the reference to the engine, in nats."""
    same: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    surprise: list[F32] = field(default_factory=list)
    """Negative log-probability of the token that comes next."""

    def add(self, reference: F32, found: F32, following: Sequence[int]) -> None:
        """Compare log-probabilities [n, vocabulary] of one piece."""
        self.kl.append((np.exp(reference) * (reference - found)).sum(axis=-1))
        self.same.append(reference.argmax(axis=-1) == found.argmax(axis=-1))
        self.surprise.append(-found[np.arange(len(found)), list(following)])

    def figures(self, reference: Score) -> dict[str, tuple[float, str, bool]]:
        """Name -> value, unit, whether more is better."""
        kl = np.concatenate(self.kl) * 1e3
        perplexity, best = (
            float(np.exp(np.concatenate(s.surprise).mean())) for s in (self, reference)
        )
        return {
            "mean KL": (float(kl.mean()), "mnat", False),
            "KL, 99th percentile": (float(np.quantile(kl, 0.99)), "mnat", False),
            "same likeliest token": (100 * float(np.concatenate(self.same).mean()), "%", True),
            "perplexity": (perplexity, "", False),
            "perplexity above the reference": (100 * (perplexity / best - 1), "%", False),
        }


def quality(setting: Setting) -> Report:
    """Divergence, agreement and perplexity of our engines and of llama.cpp."""
    weights = setting.base_dir / WEIGHTS_FILE
    tokenizer = Tokenizer.from_gguf(weights)
    pieces = chunks(tokenizer)
    kind, _, precision = setting.engine.partition("-")
    reference = open_engine("torch", setting.base_dir, cores(), "float32")
    assert isinstance(reference, TorchEngine)
    engine = open_engine(kind, setting.base_dir, cores(), precision or "packed")
    ours: dict[str, Callable[[Sequence[int]], F32]] = {
        f"{setting.engine}, read at once": partial(_at_once, engine),
        f"{setting.engine}, token by token": partial(_one_by_one, engine),
    }
    if not precision:
        if kind != "torch":
            torch_engine = open_engine("torch", setting.base_dir, cores())
            ours["torch, read at once"] = partial(_at_once, torch_engine)
        for kept in KINDS:
            ours[_KV.format(kept)] = partial(_rounded, reference, kept)
    peers: dict[str, Iterator[F32]] = {}
    if llama_tool("llama-perplexity"):
        for name, file in setting.peer_files().items():
            peers[f"{PEER} {name}".rstrip()] = llama_logits(file, pieces, tokenizer)
    exact = Score()
    scores = {name: Score() for name in [*ours, *peers]}
    for number, piece in enumerate(pieces, 1):
        tell(f"piece {number} of {len(pieces)}")
        following = piece[len(piece) // 2 + 1 :]
        right = _at_once(reference, piece)
        exact.add(right, right, following)
        for name, logprobs in ours.items():
            scores[name].add(right, logprobs(piece), following)
        for name, found in peers.items():
            scores[name].add(right, next(found), following)
    count = sum(len(s) for s in exact.surprise)
    described: dict[str, object] = {"base": setting.card.name, "tokens": count}
    described["reference"] = (
        f"{reference.name}, perplexity {exact.figures(exact)['perplexity'][0]:.4f}"
    )
    cases = list(_cases(exact, scores, list(ours), list(peers)))
    return Report("quality", described, cases, [] if peers else [SERVER_MISSING])


def _cases(
    exact: Score, scores: dict[str, Score], ours: list[str], peers: list[str]
) -> Iterator[Case]:
    figures = {name: score.figures(exact) for name, score in scores.items()}
    if _KV.format("int8") in figures:
        eight, sixteen = (figures[_KV.format(kind)]["perplexity"][0] for kind in KINDS)
        yield Case.of_rounds(
            f"{_KV.format('int8')}: perplexity", [eight], [sixteen], _KV.format("float16"), "",
            higher_is_better=False,
        )  # fmt: skip
    for name in ours:
        if name.startswith("reference"):
            continue
        for figure, (value, unit, more) in figures[name].items():
            for peer in peers or [PEER]:
                theirs = [figures[peer][figure][0]] if peer in figures else None
                yield Case.of_rounds(
                    f"{name}: {figure}", [value], theirs, peer, unit, higher_is_better=more
                )


def _rounded(engine: TorchEngine, kind: Kind, piece: Sequence[int]) -> F32:
    return _at_once(engine, piece, RoundedCache(engine, len(piece), kind))


def _at_once(engine: Engine, piece: Sequence[int], cache: Cache | None = None) -> F32:
    """Log-probabilities [n / 2 - 1, vocabulary] of the second half, read in one call."""
    cache = cache or engine.new_cache(len(piece))
    half = len(piece) // 2
    engine.forward(cache, piece[:half], logits="none")
    logits = engine.forward(cache, piece[half:-1], logits="all").logits
    assert logits is not None
    return _log_softmax(logits)


def _one_by_one(engine: Engine, piece: Sequence[int]) -> F32:
    """The same, decoded like an answer: one token per call."""
    cache = engine.new_cache(len(piece))
    half = len(piece) // 2
    engine.forward(cache, piece[:half], logits="none")
    rows = []
    for token in piece[half:-1]:
        logits = engine.forward(cache, [token]).logits
        assert logits is not None
        rows.append(logits[-1].copy())
    return _log_softmax(np.stack(rows))


def _log_softmax(logits: F32) -> F32:
    shifted: F32 = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted
