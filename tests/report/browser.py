"""A headless Chromium for tests of the report: real keys, wheel and pointer, and what it logs.

It is driven by the DevTools protocol over a pair of pipes, so the browser is all that is needed:
``apt-get install chromium`` (or any Chrome or Chromium on the PATH, or named by ``CHROMIUM``).
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INSTALL = "needs a browser: apt-get install chromium (or name one by CHROMIUM=/path/to/chrome)"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
_KEY_CODES = {"Escape": 27, "Enter": 13, "ArrowRight": 39}
_PATIENCE = 60  # seconds for one answer; the machine may be busy


def find_browser() -> str | None:
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, _NAMES)), None)


class Page:
    """A page in the browser, with the requests it made and the complaints it logged."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.problems: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], _PATIENCE)[0]:
                raise TimeoutError("the browser does not answer")
            piece = os.read(self._from, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has ended")
            self._buffer += piece
        message, self._buffer = self._buffer.split(b"\0", 1)
        event = json.loads(message)
        self._note(event.get("method"), event.get("params", {}))
        return event

    def _note(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"])[:600])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.problems.append(json.dumps(params["args"])[:600])

    def open(self, url: str, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """Load a page; returns once its scripts have run."""
        self.resize(width, height)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.send("Page.navigate", url=url)
        self.wait("document.documentElement?.dataset.ready === 'true'")

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)

    def value(self, expression: str) -> Any:
        """Evaluate JavaScript; promises are waited for."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript condition holds."""
        end = time.monotonic() + _PATIENCE
        while not self.value(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {condition}; the page logged {self.problems}")
            time.sleep(0.05)

    def center(self, selector: str) -> tuple[int, int]:
        """The middle of an element, which is scrolled into view; whole pixels, as events have."""
        find = f"document.querySelector({json.dumps(selector)})"
        x, y = self.value(
            f"(() => {{ const node = {find}; node.scrollIntoView({{block: 'center'}});"
            " const r = node.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        return round(x), round(y)

    def click(self, selector: str) -> None:
        x, y = self.center(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.mouse("mousePressed", *start, button="left", clickCount=1)
        self.mouse("mouseMoved", *end, button="left", buttons=1)
        self.mouse("mouseReleased", *end, button="left", clickCount=1)

    def wheel(self, x: float, y: float, delta: float) -> None:
        self.mouse("mouseWheel", x, y, deltaX=0, deltaY=delta)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def press(self, key: str) -> None:
        more = {"text": key} if len(key) == 1 else {"windowsVirtualKeyCode": _KEY_CODES[key]}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def choose(self, selector: str, text: str) -> None:
        """Choose the option with that text in a select."""
        self.value(
            f"(() => {{ const s = document.querySelector({json.dumps(selector)});"
            f" const o = [...s.options].find((o) => o.textContent === {json.dumps(text)});"
            " s.value = o.value;"
            " for (const e of ['input', 'change'])"
            " s.dispatchEvent(new Event(e, {bubbles: true})); })()"
        )

    def screenshot(self, path: Path, whole: bool = False) -> None:
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextlib.contextmanager
def browser_page(profile: Path) -> Iterator[Page]:
    """Start the browser with a profile folder of its own; it ends with the context."""
    for_browser, to_browser = os.pipe()
    from_browser, of_browser = os.pipe()
    # The browser reads from descriptor 3 and writes to 4.
    command = 'exec "$@" 3<&"$READ" 4>&"$WRITE"'
    child = subprocess.Popen(
        ["bash", "-c", command, "bash", find_browser(), *_FLAGS, f"--user-data-dir={profile}"],
        env={**os.environ, "READ": str(for_browser), "WRITE": str(of_browser)},
        pass_fds=(for_browser, of_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(for_browser), os.close(of_browser)
    try:
        page = Page(to_browser, from_browser)
        yield page
    finally:
        child.terminate()
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        os.close(to_browser), os.close(from_browser)
