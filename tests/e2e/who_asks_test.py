"""What log and metrics say of a request and of who asks, against the real binaries: names, traces, keys, pages."""

import hashlib
import json
import os
import subprocess
import unittest

from tests.e2e import processes
from tests.e2e.openai_test import Door, a_model, wait_for

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
KEY, SECRET = "a-key-of-team-a", "this prompt is nobody's business"
FRIEND = "https://friend.example"


class WhoAsks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        model = a_model(cls)
        keys = model / "keys"
        keys.write_text(json.dumps({"name": "team-a", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}) + "\n")
        log = ["--log-level", "debug", "--log-format", "json"]
        cls.cluster = processes.Cluster(
            model, coordinator_flags=["--api-keys", keys, "--http-allow-origin", FRIEND, *log], worker_flags=log)
        cls.addClassCleanup(cls.cluster.close)
        cls.door = Door(cls.cluster.http_address)
        cls.door.wait_until_serving()

    def ask(self, name, **more):
        headers = {"Authorization": f"Bearer {KEY}", "x-request-id": name, "traceparent": TRACEPARENT}
        return self.door.ask("POST", "/v1/completions", {"model": "sheep-1b", "prompt": SECRET, "max_tokens": 2} | more, headers)

    def lines(self):
        """What the programs have logged; a line that is not whole yet is left out."""
        for path in self.cluster.directory.glob("*.log"):
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    yield json.loads(line)

    def lines_of(self, **fields):
        return [line for line in self.lines() if fields.items() <= line.items()]

    def metrics(self, **labels):
        _, _, text = Door(self.cluster.addresses["metrics"]).get("/metrics")
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        return {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if all(w in line for w in wanted)}

    def test_every_line_is_json_and_says_which_worker_and_epoch(self):
        for line in self.lines():
            self.assertLessEqual({"time", "level", "program", "pid", "message"}, line.keys())
        ready = self.lines_of(program="worker", worker="sheep-0", epoch="1", stage="0", rank="0")
        self.assertTrue(ready, self.cluster.logs())
        self.assertTrue(self.lines_of(program="coordinator", epoch="1"))

    def test_a_request_is_found_by_its_name_its_key_and_its_trace(self):
        for name, more, level in (("good", {}, "debug"), ("bad", {"max_tokens": -1}, "info"), ("stream", {"stream": True}, "debug")):
            code, headers, _ = self.ask(name, **more)
            self.assertEqual((code, headers["x-request-id"], headers["traceparent"]), (400 if name == "bad" else 200, name, TRACEPARENT))
            fields = {"request": name, "client": "team-a", "trace": TRACE, "epoch": "1", "level": level}
            wait_for(lambda: self.lines_of(**fields))

    def test_what_is_no_trace_is_not_echoed(self):
        headers = {"Authorization": f"Bearer {KEY}", "traceparent": "00-" + "0" * 32 + "-00f067aa0ba902b7-01"}
        _, headers, _ = self.door.ask("POST", "/v1/completions", {"model": "sheep-1b", "prompt": "a", "max_tokens": 1}, headers)
        self.assertIsNone(headers["traceparent"])

    def test_the_log_has_neither_prompts_nor_keys(self):
        self.ask("secret")
        wait_for(lambda: self.lines_of(request="secret"))
        self.assertNotIn(SECRET, self.cluster.logs())
        self.assertNotIn(KEY, self.cluster.logs())

    def test_metrics_count_by_the_keys_name(self):
        before = self.metrics(client="team-a")
        self.ask("counted")
        after = self.metrics(client="team-a")
        for name, more in (("requests", 1), ("generated_tokens", 2)):
            name = f"bellwether_client_{name}_total"
            self.assertEqual(after[name] - before.get(name, 0), more)

    def test_who_goes_before_the_end_is_a_499(self):
        headers = {"Authorization": f"Bearer {KEY}"}
        body = {"model": "sheep-1b", "prompt": "a", "max_tokens": 2000, "stream": True, "ignore_eos": True}
        connection, response = self.door.open("POST", "/v1/completions", body, headers)
        response.readline()
        connection.sock.shutdown(1)  # its sending half is enough
        wait_for(lambda: self.metrics(code="499")["bellwether_http_responses_total"] >= 1)
        connection.close()

    def test_the_tool_says_who_asks(self):
        def generate(key, *flags):
            environment = {k: v for k, v in os.environ.items() if k != "BELLWETHER_API_KEY"} | ({"BELLWETHER_API_KEY": key} if key else {})
            return subprocess.run([processes.BIN / "bellwether", "generate", "--connect", self.cluster.address, "--prompt", "a",
                                   "--max-tokens", "1", *flags], env=environment, capture_output=True, text=True,
                                  timeout=processes.PATIENCE)

        self.assertEqual(generate(KEY).returncode, 0)
        refused = generate("")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("API key", refused.stderr)
        settings = generate(KEY, "--print-config")
        self.assertEqual(settings.returncode, 0)
        self.assertNotIn(KEY, settings.stdout, "settings are shown and kept, secrets are not")
        # gRPC ends the process that gives it such a header, and curl begins another one.
        for key in (f"{KEY}\r", f"{KEY}\r\nX-Evil: 1", "Schl\u00fcssel"):
            wrong = generate(key)
            self.assertEqual(wrong.returncode, 2, key)
            self.assertNotIn(key, wrong.stderr)

    def test_pages_of_others_may_not_ask_unless_they_are_named(self):
        for origin, code in (("https://evil.example", 403), (FRIEND, 200), (f"http://{self.cluster.http_address}", 200), (None, 200)):
            headers = {"Origin": origin} if origin else {}
            answered, answer_headers, _ = self.door.ask("GET", "/version", None, headers)
            self.assertEqual(answered, code, origin)
            self.assertEqual(answer_headers["Access-Control-Allow-Origin"], FRIEND if origin == FRIEND else None)


class LogPrompts(unittest.TestCase):
    def test_prompts_and_answers_are_logged_where_they_are_asked_for(self):
        model = a_model(type(self))
        cluster = processes.Cluster(model, coordinator_flags=["--log-prompts", "--log-format", "json"])
        self.addCleanup(cluster.close)
        door = Door(cluster.http_address)
        door.wait_until_serving()
        answer = door.post("/v1/completions", {"x-request-id": "told"}, model="sheep-1b", prompt=SECRET, max_tokens=4)
        wait_for(lambda: "answer: " in cluster.logs())
        lines = [json.loads(line) for line in cluster.logs().splitlines() if '"request":"told"' in line]
        self.assertEqual([line["message"] for line in lines], [f"prompt: {SECRET}", f"answer: {answer['choices'][0]['text']}"])

        # Of several prompts in one call each line says which one it is about.
        answer = door.post("/v1/completions", {"x-request-id": "both"}, model="sheep-1b", prompt=["first", "second"], max_tokens=4)
        wait_for(lambda: cluster.logs().count("answer: ") == 3)
        lines = [json.loads(line) for line in cluster.logs().splitlines() if '"request":"both"' in line]
        texts = [choice["text"] for choice in answer["choices"]]
        told = {(line["prompt"], line["message"]) for line in lines}
        self.assertEqual(told, {("0", "prompt: first"), ("1", "prompt: second"), ("0", f"answer: {texts[0]}"), ("1", f"answer: {texts[1]}")})


class JoinSecret(unittest.TestCase):
    def test_who_does_not_know_the_secret_does_not_join_and_hears_why(self):
        model = a_model(type(self))
        right, wrong = model / "right", model / "wrong"
        right.write_text("the shepherd's own word\n")
        wrong.write_text("another shepherd's word\n")
        cluster = processes.Cluster(model, workers=1, coordinator_flags=["--join-secret", right], worker_flags=["--join-secret", right])
        self.addCleanup(cluster.close)
        Door(cluster.http_address).wait_until_serving()
        for flags, reason in (([], "missing"), (["--join-secret", wrong], "another")):
            wolf = cluster.start_worker("--model", model, "--name", "wolf", *flags)
            self.assertNotEqual(wolf.wait(processes.PATIENCE), 0)
            self.assertIn(f"the coordinator refuses this worker: its join secret is {reason}", cluster.logs())
        self.assertNotIn("wolf has joined", cluster.logs())
        self.assertNotIn("shepherd", cluster.logs(), "secrets are in no log")


if __name__ == "__main__":
    unittest.main()
