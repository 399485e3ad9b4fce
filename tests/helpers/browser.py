"""A headless Chromium, and a server in a thread, for the tests of pages."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)


@contextmanager
def opened(program: str, driver: str) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in FLAGS:
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


def programs() -> tuple[str | None, str | None]:
    """Chromium and its driver, where they are installed."""
    return shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program, driver = programs()
    if not (program and driver):
        if os.environ.get("MMSENT_REQUIRE_BROWSER"):
            pytest.fail("MMSENT_REQUIRE_BROWSER is set, but there is no chromium with chromedriver")
        pytest.skip("no chromium with chromedriver on this machine")
    with opened(program, driver) as found:
        yield found


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The address of an application that is served in a thread."""
    import uvicorn

    from mmsent.serve.server import bind

    bound = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started and time.monotonic() < until:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


def wait(browser: Any, script: str, seconds: float = 60) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds).until(lambda b: b.execute_script(f"return {script}"))


def resize(browser: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def colours(browser: Any, scheme: str) -> None:
    """Light or dark."""
    features = [{"name": "prefers-color-scheme", "value": scheme}] if scheme else []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def show(browser: Any, address: str, width: int = 1400, language: str = "en") -> None:
    resize(browser, width)
    browser.get(address)
    wait(browser, "document.documentElement.dataset.ready === 'yes'")
    if browser.execute_script("return document.documentElement.lang")[:2] != language:
        click(browser, "language")


def click(browser: Any, name: str) -> None:
    button = browser.find_element("id", name)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()


def explained(browser: Any) -> None:
    wait(browser, "!document.getElementById('explained').hidden && document.getElementById('thinking').hidden", 120)


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    for key in keys:
        ActionChains(browser).send_keys(key).perform()
