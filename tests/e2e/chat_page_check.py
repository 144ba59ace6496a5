"""The page at `/` in a real browser, as its reader uses it: Debian's Chromium, which tools/check.sh page fetches."""

import hashlib
import json
import os
import pathlib
import tempfile
import unittest

from tests.e2e import browser, openai_test, processes

QUESTION = "Is <b>this</b> bold & true?"
LAST_ANSWER = "[...document.querySelectorAll('.turn.assistant')].at(-1)"


class ChatPage(unittest.TestCase):
    def serve(self, workers=1, flags=()):
        """A cluster and its page. Only greedy answers are the same each time, and long enough to be stopped."""
        self.model = openai_test.a_model(type(self), positions=60000)
        self.cluster = processes.Cluster(self.model, workers=workers, coordinator_flags=["--context-tokens", "60000", *flags])
        self.addCleanup(self.cluster.close)
        self.door = openai_test.Door(self.cluster.http_address)
        if workers > 0:
            self.door.wait_until_serving()
        self.page = browser.Browser(os.environ["BELLWETHER_BROWSER"], f"http://{self.cluster.http_address}/")
        self.addCleanup(self.page.close)
        self.page.click("summary")
        self.page.type("#temperature", "0")

    def ask(self, text, tokens):
        self.page.type("#tokens", str(tokens))
        self.page.type("#question", text)
        self.page.press_enter()

    def wait_for_end(self):
        self.page.wait_for("document.querySelector('#stop').hidden && !document.querySelector('#send').hidden")

    def texts(self, kind):
        return self.page.value(f"[...document.querySelectorAll('.{kind}')].map(each => each.textContent)")

    def chat(self, messages, tokens):
        answer = self.door.post("/v1/chat/completions", model="sheep-1b", messages=messages, temperature=0, max_tokens=tokens)
        return answer["choices"][0]["message"]["content"]

    def finished(self, reason):
        return self.cluster.metric("bellwether_requests_finished_total", reason=reason)

    def test_two_turns(self):
        self.serve()
        self.assertEqual(self.page.wait_for("model && document.title"), "sheep-1b")
        health = self.door.get("/health")[2]
        self.page.wait_for("document.querySelector('#cluster').textContent !== '…'")
        shown = self.page.value("document.querySelector('#cluster').textContent")
        self.assertEqual(shown, f"{health['layout']}, {health['kernel_level']}, weights {health['weights']}")

        self.ask(QUESTION, 20)
        self.wait_for_end()
        messages = [{"role": "user", "content": QUESTION}]
        messages.append({"role": "assistant", "content": self.chat(messages, 20)})
        self.ask("And now?", 30)
        self.wait_for_end()
        messages.append({"role": "user", "content": "And now?"})
        self.assertEqual(self.texts("turn.user"), [QUESTION, "And now?"], "markup is shown, not obeyed")
        self.assertEqual(self.texts("turn.assistant"), [messages[1]["content"], self.chat(messages, 30)])
        first, second = self.texts("speed")
        self.assertRegex(first, r"^20 tokens, \d+\.\d tokens/s$")
        self.assertRegex(second, r"^30 tokens, \d+\.\d tokens/s$")
        self.assertEqual(self.page.value("[...document.querySelectorAll('.turn b')].length"), 0)
        self.save_screenshot()
        self.page.click("#clear")
        self.assertEqual(self.texts("turn"), [])
        self.assertEqual(self.page.console, [])

    def test_a_key(self):
        keys = tempfile.NamedTemporaryFile("w")
        self.addCleanup(keys.close)
        json.dump({"name": "team-a", "sha256": hashlib.sha256(b"sheep").hexdigest()}, keys)
        keys.flush()
        self.serve(flags=["--api-keys", keys.name])
        self.page.wait_for("/key/.test(document.querySelector('#cluster').textContent)")
        self.page.type("#key", "sheep")
        self.page.wait_for("/weights fp32/.test(document.querySelector('#cluster').textContent)")
        self.ask(QUESTION, 5)
        self.wait_for_end()
        self.assertRegex(self.texts("speed")[-1], "^5 tokens")
        self.assertEqual({entry.get("source") for entry in self.page.console}, {"network"}, "refusals, and no error of the page")

    def save_screenshot(self):
        if "BELLWETHER_SAVE" in os.environ:
            pathlib.Path(os.environ["BELLWETHER_SAVE"]).write_bytes(self.page.screenshot())

    def test_an_answer_grows_until_it_is_stopped(self):
        self.serve()
        self.page.wait_for("model")
        self.ask(QUESTION, 50000)
        length = self.page.wait_for(f"{LAST_ANSWER}?.textContent.length")
        self.page.wait_for(f"{LAST_ANSWER}.textContent.length > {length}")
        self.assertEqual(self.cluster.metric("bellwether_requests_running"), 1)
        self.assertEqual(self.finished("cancelled"), 0)
        self.page.click("#stop")
        self.wait_for_end()
        openai_test.wait_for(lambda: self.finished("cancelled") == 1)
        self.assertEqual(self.cluster.metric("bellwether_requests_running"), 0)
        self.assertEqual(self.texts("error"), [], "that it was stopped is no error")
        self.ask("And now?", 5)
        self.wait_for_end()
        self.assertEqual(len(self.texts("turn.assistant")), 2)
        self.assertRegex(self.texts("speed")[-1], "^5 tokens")
        self.assertEqual(self.page.console, [])

    def test_what_goes_wrong_is_shown(self):
        self.serve(workers=0)
        self.page.wait_for("/worker/.test(document.querySelector('#cluster').textContent)")
        self.cluster.start_worker("--model", self.model, "--name", "sheep-0")
        self.page.wait_for("/weights fp32/.test(document.querySelector('#cluster').textContent)")
        self.ask(QUESTION, 0)
        self.wait_for_end()
        self.ask(QUESTION, 50000)
        self.page.wait_for(f"{LAST_ANSWER}.textContent.length > 3000")  # more than the window shows
        self.cluster.processes[1].kill()
        self.page.wait_for("document.querySelectorAll('.notice').length")
        self.page.wait_for("document.querySelector('.notice').getBoundingClientRect().bottom <= "
                           "document.querySelector('form').getBoundingClientRect().top")
        [notice] = self.texts("notice")
        self.assertRegex(notice, "^worker sheep-0 .* is lost: .*; the answer goes on when service is back$")
        length = self.page.wait_for(f"{LAST_ANSWER}.textContent.length")
        self.cluster.start_worker("--model", self.model, "--name", "sheep-0")
        self.page.wait_for(f"{LAST_ANSWER}.textContent.length > {length} + 10")
        self.page.click("#stop")
        self.wait_for_end()
        [refused] = self.texts("error")
        self.assertIn("max_tokens", refused)
        self.assertEqual({entry.get("source") for entry in self.page.console}, {"network"}, "refusals, and no error of the page")


if __name__ == "__main__":
    unittest.main(verbosity=2)
