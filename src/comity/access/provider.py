"""One model as Inspect reaches it, and the words for what went wrong.

Inspect's own retries and those of the clients below it are off where they can be: every attempt passes the limits of
`AccessConfig` and is counted there.
"""

import json
import sys
from typing import Any

from comity.access.records import Question, Reply
from comity.errors import ConfigError, ModelError

LOCAL_PROVIDERS = frozenset({"hf", "transformer_lens", "nnterp", "none"})
"""Inspect's names for models inside this process, which are not asked through here."""
PROVIDERS = frozenset(
    {
        "anthropic", "azureai", "bedrock", "cloudflare", "deepseek", "fireworks", "google", "grok", "groq",
        "hf-inference-providers", "litellm-proxy", "llama-cpp-python", "meta", "mistral", "mockllm", "moonshot",
        "ollama", "openai", "openai-api", "openai-api-completions", "openrouter", "perplexity", "sagemaker",
        "sambanova", "sglang", "together", "vllm", "vllm-completions",
    }
)  # fmt: skip
_OWN_RETRIES = frozenset({"anthropic", "openai", "openai-api"})
"""Providers whose client takes `max_retries`."""
_NO_LIMIT = 100_000
_FATAL_STATUS = {
    401: "refused the key: check the provider's key in the environment",
    402: "asks for payment: fill up the account and run again",
    404: "knows no such model: check the name and the address",
}


class Provider:
    """A model that `send` asks once."""

    def __init__(self, name: str) -> None:
        """Open the model by its Inspect name; raise ConfigError when a package, a key or an address is missing."""
        self.name = name
        if name.split("/")[0] not in PROVIDERS or "/" not in name:
            raise ConfigError(
                f"model {name!r} has no known provider: write PROVIDER/MODEL, such as openai/gpt-4.1-mini"
            )
        try:
            from inspect_ai.model import get_model
        except ImportError as error:
            raise ConfigError(f"model {name!r} needs Inspect ({error}): pip install 'comity[models]'") from error
        arguments: dict[str, Any] = {"max_retries": 0} if name.split("/")[0] in _OWN_RETRIES else {}
        hook = sys.excepthook
        try:
            self._model = get_model(name, memoize=False, **arguments)
        except Exception as error:  # each provider has its own way to miss a package, a key or an address
            raise ConfigError(f"model {name!r} cannot be opened: {_one_line(error)}") from error
        finally:
            sys.excepthook = hook  # Inspect puts its own in place

    async def close(self) -> None:
        """Close the connections."""
        await self._model.api.aclose()

    async def send(self, question: Question) -> Reply:
        """Ask once; raise what the provider's client raises. The reply's cost is left at 0."""
        from inspect_ai.log._transcript import Transcript, init_transcript
        from tenacity import RetryError

        init_transcript(Transcript())  # Inspect would keep every call of this process in the one before
        try:
            output = await self._model.generate(_to_chat(question), config=_to_config(question))
        except RetryError as error:  # Inspect's word for a failure that it would have retried
            raise error.last_attempt.exception() or error from None
        usage = output.usage
        input_tokens = output_tokens = 0
        if usage is not None:
            cached = (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)
            input_tokens, output_tokens = usage.input_tokens + cached, usage.output_tokens
        text, problem = _read_output(output, question.keep_cut)
        return Reply(text, problem, input_tokens, output_tokens)

    def is_transient(self, error: BaseException) -> bool:
        """Return whether another attempt may succeed."""
        return isinstance(error, TimeoutError) or self._model.should_retry(error)

    def retry_after_seconds(self, error: BaseException) -> float:
        """Return how long the provider asks to wait; 0 when it does not say."""
        decision = self._model.api.should_retry(error) if isinstance(error, Exception) else None
        return float(getattr(decision, "retry_after", None) or 0.0)

    def raise_fatal(self, error: BaseException) -> None:
        """Raise ModelError when every further question would fail alike."""
        words = _FATAL_STATUS.get(_status(error))
        if words:
            raise ModelError(f"model {self.name!r}: the provider {words} ({_one_line(error)})") from error


def describe_problem(error: BaseException) -> str:
    """Return a few words for a failed attempt."""
    if isinstance(error, TimeoutError):
        return "timeout"
    status = _status(error)
    if status == 429:
        return "rate limit"
    if status:
        return f"http {status}: {_one_line(error)}" if 400 <= status < 500 else f"http {status}"
    if "Connection" in type(error).__name__:
        return "connection failed"
    if isinstance(error, json.JSONDecodeError):
        return "malformed reply"
    return f"{type(error).__name__}: {_one_line(error)}"


def _status(error: BaseException) -> int:
    for link in (error, error.__cause__):
        status = getattr(link, "status_code", None)
        if isinstance(status, int):
            return status
    return 0


def _one_line(error: BaseException) -> str:
    from rich.text import Text

    # Inspect's own errors carry markup of rich, and a provider's the whole request.
    told = getattr(error, "provider_message", None) or getattr(error, "message", None) or str(error)
    told = Text.from_markup(told).plain if type(error).__name__ == "PrerequisiteError" else str(told)
    return " ".join(told.split())[:200] or type(error).__name__


def _to_chat(question: Question) -> list[Any]:
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    return [kinds[message["role"]](content=message["content"]) for message in question.messages]


def _to_config(question: Question) -> Any:
    from inspect_ai.model import GenerateConfig, ResponseSchema
    from inspect_ai.util import JSONSchema

    sampling, schema = question.sampling, question.json_schema
    return GenerateConfig(
        max_retries=0,
        max_connections=_NO_LIMIT,
        adaptive_connections=False,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        # Some providers refuse both settings at once.
        top_p=None if sampling.top_p >= 1 else sampling.top_p,
        cache_prompt=False,
        response_schema=(
            None if schema is None else ResponseSchema(name="reply", json_schema=JSONSchema.model_validate(schema))
        ),
    )


def _read_output(output: Any, keep_cut: bool) -> tuple[str | None, str]:
    if output.empty:
        return None, "empty reply"
    reasons = {"content_filter": "refused", "max_tokens": "truncated", "model_length": "prompt too long"}
    if output.stop_reason in reasons:
        if keep_cut and output.stop_reason == "max_tokens" and output.completion.strip():
            return output.completion, reasons[output.stop_reason]
        return None, reasons[output.stop_reason]
    text = output.completion
    return (text, "") if text.strip() else (None, "empty reply")
