"""How a judge row becomes a prompt, and the frozen base's hidden states pooled over the prompt's parts.

A pooling is written as `part:how+part:how`, such as `answer:mean+answer:last+tail:mean`. A part is a place of the
template, or `tail`: the template's words after its last place. `how` is `mean` over the part's tokens, its `last`, or
`new`: a mean in which tokens of `message_b` weigh more the less they resemble any token of `message_a`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from comity.engines.encoders import longest_input
from comity.engines.local import LocalEngine, split_batches
from comity.errors import ModelError
from comity.judges.labels import Kind
from comity.prompts import load_template, quote_line
from comity.types import Answer, RoundEnding

TEMPLATES: dict[Kind, str] = {"agency": "agency_head", "agreement": "agreement_head"}
LONGEST_TEXT = 2000
"""Characters of one place that the judge reads; the rest is cut, so that a runaway message cannot fill the memory."""
BATCH_TOKENS = 4096
"""Padded tokens of one forward pass; prompts of one pass share their beginnings."""

RESEMBLANCE_SCALE = 0.15
"""How fast the weight of a token falls with its cosine to the nearest token of the other message."""

Pieces = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A filled template and the characters (start, end) of each of its parts."""

    text: str
    parts: dict[str, tuple[int, int]]


def render_prompt(kind: Kind, item: Answer | RoundEnding, longest: int = LONGEST_TEXT) -> Prompt:
    """Fill the head's template with one row and keep where its parts stand; `longest` cuts each of its texts.

    A text stays on one line, so it cannot forge a line of the prompt. It is cut after it was made safe: else letters
    that show nothing could fill all of what the judge reads.
    """
    template = load_template(TEMPLATES[kind])
    text, parts, place = "", {}, 0
    for match in re.finditer(r"\{([a-z_]+)\}", template):
        name = match.group(1)
        text += template[place : match.start()]
        value = quote_line(getattr(item, name))[:longest].rstrip()
        parts[name] = (len(text), len(text) + len(value))
        text, place = text + value, match.end()
    parts["tail"] = (len(text), len(text) + len(template) - place)
    return Prompt(text + template[place:], parts)


def parse_pooling(pooling: str) -> Pieces:
    """Split `part:how+part:how` into its pieces."""
    pieces = []
    for piece in pooling.split("+"):
        part, how = piece.split(":")
        pieces.append((part, how))
    return tuple(pieces)


def extract_features(
    engine: LocalEngine, kind: Kind, items: Sequence[Answer | RoundEnding], layers: Sequence[int], pooling: str
) -> NDArray[np.float32]:
    """Return pooled hidden states (N, layers, pieces, D) of the frozen base; one pass that ends at the last layer."""
    pieces = parse_pooling(pooling)
    prompts = [_render_fitting(engine, kind, item) for item in items]
    encoded = engine.tokenizer(
        [prompt.text for prompt in prompts], add_special_tokens=False, return_offsets_mapping=True
    )
    spans = [
        {part: _token_span(offsets, characters) for part, characters in prompt.parts.items()}
        for prompt, offsets in zip(prompts, encoded["offset_mapping"], strict=True)
    ]
    sizes = [len(ids) for ids in encoded["input_ids"]]
    rows_features: dict[int, NDArray[np.float32]] = {}
    # A chunk goes longest first and within the engine's budget, so the engine keeps it as one batch in this order.
    for rows in split_batches(sizes, min(BATCH_TOKENS, engine.batch_tokens // 2)):
        chunk_spans = {
            part: torch.tensor([spans[i][part] for i in rows], device=engine.model.device) for part in spans[0]
        }
        pooled = engine.hidden_states([prompts[i].text for i in rows], layers, _make_pool(chunk_spans, pieces))
        rows_features.update(zip(rows, pooled, strict=True))
    flat = np.stack([rows_features[i] for i in range(len(items))])
    return flat.reshape(len(items), len(layers), len(pieces), -1)


def count_prompt_tokens(engine: LocalEngine, kind: Kind, items: Sequence[Answer | RoundEnding]) -> int:
    """Return how many tokens the head's prompts of these rows have."""
    texts = [_render_fitting(engine, kind, item).text for item in items]
    return sum(len(ids) for ids in engine.tokenizer(texts, add_special_tokens=False)["input_ids"])


def _render_fitting(engine: LocalEngine, kind: Kind, item: Answer | RoundEnding) -> Prompt:
    # An encoder of 512 tokens reads less of long texts; a text is never refused, since a judge may not fail on one.
    prompt, longest = render_prompt(kind, item), LONGEST_TEXT
    most = longest_input(engine.model, engine.tokenizer)
    while most is not None and _count_tokens(engine, prompt) > most:
        if not longest:
            name = engine.model.config.name_or_path
            raise ModelError(f"model {name!r} reads {most} tokens, fewer than the judge's prompt: choose another")
        longest //= 2
        prompt = render_prompt(kind, item, longest)
    return prompt


def _count_tokens(engine: LocalEngine, prompt: Prompt) -> int:
    return len(engine.tokenizer(prompt.text, add_special_tokens=False)["input_ids"])


def _make_pool(spans: dict[str, Tensor], pieces: Pieces) -> Callable[[Tensor, Tensor], Tensor]:
    # `spans` holds first and end token (B, 2) of each part.
    def pool(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        if any(len(span_B2) != len(states_BTD) for span_B2 in spans.values()):
            raise AssertionError("the engine split a chunk of judge prompts")
        states_BTD = states_BTD.float()
        inside = {part: _inside(span_B2, states_BTD.shape[1]) for part, span_B2 in spans.items()}
        rows_B = torch.arange(len(states_BTD), device=states_BTD.device)
        pooled = []
        for part, how in pieces:
            if how == "last":
                pooled.append(states_BTD[rows_B, spans[part][:, 1] - 1])
                continue
            weight_BT = inside[part].float()
            if how == "new":
                resemblance_BT = _resemblance(states_BTD, mask_BT, inside["message_a"])
                weight_BT = weight_BT * torch.exp(-resemblance_BT / RESEMBLANCE_SCALE)
            weight_BT = weight_BT / weight_BT.sum(1, keepdim=True)
            pooled.append(torch.einsum("btd,bt->bd", states_BTD, weight_BT))
        return torch.cat(pooled, dim=1)

    return pool


def _inside(span_B2: Tensor, length: int) -> Tensor:
    place_T = torch.arange(length, device=span_B2.device)
    return (place_T >= span_B2[:, :1]) & (place_T < span_B2[:, 1:])


def _resemblance(states_BTD: Tensor, mask_BT: Tensor, inside_BT: Tensor) -> Tensor:
    # Largest cosine of each token with a token inside, around the text's mean. The first token is left out of the mean:
    # it is an attention sink whose states are far larger than all others.
    counted_BT = mask_BT.float()
    counted_BT[:, 0] = 0
    mean_BD = torch.einsum("btd,bt->bd", states_BTD, counted_BT) / counted_BT.sum(1, keepdim=True)
    unit_BTD = torch.nn.functional.normalize(states_BTD - mean_BD[:, None], dim=2)
    cosine_BTT = (unit_BTD @ unit_BTD.transpose(1, 2)).masked_fill(~inside_BT[:, None], -1.0)
    return cosine_BTT.amax(2)


def _token_span(offsets: Sequence[tuple[int, int]], characters: tuple[int, int]) -> tuple[int, int]:
    # A part without a token of its own (an empty text) is pooled over the token before it.
    start, end = characters
    inside = [i for i, (first, last) in enumerate(offsets) if last > start and first < end]
    if inside:
        return inside[0], inside[-1] + 1
    before = sum(last <= start for _, last in offsets)
    return max(before - 1, 0), max(before, 1)
