"""The limits' formulas on a model so small that each figure is worked by hand."""

import pytest

from comity.bench.limits import (
    Rates,
    Size,
    attention_flops,
    decode_seconds,
    judge_seconds,
    limit_parts,
    prefill_seconds,
    update_seconds,
)
from comity.plan.architectures import Architecture

# Per layer: q 4x4, k and v 4x2, o 4x4, gate and up 4x8, down 8x4 = 16 + 8 + 8 + 16 + 32 + 32 + 32 = 144 weights.
TINY = Architecture(
    layers=2, width=4, inner_width=8, heads=2, kv_heads=1, head_width=2, vocabulary=10, tied=True
)  # fmt: skip
# A byte a second; 1,000 operations a second in the layers, 100 in the output layer.
RATES = Rates(bytes_per_second=1.0, layer_flops_per_second=1000.0, head_flops_per_second=100.0)


def test_attention_counts_half_of_the_square_twice():
    # 2 layers x 4 x 2 heads x width 2 x 3^2 / 2 = 32 x 4.5
    assert attention_flops(TINY, 3, 2) == 144


def test_prefill_counts_every_prompt_whole_and_one_position_of_logits():
    # Linear: 2 x 288 x (3 + 5) = 4,608. Attention: 32 x (9 + 25) / 2 = 544. Head: 2 x 10 x 4 x 2 prompts = 160.
    assert prefill_seconds(TINY, RATES, [3, 5]) == pytest.approx((4608 + 544) / 1000 + 160 / 100)


def test_decode_reads_weights_once_a_step_and_all_positions():
    # 4 new tokens take 3 steps after the prefill: 3 x (288 + 40) weights = 984.
    # Positions: row one, prompt 3: 4 + 5 + 6 = 15; row two, prompt 5 with 2 new tokens: one step, 6. Together 21,
    # each 2 x 2 layers x 1 head x 2 = 8 values: 168. In two bytes each: 2 x (984 + 168).
    assert decode_seconds(TINY, RATES, [Size(3, 4), Size(5, 2)], 2) == pytest.approx(2304)


def test_one_token_needs_no_decoding():
    assert decode_seconds(TINY, RATES, [Size(9, 1)], 2) == 0


def test_the_update_counts_twice_forward_and_logits_of_trained_tokens():
    # 5 tokens: linear 4 x 288 x 5 = 5,760; attention 3 x 32 x 25 / 2 = 1,200; head 4 x 10 x 4 x 2 trained = 320.
    assert update_seconds(TINY, RATES, [Size(3, 2)]) == pytest.approx((5760 + 1200) / 1000 + 320 / 100)


def test_a_verdict_counts_the_layers_that_its_head_reads():
    # One of two layers, 3 tokens: 2 x 144 x 3 = 864, attention 16 x 9 / 2 = 72.
    assert judge_seconds(TINY, RATES, [Size(3, 0, layers=1)]) == pytest.approx(0.936)


def test_the_parts_of_a_step_are_those_of_rollout_and_update():
    # Messages of one number are one batch: their steps read the weights once, those of two numbers twice.
    together, apart = [Size(3, 2), Size(3, 2)], [Size(3, 2, message=0), Size(3, 2, message=1)]
    parts = limit_parts(TINY, RATES, "step", together, 2)
    assert list(parts) == ["prefill", "decode", "update"]
    # One step: 328 weights and 2 rows x 4 positions x 8 values, two bytes each.
    assert parts["decode"] == pytest.approx(2 * (328 + 64))
    assert limit_parts(TINY, RATES, "step", apart, 2)["decode"] == pytest.approx(2 * (2 * 328 + 64))
    assert limit_parts(TINY, RATES, "rollout", together, 2) == {name: parts[name] for name in ("prefill", "decode")}
    assert limit_parts(TINY, RATES, "update", together, 2) == {"update": parts["update"]}
    assert list(limit_parts(TINY, RATES, "judge", [Size(3, 0, layers=1)], 2)) == ["judge"]


def test_the_limits_of_the_embedded_model_are_those_of_its_plain_arithmetic():
    from comity.plan.architectures import SHIPPED

    embedded = SHIPPED["embedded"]
    rates = Rates(25e9, 2.3e12, 2.3e12)
    # 63 steps of 134.5 M weights and, over 32 rows, prompts of 300 and half of 64 more: 332 x 32 x 23,040 bytes.
    # (269 MB + 245 MB) / 25 GB/s = 20.6 ms a step.
    batch = [Size(300, 64)] * 32
    assert decode_seconds(embedded, rates, batch, 2) / 63 == pytest.approx(20.6e-3, rel=0.01)
    # 16 samples of 364 tokens: 5,824 x (4 x 106.2 M + 3 x 12.6 M) and 1,024 trained x 4 x 28.3 M over 2.3 TFLOP/s.
    assert update_seconds(embedded, rates, [Size(300, 64)] * 16) == pytest.approx(1.22, rel=0.01)
