"""A router's scores over HTTP, for transplants: a `RouterScorer` (detectors/discovery/transplant.py)."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import msgspec


class _Scores(msgspec.Struct):
    scores: list[float]


class ScorerError(Exception):
    """The router gave no scores. The text says what kind of failure it was, never a prompt or an address."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Redirects are not followed: the texts are for one address."""

    def redirect_request(self, *_: Any) -> None:
        """Take none."""


class HttpScorer:
    """POST `{"texts": [...]}` to one address, which answers `{"scores": [...]}`, higher for harder texts."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        """`url`: http or https."""
        if not url.startswith(("http://", "https://")):
            raise ValueError("a router's address begins with http:// or https://")
        self._url = url
        self._timeout = timeout_seconds
        self._opener = urllib.request.build_opener(_Stay)

    def score(self, texts: Sequence[str]) -> list[float]:
        """A score for each text; blocks until then.

        Raises:
            ScorerError: no answer in time, or one that is none.
        """
        body = msgspec.json.encode({"texts": texts})
        request = urllib.request.Request(self._url, body, {"content-type": "application/json"})  # noqa: S310  checked
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return msgspec.json.decode(answer.read(), type=_Scores).scores
        except urllib.error.HTTPError as error:
            raise ScorerError(f"status {error.code}") from error
        except (OSError, http.client.HTTPException, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ScorerError(type(error).__name__) from error
