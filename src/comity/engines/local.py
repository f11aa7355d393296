"""The local engine: batched generation and encoding with one transformers model on CPU or CUDA."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from comity.engines.encoders import is_encoder, layers_of
from comity.engines.generate import Drawn, OnDraw, generate, weigh_next
from comity.engines.llama import Llama, open_llama
from comity.engines.llama_pass import pass_packed
from comity.engines.merging import adapters_off
from comity.engines.packing import pack_shared
from comity.errors import ModelError
from comity.types import Completion, Message, Request

OnText = Callable[[int, str], None]
"""Gets the place of a request and its text as far as it is written."""
HALF_LETTER = "\ufffd"
"""What stands for a letter of which some tokens are still to come."""


@dataclass
class LocalEngine:
    """Answer requests with a transformers model; a `comity.types.Responder`.

    `batch_tokens` bounds prompts plus new tokens of one batch. `policy_version` is stamped on every completion.
    Each request has its own random stream, so what it draws does not depend on its neighbours in the batch.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    thinking: bool = False
    batch_tokens: int = 32768
    policy_version: int = 0

    def __call__(self, requests: Sequence[Request]) -> list[Completion]:
        """Return one completion a request, in order."""
        return self.answer(requests)

    def answer(self, requests: Sequence[Request], on_text: OnText | None = None) -> list[Completion]:
        """Return one completion a request, in order; `on_text` gets each text as it grows.

        What `on_text` raises ends the generation and is passed on.
        """
        prompts = [self.encode_chat(request.messages) for request in requests]
        replies: dict[int, Completion] = {}
        sizes = [len(p) + r.sampling.max_tokens for p, r in zip(prompts, requests, strict=True)]
        for rows in split_batches(sizes, self.batch_tokens):
            tell = None if on_text is None else self._tell_texts(rows, on_text)
            batch = self._answer([requests[i] for i in rows], [prompts[i] for i in rows], tell)
            replies.update(zip(rows, batch, strict=True))
        return [replies[i] for i in range(len(requests))]

    def _answer(
        self, requests: Sequence[Request], prompts: Sequence[NDArray[np.int32]], on_draw: OnDraw | None = None
    ) -> list[Completion]:
        stops = self.stop_ids
        drawn = generate(self.model, prompts, requests, self.tokenizer.pad_token_id, stops, on_draw)
        return [
            make_completion(self, prompt, tokens, logprobs, self.policy_version)
            for prompt, (tokens, logprobs) in zip(prompts, drawn, strict=True)
        ]

    def _tell_texts(self, rows: Sequence[int], on_text: OnText) -> OnDraw:
        lengths = dict.fromkeys(rows, 0)

        def tell(drawn: Sequence[Drawn]) -> None:
            for row, (tokens, _) in zip(rows, drawn, strict=True):
                if len(tokens) > lengths[row]:
                    lengths[row] = len(tokens)
                    text = str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
                    on_text(row, text.rstrip(HALF_LETTER))

        return tell

    def encode_chat(self, messages: Sequence[Message]) -> NDArray[np.int32]:
        """Return the token ids (P,) of a chat with the opening of the assistant's turn."""
        text = self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, enable_thinking=self.thinking
        )
        return np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)

    def weigh_options(self, chats: Sequence[Sequence[Message]], options: Sequence[str]) -> NDArray[np.float64]:
        """Return the log-probabilities (chats, options), at temperature 1, of options as the first token of a reply.

        Raise ModelError for an option that is more than one token of this model.
        """
        option_ids = [self.tokenizer(option, add_special_tokens=False)["input_ids"] for option in options]
        long = [option for option, ids in zip(options, option_ids, strict=True) if len(ids) != 1]
        if long:
            name = self.model.name_or_path
            raise ModelError(f"{name!r} writes {long[0]!r} as several tokens: set judges.local_scores to written")
        prompts = [self.encode_chat(chat) for chat in chats]
        found = np.zeros((len(prompts), len(options)))
        for rows in split_batches([len(prompt) for prompt in prompts], self.batch_tokens):
            found[rows] = weigh_next(
                self.model, [prompts[row] for row in rows], self.tokenizer.pad_token_id, [ids[0] for ids in option_ids]
            )
        return found

    def token_text(self, token_id: int) -> str:
        """Return the text of one token; a token that is part of a letter gives a replacement character."""
        return str(self.tokenizer.decode([token_id]))

    @property
    def stop_ids(self) -> frozenset[int]:
        """Return the ids that end a reply: those of the tokenizer and of the model's generation settings."""
        ids: set[int] = {int(self.tokenizer.eos_token_id)}
        generation = self.model.generation_config
        configured = generation.eos_token_id if generation is not None else None
        if configured is not None:
            ids.update(configured if isinstance(configured, list) else [configured])
        return frozenset(ids)

    def hidden_states(
        self, texts: Sequence[str], layers: Sequence[int], pool: Callable[[Tensor, Tensor], Tensor]
    ) -> NDArray[np.float32]:
        """Encode texts with the frozen base (adapters off) and pool each layer's hidden states.

        `pool(states_BTD, mask_BT)` returns (B, F); the result is (texts, layers, F). Layers after the last one asked
        for are not computed.
        """
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        rows_features: dict[int, NDArray[np.float32]] = {}
        with torch.inference_mode(), adapters_off(self.model):
            for rows in split_batches([len(i) for i in ids], self.batch_tokens // 2):
                features = _encode_batch(self, [ids[i] for i in rows], layers, pool)
                rows_features.update(zip(rows, features, strict=True))
        return np.stack([rows_features[i] for i in range(len(texts))])


class _LastLayerReached(Exception):
    pass


def split_batches(sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group indices, longest first, so that rows times the longest row stay within `budget` tokens."""
    batch: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if batch and (len(batch) + 1) * sizes[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _encode_batch(
    engine: LocalEngine,
    ids: Sequence[Sequence[int]],
    layers: Sequence[int],
    pool: Callable[[Tensor, Tensor], Tensor],
) -> NDArray[np.float32]:
    llama = open_llama(engine.model)
    if llama is not None:
        return _encode_packed(llama, ids, layers, pool)
    longest = max(map(len, ids))
    pad = engine.tokenizer.pad_token_id
    device = engine.model.device
    token_BT = torch.tensor([list(row) + [pad] * (longest - len(row)) for row in ids], device=device)
    mask_BT = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids], device=device)
    pooled: dict[int, Tensor] = {}
    modules = layers_of(engine.model)
    # An encoder has no cache that could be left out.
    arguments = {} if is_encoder(engine.model.config) else {"use_cache": False}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            states_BTD = output[0] if isinstance(output, tuple) else output
            pooled[layer] = pool(states_BTD, mask_BT)
            if layer == max(layers):
                raise _LastLayerReached

        return hook

    handles = [modules[layer - 1].register_forward_hook(keep(layer)) for layer in set(layers)]
    try:
        engine.model(input_ids=token_BT, attention_mask=mask_BT, **arguments)
    except _LastLayerReached:
        pass  # the deeper layers are not needed
    finally:
        for handle in handles:
            handle.remove()
    return _stack(pooled, layers)


def _encode_packed(
    llama: Llama, ids: Sequence[Sequence[int]], layers: Sequence[int], pool: Callable[[Tensor, Tensor], Tensor]
) -> NDArray[np.float32]:
    # Judges' prompts begin alike: with the template's words, and within a group with the dilemma too.
    packed = pack_shared([np.asarray(row, np.int32) for row in ids])
    mask_BT = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.long) for row in ids], batch_first=True)
    place_BT = torch.nn.utils.rnn.pad_sequence(list(packed.places), batch_first=True)
    pooled: dict[int, Tensor] = {}

    def keep(layer: int, states_TD: Tensor) -> bool:
        if layer in layers:
            pooled[layer] = pool(states_TD[place_BT], mask_BT)
        return layer < max(layers)

    pass_packed(llama, packed, on_layer=keep)
    return _stack(pooled, layers)


def _stack(pooled: Mapping[int, Tensor], layers: Sequence[int]) -> NDArray[np.float32]:
    stacked = torch.stack([pooled[layer] for layer in layers], dim=1)
    features: NDArray[np.float32] = stacked.float().cpu().numpy()
    return features


def make_completion(
    engine: LocalEngine, prompt: NDArray[np.int32], tokens: list[int], logprobs: list[float], policy_version: int
) -> Completion:
    """Return the completion of sampled tokens, whoever sampled them, in the words of the engine's tokenizer."""
    stopped = bool(tokens) and tokens[-1] in engine.stop_ids
    text = engine.tokenizer.decode(tokens[:-1] if stopped else tokens, skip_special_tokens=True).strip()
    return Completion(
        text=text,
        finish="stop" if stopped else "length",
        prompt_ids=prompt,
        token_ids=np.asarray(tokens, np.int32),
        logprobs=np.asarray(logprobs, np.float32),
        policy_version=policy_version,
    )
