"""Options, profiles and fixtures of all tests.

`pytest --update-golden` writes the files in tests/golden anew; look at their diff before you keep it.
"""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("comity", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("comity")

GOLDEN = Path(__file__).parent / "golden"


def pytest_configure(config):
    # peft 0.21 asks transformers 5.23 for an attribute under its old name; nothing of ours does.
    line = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
    config.addinivalue_line("filterwarnings", line)
    # Inspect 0.3.285 calls tenacity 9.2 by a parameter's old name.
    config.addinivalue_line("filterwarnings", "ignore:The 'initial' parameter is deprecated:DeprecationWarning")


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew instead of comparing")


@pytest.fixture(scope="module")
def browser():
    """Start one real browser for all tests of a file."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on the path: install Debian's package chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.fixture
def golden(request):
    """Return a check that a text equals tests/golden/NAME.txt byte for byte."""

    def check(name, text):
        path = GOLDEN / f"{name}.txt"
        data = text.encode("utf-8")
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        assert path.exists(), f"{path} is missing: run pytest --update-golden and read the new file"
        assert path.read_bytes() == data, f"{path} differs: if that is wanted, run pytest --update-golden"

    return check


@pytest.fixture(scope="session")
def tiny_tokenizer():
    from tiny import build_tokenizer

    return build_tokenizer()


@pytest.fixture
def tiny_model():
    """Return a fresh copy each time, so that a test may attach adapters to it."""
    from tiny import build_model

    return build_model()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """Return a folder that `load_model` and `load_tokenizer` take by path."""
    from tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")
