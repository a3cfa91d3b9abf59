"""What went wrong with a request, in one line; whether to ask again, and when."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from http import HTTPStatus

from anystep import keys as lineage

AGAIN = frozenset({408, 409, 425, 429})  # and all from 500 on but 501
FIRST, LONGEST = 0.5, 30.0  # seconds of back-off: after the first attempt, and at most
BACKOFF_LANE = 7  # of the row's key, apart from those that sample


class Trouble(Exception):
    """A request that failed: what went wrong, and what the server said of it.

    again: whether asking again may help. status: HTTP's, where there was one. wait: seconds that the server asked for.
    parameter: the one it refused, as its error names it.
    """

    def __init__(
        self,
        message: str,
        again: bool = False,
        said: str = "",
        status: int | None = None,
        wait: float | None = None,
        parameter: str | None = None,
    ) -> None:
        super().__init__(f"{message}: {said}" if said else message)
        self.message, self.again, self.said = message, again, said
        self.status, self.wait, self.parameter = status, wait, parameter


def passing(status: int) -> bool:
    """Whether asking again may get another status."""
    return status in AGAIN or (status >= 500 and status != 501)


def refusal(status: int, said: str, wait: float | None = None, parameter: str | None = None) -> Trouble:
    """The trouble that a status other than 200 stands for; `said` is the server's own line."""
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = f"status {status}"
    return Trouble(phrase, passing(status), said, status, wait, parameter)


def asked_to_wait(value: str | None, now: float) -> float | None:
    """Seconds of a Retry-After header: a number, or an HTTP date seen from `now` (seconds since 1970, UTC). None where
    there is none, or none that can be read. Source: RFC 9110, 10.2.3."""
    if value is None:
        return None
    try:
        seconds = float(value)
        return seconds if 0 <= seconds < 1e9 else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
        return min(max(0.0, when.timestamp() - now), 1e9)
    except (ValueError, TypeError, OverflowError):
        return None


def pause(key: int, attempt: int, asked: float | None) -> float:
    """Seconds before the next attempt, `attempt` counting those made: exponential, with a jitter of half drawn from the
    row's key, and never sooner than the server asked for."""
    u = float(lineage.uniforms(key, attempt, BACKOFF_LANE))
    own = min(FIRST * 2.0 ** (attempt - 1), LONGEST) * (0.5 + u / 2)
    return own if asked is None else asked + own * 0.1


def exhausted(trouble: Trouble, attempts: int, patience: float) -> str:
    """The one line of a failed state: `429 Too Many Requests after 5 attempts, last asked to wait 20 s: slow down`."""
    line = trouble.message + (f" after {attempts} attempts" if attempts > 1 else "")
    if trouble.wait is not None:
        line += f", {'last ' if attempts > 1 else ''}asked to wait {trouble.wait:g} s"
        line += f", more than patience={patience:g}" if trouble.wait > patience else ""
    return f"{line}: {trouble.said}" if trouble.said else line
