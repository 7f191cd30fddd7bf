"""When to try again, after how long, and when to stop."""

from __future__ import annotations

import contextlib
import random
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpcore

from mbpm.fetch import limits
from mbpm.fetch.http import httpx
from mbpm.fetch.job import StoppedError
from specs.errors import AuthError, MbpmError, NetworkError


class AgainError(Exception):
    """An attempt that failed in a way that another may not."""

    def __init__(
        self,
        reason: str,
        *,
        kind: type[MbpmError] = NetworkError,
        busy: bool = False,
        wait: float | None = None,
    ) -> None:
        """
        Args:
            reason: In words.
            kind: What it becomes once patience ends.
            busy: The server has enough of us: fewer connections would do better.
            wait: Seconds the server asks for.
        """
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.busy = busy
        self.wait = wait


class Patience:
    """The attempts of one reader; each bit of progress renews it."""

    def __init__(
        self,
        mark: Callable[[], int],
        say: Callable[[str], None],
        stopped: threading.Event,
        *,
        quiet_seconds: float = 0.0,
    ) -> None:
        """
        Args:
            mark: How much is verified so far, whoever fetched it.
            say: Told why and for how long we wait.
            stopped: Ends the waiting.
            quiet_seconds: Nothing is said of shorter waits.
        """
        self._mark, self._say, self._stopped = mark, say, stopped
        self._quiet_seconds = quiet_seconds
        self._failures = 0
        self._seen = mark()

    def after(self, failure: AgainError, *, progress: bool = False) -> None:
        """Wait before the next attempt.

        Args:
            failure: Why the last one failed.
            progress: It brought something that is kept.

        Raises:
            MbpmError: `limits.RETRIES` attempts in a row brought nothing new.
            StoppedError: the waiting was ended.
        """
        now = self._mark()
        renewed = progress or now > self._seen
        self._failures = 1 if renewed else self._failures + 1
        self._seen = now
        if self._failures >= limits.RETRIES:
            raise failure.kind(f"{failure.reason} ({limits.RETRIES} attempts without progress)")
        pause = limits.BACKOFF_SECONDS * 2 ** (self._failures - 1)
        pause = min(limits.MAX_BACKOFF_SECONDS, pause) * random.uniform(0.5, 1.0)
        if failure.wait is not None:
            pause = max(pause, min(failure.wait, limits.MAX_WAIT_SECONDS))
        after = f" in {pause:.0f} s" if pause >= 2 else ""
        if pause >= self._quiet_seconds:
            self._say(f"{failure.reason}; trying again{after}")
        if self._stopped.wait(pause):
            raise StoppedError
        self._say("")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds a server asks to wait, whether it writes seconds or a date; None where it does not.

    A date counts from the server's own `Date`: this machine's clock may be wrong.
    """
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text[:9])
    then = _date(text)
    if then is None:
        return None
    now = _date(headers.get("date", "")) or datetime.now(timezone.utc)
    return max(0.0, (then - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn what httpx raises into AgainError, or into an MbpmError where trying again is useless.

    Raises:
        AgainError, NetworkError, AuthError: instead.
    """
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError) as error:
        raise NetworkError(f"is not an address that can be fetched ({error})") from None
    except (httpx.ConnectTimeout, httpx.PoolTimeout):
        raise AgainError(f"no connection within {limits.CONNECT_SECONDS:.0f} s") from None
    except (httpx.TimeoutException, httpcore.TimeoutException):
        raise AgainError(f"nothing came for {limits.STALL_SECONDS:.0f} s") from None
    except httpx.ProxyError as error:
        if str(error).startswith("407"):
            raise AuthError("the proxy wants a user name and a password") from None
        raise AgainError(f"the proxy answers {_words(error)}") from None
    except (httpx.TransportError, httpcore.NetworkError, httpcore.ProtocolError) as error:
        if _is_certificate_error(error):
            raise NetworkError(
                f"its certificate is not trusted ({_words(error)})",
                hint="`MBPM_CERT=FILE` trusts the certificates in a file, such as a company's own",
            ) from None
        raise AgainError(_words(error)) from None
    except httpx.HTTPError as error:
        raise NetworkError(_words(error)) from None


def _is_certificate_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _words(error: Exception) -> str:
    text = re.sub(r"^\[Errno -?\d+\] ", "", str(error))
    return text[:1].lower() + text[1:] if text else type(error).__name__
