"""Devices by name, by number and by what a driver calls them."""

import pytest

from comity.errors import ConfigError
from comity.plan.devices import DEVICES, custom_device, find_device, match_device


def test_a_device_is_found_by_its_name():
    assert find_device("H100-80GB").memory_gb == 80
    assert len({device.name for device in DEVICES}) == len(DEVICES)
    with pytest.raises(ConfigError, match=r"--device 'h200' is unknown: choose l4-24gb, .*or give --memory-gb"):
        find_device("h200")


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090-24gb"),
        ("NVIDIA L40S", "l40s-48gb"),
        ("NVIDIA L4", "l4-24gb"),
        ("NVIDIA RTX A6000", "rtx-a6000-48gb"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000-96gb"),
        ("NVIDIA H200", "h200-141gb"),
        ("Tesla T4", None),
    ],
)
def test_a_device_is_known_by_its_product_name(product, name):
    found = match_device(product)
    assert (found and found.name) == name


def test_a_device_by_its_numbers_needs_all_of_them():
    device = custom_device(96.0, 400.0, 1800.0)
    assert (device.memory_gb, device.tflops, device.bandwidth_gb_per_second) == (96, 400, 1800)
    with pytest.raises(ConfigError, match=r"--bandwidth is 0\.0: choose a number above 0"):
        custom_device(96.0, 400.0, 0.0)
