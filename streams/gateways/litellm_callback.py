"""What LiteLLM's proxy loads: `litellm_settings: {callbacks: [streams.gateways.litellm_callback.pointsman]}`."""

from streams.gateways.litellm import from_environment

pointsman = from_environment()
