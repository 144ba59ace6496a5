"""A headless Chromium and one page in it, spoken to by the DevTools protocol over a pipe. Standard library alone."""

import base64
import contextlib
import json
import os
import select
import subprocess
import tempfile
import time

from tests.e2e import processes

# Chromium reads commands from descriptor 3 and writes answers to 4.
WITH_PIPES = ("bash", "-c", 'exec 3<&"$1" 4>&"$2" && shift 2 && exec "$@"', "bash")
ENTER = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}


class Browser:
    """Shows `url` until closed. `console` has what its console calls an error, in order."""

    def __init__(self, program, url):
        self._ends = contextlib.ExitStack()
        # Its helper processes may write a moment longer than the browser lives.
        self._profile = self._ends.enter_context(tempfile.TemporaryDirectory(prefix="bellwether-browser.", ignore_cleanup_errors=True))
        self._next_id, self._unread, self.console, self._session = 0, b"", [], {}
        self._start(program)
        try:
            target = self.command("Target.createTarget", url="about:blank")["targetId"]
            self._session = {"sessionId": self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
            for domain in ("Runtime", "Log", "Page"):
                self.command(f"{domain}.enable")
            self.command("Page.navigate", url=url)
            self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")
        except BaseException:
            self.close()
            raise

    def _start(self, program):
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        for descriptor in (self._commands, self._answers):
            self._ends.callback(os.close, descriptor)
        # Its sandbox is not for root, and the page is ours.
        flags = ["--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server",
                 f"--user-data-dir={self._profile}"]
        self._process = subprocess.Popen([*WITH_PIPES, str(commands), str(answers), program, *flags], pass_fds=(commands, answers),
                                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(answers)

    def close(self):
        self._process.kill()
        self._process.wait()
        self._ends.close()

    def command(self, method, **parameters):
        """The result of one command of the protocol."""
        self._next_id += 1
        command = {"id": self._next_id, "method": method, "params": parameters} | self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while (message := self._read()).get("id") != self._next_id:
            self._keep(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def _read(self):
        end = time.monotonic() + processes.PATIENCE
        while b"\0" not in self._unread:
            if not select.select([self._answers], [], [], max(0, end - time.monotonic()))[0]:
                raise RuntimeError("the browser does not answer")
            if not (data := os.read(self._answers, 1 << 16)):
                raise RuntimeError("the browser has ended")
            self._unread += data
        message, self._unread = self._unread.split(b"\0", 1)
        return json.loads(message)

    def _keep(self, event):
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.console.append(parameters["exceptionDetails"])
        elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.console.append(parameters["args"])
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.console.append(parameters["entry"])

    def value(self, expression):
        """Of a JavaScript expression in the page."""
        answer = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression):
        """The expression's value as soon as it is something."""
        end = time.monotonic() + processes.PATIENCE
        while not (value := self.value(expression)):
            if time.monotonic() > end:
                raise RuntimeError(f"it has not come true: {expression}; the page says:\n{self.value('document.body.innerText.slice(-500)')}")
        return value

    def click(self, selector):
        """As a mouse does: on the middle of what can be seen there."""
        x, y, hit = self.value(
            f"(() => {{ const element = document.querySelector({json.dumps(selector)}); element.scrollIntoView({{block: 'nearest'}});"
            "const box = element.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;"
            "return [x, y, element.contains(document.elementFromPoint(x, y))]; })()")
        if not hit:
            raise RuntimeError(f"{selector} cannot be clicked: it is hidden")
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector, text):
        """In the place of what stands in a field."""
        self.click(selector)
        self.value(f"document.querySelector({json.dumps(selector)}).select()")
        self.command("Input.insertText", text=text)

    def press_enter(self):
        for kind in ("keyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, **ENTER)

    def screenshot(self):
        """As PNG."""
        return base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"])
