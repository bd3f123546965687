"""A headless Chromium, driven over its DevTools protocol through a pipe."""

import base64
import json
import os
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

_START = (
    'exec "$0" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run '
    '--remote-debugging-pipe --user-data-dir="$1" about:blank '
    '3<"/dev/fd/$2" 4>"/dev/fd/$3" 2>/dev/null'
)


class Browser:
    """One page of a browser of its own, which keeps its profile in a folder."""

    def __init__(self, folder):
        (theirs_in, self._out), (self._in, theirs_out) = os.pipe(), os.pipe()
        fds = [str(theirs_in), str(theirs_out)]
        self._process = subprocess.Popen(
            ["sh", "-c", _START, CHROMIUM, folder, *fds], pass_fds=(theirs_in, theirs_out)
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._read, self._count, self._session, self.events = b"", 0, None, []
        targets = self.send("Target.getTargets")["targetInfos"]
        (page,) = (one["targetId"] for one in targets if one["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        """Send a command and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        return self._until(lambda one: one.get("id") == message["id"])["result"]

    def _until(self, wanted):
        while True:
            text, end, rest = self._read.partition(b"\0")
            if not end:
                more = os.read(self._in, 1 << 20)
                assert more, "the browser has gone"
                self._read += more
                continue
            self._read, message = rest, json.loads(text)
            if wanted(message):
                return message
            self.events.append(message)

    def open(self, path, width, height, *, phone=False, scheme="light"):
        """Show a file."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)
        self.events.clear()
        self.send("Page.navigate", url=path.absolute().as_uri())
        if not any(one.get("method") == "Page.loadEventFired" for one in self.events):
            self._until(lambda one: one.get("method") == "Page.loadEventFired")

    def value(self, script):
        """Return the value of an expression, or of what it promises."""
        found = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key, text="", modifiers=0):
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            down = {"text": text} if kind == "keyDown" and text else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, modifiers=modifiers, **down)

    def drag(self, start, end, *, touch=False):
        """Drag from one point to another, by mouse or by a finger."""
        if touch:
            self.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=[_point(start)])
            self.send("Input.dispatchTouchEvent", type="touchMove", touchPoints=[_point(end)])
            self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
            return
        for kind, point in (("Pressed", start), ("Moved", end), ("Released", end)):
            more = {"button": "left", "buttons": int(kind != "Released"), "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=f"mouse{kind}", **more, **_point(point))

    def screenshot(self):
        """Return what is seen, as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def close(self):
        """End."""
        self._process.terminate()
        self._process.wait(30)
        os.close(self._in)
        os.close(self._out)


def _point(point):
    return {"x": point[0], "y": point[1]}
