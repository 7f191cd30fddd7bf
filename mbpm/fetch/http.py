"""httpx without its command line, whose imports take longer than all else of it."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import cast

_COMMAND_LINE = "httpx._main"

# what stands as None cannot be imported, and httpx does well without
_absent = _COMMAND_LINE not in sys.modules
if _absent:
    sys.modules[_COMMAND_LINE] = cast(ModuleType, None)
try:
    import httpx
finally:
    if _absent:
        del sys.modules[_COMMAND_LINE]

__all__ = ["httpx"]
