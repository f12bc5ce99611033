"""A headless Chromium over its DevTools pipe: what a page shows, says and asks the network for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
PATIENCE_S = 60.0


def browser() -> str | None:
    """The path of a browser, None if there is none on the machine."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass(frozen=True)
class Seen:
    """What a page did: results of expressions, lines of its console, addresses it asked for."""

    values: list[Any]
    console: list[str]
    requests: list[str]


def open_page(address: str, expressions: list[str], profile: Path) -> Seen:
    """Loads a page in a browser with a fresh profile and evaluates expressions in it."""
    to_browser, from_us = os.pipe()
    from_browser, to_us = os.pipe()

    # The browser reads descriptor 3 and writes descriptor 4, whatever they are on our side.
    pipes = f"exec 5<&{to_browser} 6>&{to_us} 3<&5 4>&6"
    process = subprocess.Popen(
        [
            "bash",
            "-c",
            f'{pipes}; exec "$0" "$@"',
            str(browser()),
            *FLAGS,
            f"--user-data-dir={profile}",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(to_browser, to_us),
    )
    os.close(to_browser)
    os.close(to_us)
    try:
        return _visit(_Pipe(from_browser, from_us), address, expressions)
    finally:
        process.kill()
        process.wait()
        os.close(from_browser)
        os.close(from_us)


class _Pipe:
    """Messages of the DevTools protocol, each ended by a zero byte."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write = read, write
        self.buffer = b""
        self.number = 0
        self.events: list[dict[str, Any]] = []
        os.set_blocking(read, False)

    def message(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self.buffer:
            try:
                self.buffer += os.read(self.read, 1 << 16)
            except BlockingIOError:
                time.sleep(0.01)
            if time.monotonic() > deadline:
                raise TimeoutError("the browser says nothing")
        text, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(text)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self.message()).get("id") != self.number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(answer["error"]["message"])
        return answer["result"]

    def wait(self, method: str) -> None:
        while all(event.get("method") != method for event in self.events):
            self.events.append(self.message())


def _visit(pipe: _Pipe, address: str, expressions: list[str]) -> Seen:
    target = pipe.call("Target.createTarget", url="about:blank")["targetId"]
    session = pipe.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        pipe.call(f"{domain}.enable", session)
    pipe.call("Page.navigate", session, url=address)
    pipe.wait("Page.loadEventFired")
    values = [
        pipe.call(
            "Runtime.evaluate", session, expression=each, returnByValue=True, awaitPromise=True
        )["result"].get("value")
        for each in expressions
    ]
    console, requests = [], []
    for event in pipe.events:
        method, given = event.get("method"), event.get("params", {})
        if method == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning"):
            console.append(str(given["args"]))
        elif method == "Runtime.exceptionThrown":
            console.append(given["exceptionDetails"]["text"])
        elif method == "Log.entryAdded":
            console.append(given["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            requests.append(given["request"]["url"])
    return Seen(values, console, requests)
