"""What accelerators can do, by their makers' data sheets, and how much of it this code gets."""

from dataclasses import dataclass

from comity.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Device:
    """One device: memory in GB (1e9 bytes), dense bfloat16 TFLOP/s, memory bandwidth in GB/s.

    The shares say how much of the peak batched products and memory traffic get; `layer_step_seconds` is what starting
    the kernels of one layer costs in one decoding step, however small the batch.
    """

    name: str
    memory_gb: float
    tflops: float
    bandwidth_gb_per_second: float
    compute_share: float = 0.4
    bandwidth_share: float = 0.6
    layer_step_seconds: float = 0.7e-3
    reserve_gb: float = 1.5
    """The libraries' own memory."""
    is_cpu: bool = False


DEVICES = (
    Device("l4-24gb", 24, 121, 300),
    Device("rtx-4090-24gb", 24, 165, 1008),
    Device("a100-40gb", 40, 312, 1555),
    Device("l40s-48gb", 48, 362, 864),
    Device("rtx-a6000-48gb", 48, 155, 768),
    Device("a100-80gb", 80, 312, 2039),
    Device("h100-80gb", 80, 989, 3350),
    Device("rtx-pro-6000-96gb", 96, 503, 1792),
    Device("h200-141gb", 141, 989, 4800),
    Device("b200-180gb", 180, 2250, 7700),
    # Two cores each, measured and not from a data sheet, see "The planner" in docs/scaling.md: an AMD processor with
    # avx512_bf16 (products 0.42 to 0.45 TFLOP/s, 34 to 46 GB/s), and one with AMX (2.3 TFLOP/s, 24 to 29 GB/s), whose
    # shares are those of the code before our own for Llama.
    Device("cpu-2-cores", 24, 0.43, 40, 0.4, 0.6, 0.0, 0.9, is_cpu=True),
    Device("cpu-2-cores-amx", 24, 2.3, 26, 0.12, 0.3, 0.0, 0.9, is_cpu=True),
)


def find_device(name: str) -> Device:
    """Return a device of the table; raise ConfigError with the names there are."""
    for device in DEVICES:
        if device.name == name.lower():
            return device
    names = ", ".join(device.name for device in DEVICES)
    raise ConfigError(f"--device {name!r} is unknown: choose {names}, or give --memory-gb, --tflops and --bandwidth")


def match_device(product: str) -> Device | None:
    """Return the device of the table for the name that a driver reports, None when the table lacks it."""
    words = product.lower().replace("-", " ").split()
    memory = next(
        (int(word.removesuffix("gb")) for word in words if word.removesuffix("gb").isdigit() and word.endswith("gb")),
        None,
    )
    found = [device for device in DEVICES if set(device.name.split("-")[:-1]) <= set(words)]
    exact = [device for device in found if memory is not None and device.name.endswith(f"-{memory}gb")]
    return next(iter(exact or found), None)


def custom_device(memory_gb: float, tflops: float, bandwidth_gb_per_second: float) -> Device:
    """Return a device by its numbers; raise ConfigError unless all are above 0."""
    given = {"--memory-gb": memory_gb, "--tflops": tflops, "--bandwidth": bandwidth_gb_per_second}
    for option, value in given.items():
        if not 0 < value < float("inf"):
            raise ConfigError(f"{option} is {value}: choose a number above 0")
    return Device("custom", memory_gb, tflops, bandwidth_gb_per_second)
