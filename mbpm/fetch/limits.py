"""How patient and how greedy transfers are. Read when they are used, so that tests may change them.

Digests decide what is right; these only decide when to stop hoping.
"""

from __future__ import annotations

RETRIES = 5
"""Attempts in a row without anything new before a source is given up."""
PROGRESS_BYTES = 64 * 1024
"""What an attempt must have brought of a chunk to count as progress; a whole chunk always does."""
BACKOFF_SECONDS = 0.5
"""The first pause between two attempts; doubled each time, and shortened at random."""
MAX_BACKOFF_SECONDS = 8.0
MAX_WAIT_SECONDS = 60.0
"""The longest pause a server's `Retry-After` can ask for."""
CONNECT_SECONDS = 15.0
STALL_SECONDS = 30.0
"""A connection that brings nothing for so long, or less than MIN_RATE, is opened anew."""
ANSWER_SECONDS = 60.0
"""A server that has not sent its headers by then is asked anew, however busily it sends."""
MIN_RATE = 500.0
"""Bytes per second."""
POLL_SECONDS = 0.5
"""How long a reader sleeps before it looks whether it should stop."""
WRONG_RETRIES = 2
"""How often a chunk that came wrong is asked for again before the source is doubted."""
WRONG_CHUNKS = 3
"""So many chunks that stay wrong, and the source holds something else."""
CONNECTIONS = 4
"""Per host."""
TRANSFERS = 4
"""Files on their way at a time."""
SEGMENT_CHUNKS = 16
"""The most chunks one request asks for while several connections share a file."""
MIN_SEGMENT_CHUNKS = 4
RELIEF_SECONDS = 2.0
"""A connection that will be longer than this at its chunks gives half of them to an idle one."""
READ_BYTES = 1 << 20
DIRECT_BYTES = 8 * 1024 * 1024
"""Bodies longer than this are read from the connection itself (body.py)."""
SYNC_BYTES = 64 * 1024 * 1024
"""After so many new bytes a part is written through to the disk, while more are fetched."""
MAX_REDIRECTS = 10
LEAVE_SECONDS = 2.0
"""How long a command that was stopped waits for its transfers to give their part files up."""
