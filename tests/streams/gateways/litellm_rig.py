"""The real LiteLLM, offline: a Router with the complexity router over mock models, and a callback that collects."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or the import asks the network for prices

import litellm as litellm
from litellm.integrations.custom_guardrail import CustomGuardrail as CustomGuardrail
from litellm.integrations.custom_logger import CustomLogger as CustomLogger

from schemas.codec import decode_event, encode, event_headers
from schemas.events import AnyEvent, Outcome, Request, Route
from schemas.topics import EVENTS
from streams.gateways.litellm import PointsmanLogger as PointsmanLogger
from streams.gateways.litellm_events import Gateway
from streams.gateways.privacy import Identity, PromptPolicy
from streams.replay import FileRecord

SECRET = "sk-provider-secret-4711"  # noqa: S105 - what must never leave
IDENTITY = Identity(b"a key of the tests' own", "t1")
SETTLE_SECONDS = 20.0


def deployment(name: str, model: str, answer: str, **parameters: Any) -> dict[str, Any]:
    """A model of the Router that answers, or fails, without a provider."""
    return {
        "model_name": name,
        "litellm_params": {"model": model, "api_key": SECRET, "mock_response": answer, **parameters},
    }


def smart(name: str = "smart", **tiers: str) -> dict[str, Any]:
    """LiteLLM's complexity router over `small`, `big` and `reason`."""
    pools = {"SIMPLE": "small", "MEDIUM": "small", "COMPLEX": "big", "REASONING": "reason", **tiers}
    return {
        "model_name": name,
        "litellm_params": {
            "model": "auto_router/complexity_router",
            "complexity_router_config": {"tiers": pools},
            "complexity_router_default_model": "small",
        },
    }


def router(*more: dict[str, Any], **settings: Any) -> Any:
    """A Router with cheap and dear models, one that is always over its limit, and `smart` before them."""
    models = [
        deployment("small", "openai/gpt-4o-mini", "a small answer"),
        deployment("big", "openai/gpt-4o", "a big answer"),
        deployment("reason", "openai/o3", "a long answer"),
        deployment("broken", "openai/gpt-4o", "litellm.RateLimitError"),
        smart(),
        *more,
    ]
    settings = {"num_retries": 0, "retry_after": 0, "fallbacks": [], **settings}
    return litellm.Router(model_list=models, **settings)


def ask(text: str) -> list[dict[str, str]]:
    """Messages with one question."""
    return [{"role": "user", "content": text}]


class Collected:
    """What a callback publishes; each event goes through the codec, envelope included, as the lane would."""

    def __init__(self, prompt: PromptPolicy = "ends") -> None:
        self.events: list[AnyEvent] = []
        self.bytes = b""
        self.logger = PointsmanLogger(self._publish, Gateway(IDENTITY, prompt, instance="test", version="1"))

    def _publish(self, event: AnyEvent) -> bool:
        value, headers = encode(event), event_headers(event, "//litellm/test")
        self.bytes += value + repr(headers).encode()
        key = event.principal_hash.encode()
        record = FileRecord(EVENTS.name, 0, round(time.time() * 1000), value, key, tuple(headers))
        decoded = decode_event(record)
        assert decoded is not None
        self.events.append(decoded)
        return True

    @property
    def requests(self) -> list[Request]:
        return [event for event in self.events if isinstance(event, Request)]

    @property
    def routes(self) -> list[Route]:
        return [event for event in self.events if isinstance(event, Route)]

    @property
    def outcomes(self) -> list[Outcome]:
        return [event for event in self.events if isinstance(event, Outcome)]

    async def until(self, enough: Callable[["Collected"], bool]) -> None:
        """LiteLLM logs in the background: wait for it."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while not enough(self):  # noqa: ASYNC110 (synchronous calls publish from other threads)
                await asyncio.sleep(0.01)

    async def outcome_count(self, n: int) -> None:
        """Wait for n outcomes."""
        await self.until(lambda collected: len(collected.outcomes) >= n)


async def collecting(prompt: PromptPolicy = "ends") -> AsyncIterator[Collected]:
    """LiteLLM's only callback, as long as the test runs."""
    collected = Collected(prompt)
    only(collected.logger)
    try:
        yield collected
    finally:
        only()
        litellm.cache = None


def only(*callbacks: Any) -> None:
    """Make these LiteLLM's callbacks, and no others: it copies them to lists of its own when it is called."""
    for copies in ("input", "success", "failure", "_async_input", "_async_success", "_async_failure", "service"):
        getattr(litellm, f"{copies}_callback").clear()
    litellm.callbacks = list(callbacks)
