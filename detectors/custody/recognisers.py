"""What must not leave with a prompt: canaries, credentials, personal numbers. Names are given, never the text.

Recognisers are those of libraries that others keep: `detect-secrets` (its patterns only; its checks, which would
ask a provider over the network, are never called) and the checksums of `python-stdnum`. Only so many characters of
a prompt are looked at: a bound in characters and not in milliseconds, so that a replay says the same.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any

from stdnum.util import clean

from schemas.events import CUT_CHARS, Request

LEAST_CHARS = 16  # of a canary, and of the words in which credentials are looked for
MOST_WORD_CHARS = 4_096  # of such words in one prompt

# Of the library's detectors those whose patterns name an issuer: its guesses by entropy and keyword flag code.
_DETECTORS = {
    "aws": "AWSKeyDetector", "azure_storage_key": "AzureStorageKeyDetector", "discord": "DiscordBotTokenDetector",
    "github_token": "GitHubTokenDetector", "gitlab_token": "GitLabTokenDetector", "jwt": "JwtTokenDetector",
    "mailchimp": "MailchimpDetector", "npm": "NpmDetector", "openai": "OpenAIDetector",
    "private_key": "PrivateKeyDetector", "pypi_token": "PypiTokenDetector", "sendgrid": "SendGridDetector",
    "slack": "SlackDetector", "square_oauth": "SquareOAuthDetector", "stripe": "StripeDetector",
    "telegram_token": "TelegramBotTokenDetector", "twilio": "TwilioKeyDetector",
}  # fmt: skip

_RUN = re.compile(rf"[A-Za-z0-9_-]{{{LEAST_CHARS},}}")
_KEY_BLOCK = "PRIVATE KEY"
_DIGITS = re.compile(r"\d\d\d")  # every personal number has some: most prose has none
# Shapes; whether it is one, a checksum says. Cards by their issuers' ranges: one of ten runs of digits passes Luhn.
# No look-behind and no \b in front: a pattern that begins with a set of characters is searched far faster.
_PERSONAL = {
    "card": (r"(?:4\d|5[1-5]|2[2-7]|3[47]|6[05])\d\d[ -]?\d[\d -]{7,13}\d", "luhn"),
    "iban": (r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?", "iban"),
    "us_ssn": (r"\d{3}-\d{2}-\d{4}", "us.ssn"),
    "it_codice_fiscale": (r"[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]", "it.codicefiscale"),
}


class Recognisers:
    """Stateless, and the same answer for a prompt whatever else is in its batch."""

    def __init__(self, canaries: Mapping[str, str], recognise: bool = True) -> None:
        """`canaries`: SHA-256 (hex) of each by its name; a canary is 16 or more of letters, digits, `_` and `-`.

        `recognise`: secrets and personal numbers too.
        """
        self._canaries = {bytes.fromhex(digest): name for name, digest in canaries.items()}
        self._secrets: list[Any] = [
            getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), name)()
            for module, name in (_DETECTORS.items() if recognise else ())
        ]
        self._personal: list[tuple[str, re.Pattern[str], Callable[[str], bool]]] = [
            (name, re.compile(shape), importlib.import_module(f"stdnum.{checker}").is_valid)
            for name, (shape, checker) in (_PERSONAL.items() if recognise else ())
        ]

    def find(self, request: Request) -> list[str]:
        """`canary:NAME`, `secret:KIND`, `personal:KIND` for each thing found, in a stable order."""
        text = _text(request)
        words = [word for word in text.split() if len(word) >= LEAST_CHARS]
        found: list[str] = []
        if words or _KEY_BLOCK in text:
            long_words = " ".join(words)[:MOST_WORD_CHARS]
            found += self._canaries_in(long_words) if self._canaries else ()
            found += self._secrets_in(long_words, text)
        if _DIGITS.search(text):
            found += self._personal_in(text)
        return found

    def _canaries_in(self, words: str) -> Iterator[str]:
        for run in dict.fromkeys(_RUN.findall(words)):
            if name := self._canaries.get(sha256(run.encode()).digest()):
                yield f"canary:{name}"

    def _secrets_in(self, words: str, text: str) -> Iterator[str]:
        for detector in self._secrets:
            where = text if detector.secret_type == _KEY_BLOCK.title() else words
            for _ in dict.fromkeys(detector.analyze_string(where)):
                yield f"secret:{detector.secret_type}"

    def _personal_in(self, text: str) -> Iterator[str]:
        for name, shape, is_valid in self._personal:
            numbers = {match[0] for match in shape.finditer(text) if _stands_alone(text, *match.span())}
            yield from [f"personal:{name}"] * sum(is_valid(clean(number, " -")) for number in numbers)


def _stands_alone(text: str, begin: int, end: int) -> bool:
    """Whether it is no part of a longer word or number."""
    before, after = text[begin - 1 : begin], text[end : end + 1]
    return not (before.isalnum() or before in ("-", "_", ".") or after.isalnum() or after in ("-", "_"))


def _text(request: Request) -> str:
    """The prompt's text, or its ends."""
    if not request.prompt_text:
        return f"{request.prompt_head}\n{request.prompt_tail}"
    if len(request.prompt_text) <= 2 * CUT_CHARS:
        return request.prompt_text
    return f"{request.prompt_text[:CUT_CHARS]}\n{request.prompt_text[-CUT_CHARS:]}"
