"""Read the one JSON object that a reply should be."""

import json
from typing import Any

_DECODER = json.JSONDecoder()


def parse_object(reply: str) -> tuple[dict[str, Any] | None, str]:
    """Return the first JSON object of a reply, or None and what is wrong with it.

    Words and fences around the object are passed over: a model that was not held to a schema often adds them.
    """
    start = reply.find("{")
    if start < 0:
        return None, "it has no JSON object"
    try:
        found, _ = _DECODER.raw_decode(reply, start)
    except json.JSONDecodeError as error:
        return None, f"it is not JSON ({error.msg} at character {error.pos + 1})"
    except (ValueError, RecursionError) as error:
        return None, f"it is not JSON ({type(error).__name__})"
    assert isinstance(found, dict)  # what begins with a brace and is JSON is an object
    return found, ""
