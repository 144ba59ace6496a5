"""A client in Python (grpcio) against the real binaries: what other languages see of the API."""

import concurrent.futures
import subprocess
import sys
import tempfile
import unittest

try:
    import grpc
except ImportError:
    print("skipped: the grpc module is missing (Debian: python3-grpcio)")
    sys.exit(77)  # SKIP_RETURN_CODE of tests/CMakeLists.txt

from proto.bellwether.v1 import inference_pb2 as pb
from proto.bellwether.v1 import inference_pb2_grpc
from tests.e2e import processes

STRAIGHT = [("grpc.enable_http_proxy", 0)]  # whatever http_proxy says


def ids(*values):
    return pb.Prompt(token_ids=pb.TokenIds(ids=values))


def answer(messages):
    """All token ids of a stream with one choice, checked for their order."""
    tokens = []
    for message in messages:
        assert message.index == len(tokens), f"index {message.index} after {len(tokens)} tokens"
        tokens.extend(message.token_ids)
    return tokens


def wait_until_serving(cluster):
    """Health tells its changes as a stream, so nothing is polled."""
    with grpc.insecure_channel(cluster.address, STRAIGHT) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        for state in watch(b"", timeout=processes.PATIENCE):
            if state == b"\x08\x01":  # HealthCheckResponse { status = SERVING }
                return


class PythonClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = processes.Cluster("random:llama?positions=20000:fp32", workers=2,
                                        coordinator_flags=["--context-tokens", "20000"])
        cls.addClassCleanup(cls.cluster.close)
        cls.channel = grpc.insecure_channel(cls.cluster.address, STRAIGHT)
        cls.addClassCleanup(cls.channel.close)
        cls.stub = inference_pb2_grpc.InferenceStub(cls.channel)
        wait_until_serving(cls.cluster)

    def generate(self, prompt, timeout=processes.PATIENCE, **options):
        sampling = pb.Sampling(**options.pop("sampling", {"temperature": 0}))
        request = pb.GenerateRequest(prompt=prompt, options=pb.GenerationOptions(sampling=sampling, **options))
        return self.stub.Generate(request, timeout=timeout)

    def assert_status(self, code, text, call):
        with self.assertRaises(grpc.RpcError) as caught:
            list(call)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertIn(text, caught.exception.details())

    def test_streaming(self):
        messages = list(self.generate(ids(1, 2, 3), max_tokens=50, ignore_eos=True, logprobs=2))
        self.assertGreater(len(messages), 2)
        self.assertEqual(list(messages[0].prompt_token_ids), [1, 2, 3])
        self.assertTrue(messages[0].request_id)
        self.assertEqual(len(answer(messages)), 50)
        self.assertEqual(sum(len(message.logprobs) for message in messages), 50)
        self.assertEqual(messages[-1].finish_reason, pb.FINISH_REASON_LENGTH)
        self.assertEqual(messages[-1].usage.generated_tokens, 50)
        self.assertEqual(messages[-1].usage.prompt_tokens, 3)

    def test_score(self):
        response = self.stub.Score(pb.ScoreRequest(prompt=ids(5, 6, 7, 8)))
        self.assertEqual(list(response.token_ids), [5, 6, 7, 8])
        self.assertEqual(len(response.logprobs), 3)
        self.assertTrue(all(logprob <= 0 for logprob in response.logprobs))

    def test_cancel(self):
        stream = self.generate(ids(1), ignore_eos=True, max_tokens=19000)
        next(stream)
        stream.cancel()
        with self.assertRaises(grpc.RpcError) as caught:
            for _ in stream:
                pass
        self.assertEqual(caught.exception.code(), grpc.StatusCode.CANCELLED)

    def test_deadline(self):
        stream = self.generate(ids(1), timeout=0.3, ignore_eos=True, max_tokens=19000, n=16)
        self.assert_status(grpc.StatusCode.DEADLINE_EXCEEDED, "", stream)

    def test_bad_arguments(self):
        refused = grpc.StatusCode.INVALID_ARGUMENT
        self.assert_status(refused, "max_tokens", self.generate(ids(1), max_tokens=0))
        self.assert_status(refused, "top_p", self.generate(ids(1), sampling={"top_p": 2}))
        self.assert_status(refused, "prompt", self.generate(pb.Prompt()))
        self.assert_status(refused, "prompt", self.generate(ids(160)))
        self.assert_status(refused, "20000", self.generate(ids(*[1] * 20000)))
        with self.assertRaises(grpc.RpcError) as caught:
            self.stub.Tokenize(pb.TokenizeRequest(text="hello"))
        self.assertIn("tokenizer", caught.exception.details())

    def test_request_id(self):
        options = pb.GenerationOptions(max_tokens=1)
        stream = self.stub.Generate(pb.GenerateRequest(prompt=ids(1), options=options),
                                    metadata=[("x-request-id", "snake-1")])
        self.assertEqual(next(iter(stream)).request_id, "snake-1")

    def test_concurrent_streams(self):
        def ask(i):
            stream = self.generate(ids(*range(1 + i % 7, 20 + i)), max_tokens=10 + i % 9, ignore_eos=True,
                                   sampling={"temperature": 0.9, "seed": i})
            return answer(stream)
        alone = [ask(i) for i in range(24)]
        with concurrent.futures.ThreadPoolExecutor(max_workers=24) as pool:
            together = list(pool.map(ask, range(24)))
        self.assertEqual(alone, together)

    def test_slow_reader_gets_everything(self):
        stream = self.generate(ids(4, 5), max_tokens=2000, ignore_eos=True)
        first = next(stream)
        # The server runs on meanwhile; what it has to say is joined into fewer messages.
        self.assertEqual(len(answer(self.generate(ids(4, 5), max_tokens=2000, ignore_eos=True))), 2000)
        self.assertEqual(len(answer([first, *stream])), 2000)


class Examples(unittest.TestCase):
    """The clients of examples/ answer and fail as they should."""

    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        processes.write_tiny_checkpoint(directory.name)
        cls.cluster = processes.Cluster(directory.name)
        cls.addClassCleanup(cls.cluster.close)
        wait_until_serving(cls.cluster)

    def run_examples(self, address):
        for command in ([sys.executable, processes.ROOT / "examples/python/chat.py"], [processes.BIN / "example-chat"]):
            yield subprocess.run([*command, address, "Who are you?"], capture_output=True, timeout=processes.PATIENCE)

    def test_chat(self):
        for done in self.run_examples(self.cluster.address):
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(b" tokens]", done.stdout)
            done.stdout.decode()  # UTF-8, whatever the tokens

    def test_nobody_there(self):
        for done in self.run_examples("127.0.0.1:1"):
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"chat", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
