"""`bellwether load`: what it reports is what was sent and what the server counted, over gRPC and over HTTP."""

import http.server
import json
import pathlib
import subprocess
import tempfile
import threading
import unittest

from tests.e2e import processes


def load(*arguments):
    return subprocess.run([processes.BIN / "bellwether", "load", *map(str, arguments)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=processes.PATIENCE)


class OverGrpc(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.model = pathlib.Path(directory.name)
        processes.write_tiny_checkpoint(cls.model)

    def test_lengths_and_numbers_are_those_that_were_asked_for(self):
        done = load("--model", self.model, "--threads", 1, "--concurrency", 3, "--requests", 9, "--prompt-tokens", 5,
                    "--output-tokens", 7, "--objective-e2e", 3600, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        (report,) = json.loads(done.stdout)["loads"]
        self.assertEqual((report["requests"], report["answered"], report["errors"]), (9, 9, {}))
        self.assertEqual((report["prompt_tokens"], report["generated_tokens"]), (9 * 5, 9 * 7))
        self.assertEqual(report["within_objectives"], 9)
        self.assertGreater(report["time_to_first_token_seconds"]["p50"], 0)
        self.assertLessEqual(report["time_to_first_token_seconds"]["max"], report["end_to_end_seconds"]["max"])

    def test_a_sweep_goes_through_the_loads_and_names_a_knee(self):
        done = load("--model", self.model, "--threads", 1, "--concurrency", 4, "--requests", 8, "--prompt-tokens", "2-6",
                    "--output-tokens", "6~2", "--sweep", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        answer = json.loads(done.stdout)
        self.assertEqual([report["load"] for report in answer["loads"]], ["1 at once", "2 at once", "4 at once"])
        self.assertIn(answer["knee"], [report["load"] for report in answer["loads"]])
        # Which requests are sent does not depend on how many are under way.
        self.assertEqual(len({(report["prompt_tokens"], report["generated_tokens"]) for report in answer["loads"]}), 1)

    def test_a_load_without_one_answer_fails(self):
        done = load("--model", self.model, "--threads", 1, "--requests", 2, "--warm-up", 0, "--prompt-tokens", 100000)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, "no request was answered, 2 failed: INVALID_ARGUMENT, the first: .*prompt")

    def test_what_contradicts_itself_is_refused_before_anything_starts(self):
        for arguments, words in ((["--sweep", "--rate", 3], "leave out --rate"), (["--url", "ftp://x"], "http://"),
                                 (["--url", "http://192.0.2.1/v1"], "--insecure"),
                                 (["--prompt-tokens", "few"], "--prompt-tokens")):
            done = load("--model", self.model, *arguments)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)


class FakeServer(http.server.BaseHTTPRequestHandler):
    """Answers with three tokens an event, so that whoever counts events counts wrong; every third request is refused."""

    protocol_version = "HTTP/1.1"
    seen = []  # bodies
    lock = threading.Lock()

    def log_message(self, *_):
        pass

    def answer(self, code, kind, body):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, "application/json", b'{"data": [{"id": "fake-model"}, {"id": "other"}]}')

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            self.seen.append((self.path, self.headers["Authorization"], body))
            refused = len(self.seen) % 3 == 0
        if refused:
            return self.answer(429, "application/json", b'{"error": {"code": "queue_full", "message": "later"}}')
        tokens = body["max_tokens"]
        piece = {"delta": {"content": "abc"}} if "messages" in body else {"text": "abc"}
        events = [{"choices": [piece]}] * -(-tokens // 3)
        events.append({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": tokens}})
        text = ": hello\n\n" + "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        self.answer(200, "text/event-stream", text.encode())


class OverHttp(unittest.TestCase):
    def setUp(self):
        FakeServer.seen = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeServer)
        threading.Thread(target=self.server.serve_forever).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def test_tokens_are_those_of_usage_and_errors_have_their_kind(self):
        done = load("--url", self.url, "--api-key", "secret", "--concurrency", 2, "--requests", 8, "--warm-up", 1,
                    "--prompt-tokens", 4, "--output-tokens", 7, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        (report,) = json.loads(done.stdout)["loads"]
        self.assertEqual(report["errors"], {"HTTP 429 queue_full": 3})
        self.assertEqual((report["answered"], report["generated_tokens"], report["prompt_tokens"]), (5, 35, 55))
        # No prompt comes twice, which a server that remembers prompts would answer faster.
        self.assertEqual(len({body["prompt"] for _, _, body in FakeServer.seen}), len(FakeServer.seen))
        for path, authorization, body in FakeServer.seen:
            self.assertEqual((path, authorization), ("/v1/completions", "Bearer secret"))
            self.assertEqual((body["model"], body["stream_options"]), ("fake-model", {"include_usage": True}))
            self.assertEqual(len(body["prompt"].split()), 4)

    def test_conversations_of_a_file_go_to_chat(self):
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as prompts:
            prompts.write('{"text": "who?"}\n{"prompt": "once"}\n')
            prompts.flush()
            done = load("--url", self.url, "--served-model", "mine", "--prompts", prompts.name, "--concurrency", 1,
                        "--requests", 2, "--warm-up", 0, "--output-tokens", 3)
        self.assertEqual(done.returncode, 0, done.stderr)
        (first, second) = FakeServer.seen
        self.assertEqual((first[0], first[2]["messages"]), ("/v1/chat/completions", [{"role": "user", "content": "who?"}]))
        self.assertEqual((second[0], second[2]["prompt"], second[2]["model"]), ("/v1/completions", "once", "mine"))
        self.assertIn("2 answered", done.stdout)

    def test_nobody_there(self):
        done = load("--url", "http://127.0.0.1:1")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("http://127.0.0.1:1/v1/models", done.stderr)


if __name__ == "__main__":
    unittest.main()
