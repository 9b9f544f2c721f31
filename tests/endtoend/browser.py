"""A headless Chromium, driven over its DevTools protocol with real key presses and mouse moves."""

import base64
import contextlib
import http.client
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import websocket

PROGRAM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
KEYS = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}


class CommandFailed(AssertionError):
    """The browser refused a command."""


class Browser:
    """One page in a browser of its own; ends it at the end of a `with`.

    Attributes:
        errors: exceptions and console errors of the page.
        requests: addresses that the page asked for.
    """

    def __init__(self, folder: Path, width: int = 1280, height: int = 900) -> None:
        assert PROGRAM is not None
        folder.mkdir(parents=True)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"]
        quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--remote-allow-origins=*"]
        command = [PROGRAM, *arguments, *quiet, f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.number = 0
        port = self._wait(lambda: (folder / "DevToolsActivePort").read_text().split()[0])
        address = self._wait(lambda: self._page(port))
        self.socket = websocket.create_connection(address, timeout=240)
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.size(width, height)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(timeout=240)

    @staticmethod
    def _page(port: str) -> str:
        """The address of the page. The browser may listen before it has one."""
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=60))
        found = [one["webSocketDebuggerUrl"] for one in pages if one["type"] == "page"]
        return str(found[0])

    @staticmethod
    def _wait(ask: Any) -> Any:
        """The answer, as soon as there is one."""
        until = time.monotonic() + 240
        while True:
            try:
                return ask()
            except (OSError, IndexError, http.client.HTTPException, ValueError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command.

        Raises:
            CommandFailed: the browser refused it.
        """
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self.socket.recv())
            if told.get("id") == self.number:
                if "error" in told:
                    raise CommandFailed(told["error"])
                return dict(told["result"])
            self._note(told)

    def _note(self, event: dict[str, Any]) -> None:
        kind, what = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(what["exceptionDetails"].get("exception", what)))
        elif kind == "Log.entryAdded" and what["entry"]["level"] == "error":
            self.errors.append(what["entry"]["text"])
        elif kind == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])

    def open(self, path: Path, fragment: str = "") -> None:
        self.send("Page.navigate", url="about:blank")
        self.requests.clear()
        self.send("Page.navigate", url=f"{path.resolve().as_uri()}{fragment}")
        self.until("document.readyState + location.protocol === 'completefile:'")

    def until(self, condition: str) -> None:
        """Waits until an expression is true. A page that is left has no place any more to evaluate it in."""
        until = time.monotonic() + 240
        while True:
            with contextlib.suppress(CommandFailed):
                if self.js(condition):
                    return
            assert time.monotonic() < until, condition
            time.sleep(0.05)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        return str(self.js(f"document.querySelector({json.dumps(selector)}).textContent"))

    def texts(self, selector: str) -> list[str]:
        return list(self.js(f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.textContent)"))

    def place(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element in the window, once it is scrolled to."""
        found = json.dumps(selector)
        self.js(f"document.querySelector({found}).scrollIntoView({{block: 'center'}})")
        x, y, width, height = self.js(f"(r => [r.left, r.top, r.width, r.height])(document.querySelector({found}).getBoundingClientRect())")
        return x, y, width, height

    def move(self, x: float, y: float) -> None:
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float, shift: bool = False) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1, modifiers=8 * shift)

    def click_on(self, selector: str) -> None:
        x, y, width, height = self.place(selector)
        self.click(x + width / 2, y + height / 2)

    def write(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def press(self, key: str) -> None:
        letter = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        code = KEYS.get(key, ord(key[0].upper()))
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **letter)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def size(self, width: int, height: int, dark: bool = False) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)

    def picture(self, path: Path, whole: bool = False) -> None:
        taken = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))
