"""What custody's recognisers find and what they cost: `python -m loadtests.evaluations.custody` prints its table.

Benign prompts are real where there is data. Each planted thing stands between the words of one of them; it is drawn
after its issuer's format, with a valid checksum, so that the table says what the text around costs.
"""

import random
import string
import time
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256

import click
from stdnum import iban, luhn

from detectors.coverage import wilson
from detectors.custody.recognisers import Recognisers
from loadtests.prompts import benign, data_dir
from schemas.events import Request

CANARY = "canary-0d9f3b7a6c5e4f21"
ALNUM = string.ascii_letters + string.digits
NOW = datetime(2026, 3, 2, tzinfo=UTC)
Z = 1.96


def _draw(rng: random.Random, alphabet: str, n: int) -> str:
    return "".join(rng.choices(alphabet, k=n))


def _card(rng: random.Random) -> str:
    digits = rng.choice(("4", "51", "55", "2221")) + _draw(rng, string.digits, 15)
    digits = digits[:15]
    return " ".join((digits + luhn.calc_check_digit(digits))[at : at + 4] for at in range(0, 16, 4))


def _iban(rng: random.Random) -> str:
    account = _draw(rng, string.digits, 18)
    return f"DE{iban.calc_check_digits(f'DE00{account}')}{account}"


PLANTED: dict[str, Callable[[random.Random], str]] = {
    "canary": lambda rng: CANARY,
    "AWS access key": lambda rng: "AKIA" + _draw(rng, string.ascii_uppercase + string.digits, 16),
    "GitHub token": lambda rng: "ghp_" + _draw(rng, ALNUM, 36),
    "Stripe key": lambda rng: "sk_live_" + _draw(rng, ALNUM, 24),
    "Slack token": lambda rng: f"xoxb-{_draw(rng, string.digits, 12)}-{_draw(rng, string.ascii_lowercase, 24)}",
    "private key": lambda rng: "-----BEGIN RSA PRIVATE KEY-----\n" + _draw(rng, ALNUM, 64),
    "card number": _card,
    "IBAN": _iban,
    "US social security number": lambda rng: (
        f"{rng.randint(100, 665)}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}"
    ),
}


def request(text: str) -> Request:
    """An event with this prompt."""
    return Request(
        event_id="e", event_time=NOW, request_id="r", tenant_id="t", principal_hash="p", prompt_text=text
    )


@click.command()
@click.option("--seed", default=1, show_default=True)
@click.option("--prompts", default=8_000, show_default=True)
@click.option("--planted", default=400, show_default=True, help="Of each kind.")
def main(seed: int, prompts: int, planted: int) -> None:
    """Print the table, and the cost."""
    rng = random.Random(seed)
    texts = [prompt.text for prompt in benign(data_dir(), seed)]
    texts = rng.sample(texts, min(prompts, len(texts)))
    recognisers = Recognisers({"planted": sha256(CANARY.encode()).hexdigest()})
    asked = [request(text) for text in texts]
    began = time.process_time()
    false = sum(bool(recognisers.find(each)) for each in asked)
    cost = (time.process_time() - began) / len(asked) * 1e6
    click.echo("| text | named, of | share, 95 % |\n|---|---|---|")
    _row("benign prompts, falsely", false, len(asked))
    for name, make in PLANTED.items():
        hits = 0
        for text in rng.choices(texts, k=planted):
            words = text[:2_000].split(" ")
            words.insert(rng.randint(0, len(words)), make(rng))
            hits += bool(recognisers.find(request(" ".join(words))))
        _row(name, hits, planted)
    click.echo(f"\n{cost:.0f} µs of CPU a prompt of {sum(map(len, texts)) / len(texts):.0f} characters")


def _row(name: str, hits: int, n: int) -> None:
    share = wilson(hits, n, Z)
    click.echo(f"| {name} | {hits} of {n} | {share.share:.4f} [{share.low:.4f}, {share.high:.4f}] |")


if __name__ == "__main__":
    main()
