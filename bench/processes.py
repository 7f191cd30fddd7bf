"""Child processes that are measured in turns: paused while the other side runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.report import cores
from specs.errors import MbpmError

START_SECONDS = 120.0


class Child:
    """A process that can be paused, so that its idle threads take no time from the other side."""

    def __init__(self, command: list[str], *, threads: int, pipes: bool) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
        pipe = subprocess.PIPE if pipes else subprocess.DEVNULL
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment, text=True
        )

    def pause(self) -> None:
        """Stop its threads; where the system has no such signal, they are left to idle."""
        if hasattr(signal, "SIGSTOP"):
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run again."""
        if hasattr(signal, "SIGCONT"):
            self.process.send_signal(signal.SIGCONT)

    def _read(self) -> dict[str, Any]:
        """One JSON line of its output.

        Raises:
            MbpmError: it says what is wrong, or ended.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise MbpmError(f"the measured process ended with code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise MbpmError(str(answer["error"]))
        return answer

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class TrainWorker(Child):
    """One side of `train` (`bench.train_worker`), asked over its standard input."""

    def __init__(self, kind: str, base_dir: Path, memory: int) -> None:
        threads = cores()
        command = ["-m", "bench.train_worker", kind, str(base_dir), str(threads), str(memory)]
        super().__init__([sys.executable, *command], threads=threads, pipes=True)
        self._read()

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Train; what it took."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return self._read()


class Worker(Child):
    """Our engine in a process of its own (`bench.worker`), asked over its standard input."""

    def __init__(
        self,
        base_dir: Path,
        engine: str,
        packs: Sequence[Path] = (),
        *,
        threads: int | None = None,
    ) -> None:
        threads = threads or cores()
        command = [sys.executable, "-m", "bench.worker", str(base_dir), engine, str(threads)]
        super().__init__([*command, *map(str, packs)], threads=threads, pipes=True)
        hello = self._read()
        self.engine, self.bytes_per_token = str(hello["engine"]), int(hello["bytes_per_token"])

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have the worker do something (a method of `bench.worker.Jobs`): its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._read()


@contextmanager
def neighbour() -> Iterator[None]:
    """Another process of this machine that is never idle."""
    with Child([sys.executable, "-c", "while True: pass"], threads=1, pipes=False):
        yield


class LlamaServer(Child):
    """llama.cpp's server with one slot and no prompt cache, over HTTP on this machine."""

    def __init__(
        self,
        binary: Path,
        weights: Path,
        *,
        threads: int | None = None,
        context: int = 2048,
        lora: Path | None = None,
        poll_seconds: float = 0.1,
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        threads = threads or cores()
        command = [str(binary), "-m", str(weights), "-t", str(threads), "-tb", str(threads)]
        command += ["-c", str(context), "-np", "1", "-cram", "0", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--offline", *(["--lora", str(lora)] if lora else [])]
        super().__init__(command, threads=threads, pipes=False)
        self._wait(poll_seconds)

    def _wait(self, poll_seconds: float) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=5):  # noqa: S310
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(poll_seconds)
        self.process.kill()
        raise MbpmError(f"llama-server did not start (code {self.process.wait()})")

    def complete(self, prompt: list[int], new: int) -> dict[str, Any]:
        """The `/completion` answer: greedy, exactly `new` tokens, everything computed afresh."""
        body = {
            "prompt": prompt,
            "n_predict": new,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
            "return_tokens": True,
        }
        request = urllib.request.Request(  # noqa: S310
            f"{self.address}/completion",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310
            value: dict[str, Any] = json.load(answer)
        return value


def first_token(binary: Path, weights: Path, question: str) -> float:
    """Seconds from starting llama.cpp's server to the first letters of its answer to a question."""
    body = {
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 2,
        "temperature": 0,
        "stream": True,
    }
    start = time.perf_counter()
    with LlamaServer(binary, weights, poll_seconds=0.002) as server:
        request = urllib.request.Request(  # noqa: S310
            f"{server.address}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            for line in answer:
                event = line.removeprefix(b"data: ").strip()
                if event.startswith(b"{"):
                    choices = json.loads(event)["choices"]
                    if choices and choices[0]["delta"].get("content"):
                        return time.perf_counter() - start
    raise MbpmError("llama-server gave no answer")


_LAUNCHER = """
import json, os, sys
null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=null)
_, status, usage = os.wait4(pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss]))
"""


def peak_resident(command: list[str]) -> int:
    """Run a command to its end and return the most memory it had resident, in bytes.

    A child begins with its parent's peak, so a parent of a few megabytes starts it.

    Raises:
        MbpmError: the command failed, or this system does not tell.
    """
    if not hasattr(os, "wait4"):
        raise MbpmError("this system does not tell the peak memory of a process")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    code, peak = json.loads(done.stdout) if done.returncode == 0 else (done.returncode, 0)
    if code:
        raise MbpmError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def resident_of(process_id: int) -> int | None:
    """The peak resident bytes of a running process; None where the system does not tell."""
    status = Path(f"/proc/{process_id}/status")
    if not status.is_file():
        return None
    for line in status.read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
