"""Tasks and the Python programs that solve them: `codeio-hq.jsonl.gz` of reasoning-gym.

A gzip of a JSON array whose objects have `task_description`, `input_output_spec` and `code_sample`
(a program with `main_solution`). Only programs that parse, import no more than the standard library
and numpy, and draw no random numbers of Python's are taken; nothing is run. The group is the task.
"""

from __future__ import annotations

import ast
import random
import re
import warnings
import zlib
from typing import Annotated

from pydantic import Field

from specs.errors import IntegrityError
from specs.model import Contract
from trainer.data.converters.objects import array, text
from trainer.data.converters.taking import taken
from trainer.data.example import Example, group_of

KIND = "task-to-program"
MAX_BYTES = 128 * 1024 * 1024
ALLOWED = re.compile(
    "abc|ast|base64|bisect|calendar|cmath|collections|copy|dataclasses|datetime|decimal|enum"
    "|fractions|functools|hashlib|heapq|inspect|itertools|json|math|numbers|operator|pprint|re"
    "|statistics|string|struct|sys|textwrap|time|typing|unicodedata|numpy"
)
_BOILERPLATE = re.compile(
    r"^# *(import necessary|main function|all class and function|they will be used)[^\n]*\n",
    re.MULTILINE | re.IGNORECASE,
)


class CodeIoOptions(Contract):
    """What becomes an example."""

    longest: Annotated[int, Field(ge=100)]
    """Programs of more characters are left out."""


def convert(raw: bytes, options: CodeIoOptions, seed: int) -> list[Example]:
    """Examples of all usable programs.

    Raises:
        IntegrityError: `raw` is not that file.
    """
    made: dict[str, Example] = {}
    for row in array(_unpacked(raw), "codeio"):
        task = " ".join(text(row, "task_description", "codeio").split())
        spec = text(row, "input_output_spec", "codeio").strip()
        program = _BOILERPLATE.sub("", text(row, "code_sample", "codeio")).strip()
        if not task or len(program) > options.longest or not usable(program):
            continue
        prompt = f"Write a Python function `main_solution`. {task}\n\n{spec}"
        answer = f"```python\n{program}\n```"
        made.setdefault(task, Example.of_pair(prompt, answer, group_of(task), kind=KIND))
    return taken(list(made.values()), random.Random(seed), "codeio: holds no usable program")


def _unpacked(raw: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    try:
        data = stream.decompress(raw, MAX_BYTES)
    except zlib.error as error:
        raise IntegrityError(f"codeio: is damaged gzip ({error})") from None
    if stream.unconsumed_tail or not stream.eof:
        raise IntegrityError(f"codeio: is cut, or unpacks to more than {MAX_BYTES:,} bytes")
    return data


def usable(program: str) -> bool:
    """Whether a program parses, defines `main_solution` and imports nothing unusual."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else (node.module or "").split(".")[0])
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return all(map(ALLOWED.fullmatch, names)) and "main_solution" in defined
