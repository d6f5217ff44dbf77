"""The LiteLLM callback: hooks of its Router and of its proxy, turned into events.

Which hook fires when was found by trying LiteLLM 1.106 (docs/gateways/litellm.md has the table). The request is
published by the first hook that sees it, the route just before the provider is called, the outcome of each
attempt when it is known. What must be kept of a request meanwhile hangs on LiteLLM's own dictionaries of that
request, so that there is nothing here to bound or to leak.
"""

import dataclasses
import functools
import importlib.metadata
import inspect
import logging
import os
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from schemas.events import AnyEvent, Request
from streams.configuration import load
from streams.gateways.litellm_events import Call, Gateway, attempt_number, tokens_of
from streams.gateways.privacy import identity
from streams.gateways.publisher import from_settings

if TYPE_CHECKING:  # a gateway without a guard does not load what judges
    from detectors.guard import Guard

try:
    import litellm
    from litellm.exceptions import GuardrailRaisedException
    from litellm.integrations.custom_logger import CustomLogger
except ImportError as error:  # pragma: no cover - the tests need LiteLLM
    raise ImportError("streams.gateways.litellm needs LiteLLM: pip install 'pointsman[litellm]'") from error

log = logging.getLogger(__name__)

_KEY = "_pointsman_call"  # of our Call in LiteLLM's metadata and in a logging object's details

Hook = TypeVar("Hook", bound=Callable[..., Any])


def _never_raises(hook: Hook) -> Hook:
    """An exception out of a hook would reach the gateway's caller: say it in the log, without content."""
    if inspect.iscoroutinefunction(hook):

        @functools.wraps(hook)
        async def guarded_async(self: "PointsmanLogger", *args: Any, **kwargs: Any) -> Any:
            try:
                return await hook(self, *args, **kwargs)
            except Exception as error:
                return self.on_error(hook.__name__, error)

        return guarded_async  # type: ignore[return-value]

    @functools.wraps(hook)
    def guarded(self: "PointsmanLogger", *args: Any, **kwargs: Any) -> Any:
        try:
            return hook(self, *args, **kwargs)
        except Exception as error:
            return self.on_error(hook.__name__, error)

    return guarded  # type: ignore[return-value]


class PointsmanLogger(CustomLogger):
    """A callback for `litellm.callbacks`, or for `callbacks` in the proxy's configuration.

    `publish`: takes an event and does not wait (`Publisher.publish`). `guard`: asked by the proxy before it routes.
    """

    def __init__(
        self, publish: Callable[[AnyEvent], object], gateway: Gateway, guard: "Guard | None" = None
    ) -> None:
        super().__init__()
        self.errors = 0  # hooks of ours that failed; each cost at most one event
        self._publish = publish
        self._guard = guard
        self._read = dataclasses.replace(gateway, prompt="ends")  # for the guard: what it reads stays here
        self._open = gateway
        self._silent = dataclasses.replace(gateway, prompt="hash")

    @property
    def _gateway(self) -> Gateway:
        """Who has turned message logging off for LiteLLM means us too."""
        return self._silent if litellm.turn_off_message_logging else self._open

    def on_error(self, hook: str, error: Exception) -> None:
        """Count and log a failure of our own."""
        self.errors += 1
        log.warning("%s: no event made (%s)", hook, type(error).__name__)

    # --- the request

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> None:
        """Proxy only: before routing and before the model's name is checked.

        Raises:
            GuardrailRaisedException: the guard does not admit the request; the proxy answers 400.
        """
        request = self._on_asked(user_api_key_dict, data, call_type)
        if self._guard is not None:
            await self._check(self._guard, request)

    @_never_raises
    def _on_asked(self, user_api_key_dict: Any, data: dict[str, Any], call_type: str) -> Request | None:
        """Publish the request; what the guard is to judge of it, where there is one."""
        metadata = {**_metadata(data), **_payer(user_api_key_dict)}
        call = self._begin(data, data.get("messages"), metadata, call_type)
        return self._read.request(call, data, data.get("messages"), metadata) if self._guard is not None else None

    async def _check(self, guard: "Guard", request: Request | None) -> None:
        if request is None:  # our own failure, which is in the log: like any request that could not be judged
            admitted, judged = guard.passes_unjudged, False
        else:
            verdict = await guard.judge_async(request)
            admitted, judged = guard.admits(verdict), verdict.decision != "unjudged"
        if not admitted:
            message = (
                "refused before it was routed" if judged else "could not be judged, and is not routed unjudged"
            )
            raise GuardrailRaisedException("pointsman", f"the request {message}", False, blocked_content=judged)

    async def async_filter_deployments(
        self, model: str, healthy_deployments: list[Any], messages: Any, request_kwargs: Any = None,
        parent_otel_span: Any = None,
    ) -> list[Any]:  # fmt: skip
        """Router, asynchronous calls: the first hook there is, before the routing decision is recorded."""
        self._on_deployments(messages, request_kwargs)
        return healthy_deployments

    @_never_raises
    def _on_deployments(self, messages: Any, request_kwargs: Any) -> None:
        if request_kwargs is None:
            return
        metadata = _metadata(request_kwargs)
        if metadata.get("attempted_retries") or metadata.get("attempted_fallbacks"):
            return
        if self._known(request_kwargs, 0) is None:
            self._begin(request_kwargs, messages, metadata)

    # --- the route

    @_never_raises
    def log_pre_api_call(self, model: Any, messages: Any, kwargs: dict[str, Any]) -> None:
        """Each attempt, just before the provider is called; not for answers from the cache."""
        if kwargs.get("litellm_no_upstream_llm_call"):  # a request that the proxy refuses
            return
        metadata = _metadata(kwargs)
        attempt = attempt_number(metadata)
        call = self._known(kwargs, attempt) or self._begin(kwargs, messages, metadata)
        kwargs[_KEY] = call
        self._route(call, attempt, kwargs, metadata)

    # --- the outcome

    @_never_raises
    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """An answer, whole also where it was streamed."""
        self._on_logged(kwargs)

    @_never_raises
    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """As the asynchronous one, for synchronous calls."""
        self._on_logged(kwargs)

    @_never_raises
    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """A failure: of each attempt in the Router, of the first only in the proxy."""
        self._on_logged(kwargs)

    @_never_raises
    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """As the asynchronous one, for synchronous calls."""
        self._on_logged(kwargs)

    @_never_raises
    async def async_post_call_failure_deployment_hook(
        self,
        request_data: Mapping[str, Any],
        exception: Exception,
        call_type: Any,
        fallback_depth: int | None = None,
    ) -> None:
        """Each failed attempt of an asynchronous call, in the proxy too."""
        if (call := self._known(request_data, None)) is not None:
            metadata = _metadata(request_data)
            self._fail(call, attempt_number(metadata), exception, metadata, _details(request_data))

    @_never_raises
    async def async_post_call_failure_hook(
        self, request_data: dict[str, Any], original_exception: Exception, user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:  # fmt: skip
        """Proxy only, the last word on a failed request: also when a guardrail or the proxy itself refused it."""
        metadata = {**_metadata(request_data), **_payer(user_api_key_dict)}
        call = self._known(request_data, None) or self._begin(request_data, request_data.get("messages"), metadata)
        if not call.ended:
            self._fail(call, 0, original_exception, metadata, {})

    # --- events

    def _begin(
        self, data: Mapping[str, Any], messages: Any, metadata: Mapping[str, Any], operation: Any = ""
    ) -> Call:
        """A request that no hook has seen before."""
        call = self._gateway.call(
            data.get("litellm_call_id"), data.get("litellm_trace_id"), metadata, data.get("user")
        )
        _remember(call, data)
        call.first("request")
        parameters = {**_nested(data, "optional_params"), **data}
        operation = operation or data.get("call_type")
        self._publish(self._gateway.request(call, parameters, messages, metadata, operation))
        return call

    def _route(
        self,
        call: Call,
        attempt: int,
        details: Mapping[str, Any],
        metadata: Mapping[str, Any],
        cache_hit: bool = False,
    ) -> None:
        if call.first("route", attempt):
            model = metadata.get("deployment") or details.get("model")  # some calls know only the group's name
            self._publish(
                self._gateway.route(
                    call, attempt, model, details.get("custom_llm_provider"), metadata,
                    cache_hit=cache_hit, prompt_tokens=tokens_of(details.get("messages")), price=_price,
                )
            )  # fmt: skip

    def _on_logged(self, details: dict[str, Any]) -> None:
        payload = details.get("standard_logging_object")
        if not isinstance(payload, Mapping):  # LiteLLM could not build it, or a part of a stream
            return
        metadata = _metadata(details)
        attempt = attempt_number(metadata)
        call = self._known(details, attempt) or self._begin(details, details.get("messages"), metadata)
        details[_KEY] = call
        if payload.get("status") == "success":
            self._route(call, attempt, details, metadata, cache_hit=bool(payload.get("cache_hit")))
        if call.first("outcome", attempt):
            self._publish(self._gateway.outcome(call, attempt, payload))

    def _fail(
        self,
        call: Call,
        attempt: int,
        error: Exception,
        metadata: Mapping[str, Any],
        details: Mapping[str, Any],
    ) -> None:
        """A failure of which there is no logging payload, or an earlier attempt's."""
        if call.first("outcome", attempt):
            now = datetime.now(UTC).timestamp()
            began = details.get("api_call_start_time")
            payload = {
                "status": "failure",
                "error_information": {"error_class": type(error).__name__},
                "model": details.get("model"),
                "endTime": now,
                "response_time": now - began.timestamp() if isinstance(began, datetime) else 0.0,
                "guardrail_information": metadata.get("standard_logging_guardrail_information"),
            }
            self._publish(self._gateway.outcome(call, attempt, payload))

    def _known(self, data: Mapping[str, Any], attempt: int | None) -> Call | None:
        """The Call that an earlier hook made for this request.

        Metadata may be a dictionary that the caller uses again for the next request, with what we left in it: it
        counts if its ids are this request's, and if its first attempt was not made already.
        """
        of_logging = _details(data).get(_KEY)
        if isinstance(of_logging, Call):
            return of_logging
        call = _metadata(data).get(_KEY)
        if not isinstance(call, Call):  # ours, not a client's JSON under the same name
            return None
        same = any(name in call.ids for name in (data.get("litellm_call_id"), data.get("litellm_trace_id")))
        return call if same and not (attempt == 0 and call.has("route", 0)) else None


def from_environment() -> PointsmanLogger:
    """A logger with a publisher of its own, after the settings (`POINTSMAN_*`, docs/gateways/litellm.md).

    Raises:
        SettingsError: no brokers, no identity key, or anything wrong: a gateway must not come up and send nothing,
            nor without the guard that it was told to ask.
    """
    settings = load(None, os.environ)
    publisher = from_settings(settings, "litellm")
    gateway = Gateway(
        identity=identity(settings),
        prompt=settings.gateway.prompt,
        instance=settings.gateway.instance or socket.gethostname(),
        version=importlib.metadata.version("litellm"),
    )
    guard = None
    if settings.guard.fail:
        from streams.gateways.guard import from_settings as guard_from_settings

        guard = guard_from_settings(settings)
    return PointsmanLogger(publisher.publish, gateway, guard)


def _price(model: str, input_tokens: int, output_tokens: int) -> float | None:
    """Dollars by LiteLLM's own table; None for a model that it does not know."""
    try:
        asked, answered = litellm.cost_per_token(
            model=model, prompt_tokens=input_tokens, completion_tokens=output_tokens
        )
    except Exception:
        return None
    return float(asked + answered)


def _metadata(data: Mapping[str, Any]) -> Any:
    """The request's metadata: LiteLLM keeps it under two names, in a logging object's details one level down."""
    for place in (data, _nested(data, "litellm_params")):
        for name in ("litellm_metadata", "metadata"):
            if isinstance(found := place.get(name), dict) and found:
                return found
    return data.get("metadata") if isinstance(data.get("metadata"), dict) else {}


def _payer(key: Any) -> dict[str, Any]:
    """The identity that the proxy has authenticated: a client may send metadata of its own."""
    return {
        "user_api_key_hash": getattr(key, "api_key", None),
        "user_api_key_user_id": getattr(key, "user_id", None),
        "user_api_key_team_id": getattr(key, "team_id", None),
        "user_api_key_org_id": getattr(key, "org_id", None),
    }


def _details(data: Mapping[str, Any]) -> Any:
    """What LiteLLM's logging object knows of the request: `data` itself in the logging hooks."""
    found = getattr(data.get("litellm_logging_obj"), "model_call_details", None)
    return found if isinstance(found, dict) else data


def _nested(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    return found if isinstance(found, Mapping) else {}


def _remember(call: Call, data: Mapping[str, Any]) -> None:
    _metadata(data)[_KEY] = call
    details = _details(data)
    if details is not data:
        details[_KEY] = call
