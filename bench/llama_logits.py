"""llama.cpp's log-probabilities of a text, through its own `llama-perplexity`."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.peers import llama_tool
from bench.report import cores
from runtime.engine import F32
from runtime.tokenizer import Tokenizer
from specs.errors import MbpmError

HEADER = 8 + 3 * 4
"""`_logits_`, then int32 context, vocabulary and number of pieces."""


def llama_logits(
    weights: Path, pieces: Sequence[Sequence[int]], tokenizer: Tokenizer, *options: str
) -> Iterator[F32]:
    """float32 log-probabilities [n / 2 - 1, vocabulary] of every piece's second half.

    Position i predicts token i + 1, from n / 2 on, without the last one. The file has them in 16
    bits, within 16 of the likeliest: steps of 0.0003 (`log_softmax` in its perplexity.cpp).

    Raises:
        MbpmError: it failed, or reads the text as other tokens than we do.
    """
    tool = llama_tool("llama-perplexity")
    assert tool is not None
    length = len(pieces[0])
    wanted = np.array(pieces, np.int32)
    with tempfile.TemporaryDirectory() as folder:
        text, out = Path(folder) / "text", Path(folder) / "logits"
        text.write_bytes(b"".join(tokenizer.token_bytes(t) for piece in pieces for t in piece))
        command = [str(tool), "-m", str(weights), "-f", str(text), "-c", str(length)]
        command += ["-b", str(length), "-ub", str(length), "-t", str(cores()), *options]
        done = subprocess.run(
            [*command, "--kl-divergence-base", str(out)], capture_output=True, text=True
        )
        if done.returncode or not out.is_file():
            raise MbpmError(f"llama-perplexity failed: {done.stderr.strip()[-500:]}")
        with out.open("rb") as stream:
            head = np.frombuffer(stream.read(HEADER), np.int32)[2:]
            context, vocabulary, count = (int(n) for n in head)
            tokens = np.frombuffer(stream.read(4 * context * count), np.int32)
            if not np.array_equal(tokens.reshape(count, context)[: len(pieces)], wanted):
                raise MbpmError(
                    "llama.cpp reads the text as other tokens than the base's tokenizer"
                )
            row = 2 * ((vocabulary + 1) // 2) + 4
            for _ in pieces:
                raw = stream.read(2 * row * (context - 1 - context // 2))
                yield _unpacked(np.frombuffer(raw, np.uint16).reshape(-1, row), vocabulary)


def _unpacked(rows: npt.NDArray[np.uint16], vocabulary: int) -> F32:
    head = np.ascontiguousarray(rows[:, :4]).view(np.float32)  # scale, smallest
    values: F32 = rows[:, 4 : 4 + vocabulary].astype(np.float32)
    values *= head[:, :1]
    values += head[:, 1:2]
    return values
