"""Ask many questions at once: each distinct one is sent once, stored as soon as it is paid for, and counted."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from comity.access.prices import Price, find_price, load_prices
from comity.access.records import OnReply, Question, Reply, Spend
from comity.access.store import ReplyStore
from comity.config import AccessConfig
from comity.errors import ConfigError

if TYPE_CHECKING:
    from comity.access.session import Session

Result = TypeVar("Result")


def open_access(model: str, settings: AccessConfig, run: str = "") -> "ModelAccess":
    """Open a model by its Inspect name; the ledger books under `run` and `max_spend` caps it, if `book_under` is empty.

    Raise ConfigError when the model has no known provider, a package, a key or an address is missing, or a cap is set
    for a model whose price is unknown; raise RunError when the store cannot be opened.
    """
    price = find_price(load_prices(settings.prices), model)
    if settings.max_spend is not None and price is None:
        raise ConfigError(
            f"access.max_spend is {settings.max_spend}, but {model!r} has no price: give a TOML file with "
            f'[dollars_per_million_tokens] "{model}" = {{ input = ..., output = ... }} as access.prices'
        )
    return ModelAccess(model, settings, price, settings.book_under or run)


class ModelAccess:
    """An open model; `ask` may be called from any thread. Close it, or use it in a `with` statement."""

    def __init__(self, model: str, settings: AccessConfig, price: Price | None, run: str) -> None:
        """Start the event loop that everything of this access runs in; `open_access` calls this."""
        self.model = model
        self.run = run
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"access {model}", daemon=True)
        self._thread.start()
        try:
            self._session = self._call(_open_session(model, settings, price, run))
        except BaseException:
            self._stop()
            raise

    def ask(self, questions: Sequence[Question], on_reply: OnReply | None = None) -> list[Reply]:
        """Return the replies in order; `on_reply(index, reply)` is called from another thread as each comes.

        Raise SpendCapReached or ModelError after everything under way has been stored.
        """
        return self._call(self._session.ask(questions, on_reply))

    def read_spend(self) -> list[Spend]:
        """Return what this run spent on this model so far, by account."""
        return self._call(self._session.read_spend())

    def close(self) -> None:
        """Close the connections and the store."""
        if not self._loop.is_closed():
            self._call(self._session.close())
            self._stop()

    def __enter__(self) -> "ModelAccess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, work: Coroutine[Any, Any, Result]) -> Result:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupt in this thread ends the work in the other
            raise

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _open_session(model: str, settings: AccessConfig, price: Price | None, run: str) -> "Session":
    from comity.access.provider import Provider

    provider = Provider(model)  # says which package is missing, if one is
    from comity.access.session import Session

    try:
        return Session(provider, ReplyStore(settings.cache), settings, price, run)
    except BaseException:
        await provider.close()
        raise
