"""The local engine answers questions in the form of an external model."""

from comity.access.records import Question
from comity.engines.answering import ROWS_AT_ONCE, ask_locally
from comity.engines.local import LocalEngine
from comity.types import Sampling


def ask_for(text, max_tokens=4, repeat=0):
    return Question(({"role": "user", "content": text},), Sampling(1.0, 1.0, max_tokens), "h", "data/x", repeat)


def test_replies_come_in_order_batch_by_batch(tiny_model, tiny_tokenizer):
    engine, told = LocalEngine(tiny_model, tiny_tokenizer), []
    questions = [ask_for(str(number)) for number in range(ROWS_AT_ONCE + 3)]
    replies = ask_locally(engine, "tiny", questions, lambda place, reply: told.append((place, reply)))
    assert told == list(enumerate(replies))
    # The random model runs into the limit: a reply that was cut off is none.
    assert {(reply.text, reply.problem, reply.output_tokens) for reply in replies} == {(None, "truncated", 4)}
    assert all(reply.input_tokens > 4 and reply.cost == 0 for reply in replies)


def test_the_same_question_has_the_same_reply_and_a_repeat_another(tiny_model, tiny_tokenizer):
    engine = LocalEngine(tiny_model, tiny_tokenizer)
    questions = [ask_for("Who rests first?", 400, repeat) for repeat in range(12)]
    first, second = (ask_locally(engine, "tiny", part) for part in (questions, questions))
    texts = {reply.text for reply in first if reply.text}
    assert [reply.text for reply in first] == [reply.text for reply in second]
    assert len(texts) > 1
    assert any(a != b for a, b in zip(first, ask_locally(engine, "other", questions), strict=True))
