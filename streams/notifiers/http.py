"""Posting to receivers: what an answer means, and bounds on waiting for one."""

from collections.abc import Mapping

import aiohttp

from streams.notifiers.base import Refused, RetryLater

# Only what says that the content itself is bad. All else (401 after a rotation, 404 in a roll-out, 5xx) may pass.
_REFUSALS = frozenset({400, 413, 422})


class Poster:
    """Posts JSON to one address, over connections that are kept. Redirects are not followed."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Post and wait for the answer's status; its body is not read.

        Raises:
            RetryLater: no answer in time, no connection, or an answer other than success and refusal.
            Refused: the receiver says that the content is bad.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        headers = {"content-type": "application/json", **(headers or {})}
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                status, retry_after = answer.status, answer.headers.get("retry-after")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RetryLater(type(error).__name__) from error
        if status in _REFUSALS:
            raise Refused(f"status {status}")
        if not 200 <= status < 300:
            raise RetryLater(f"status {status}", _seconds(retry_after))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _seconds(retry_after: str | None) -> float | None:
    """The header's number of seconds; its other form, a date, is left to our own back-off."""
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None
