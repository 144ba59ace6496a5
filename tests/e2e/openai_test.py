"""The HTTP door against the real binaries, by the standard library's client: what OpenAI's clients rely on."""

import contextlib
import hashlib
import http.client
import itertools
import json
import pathlib
import struct
import tempfile
import time
import unittest

from tests.e2e import processes

try:
    import grpc
    from proto.bellwether.v1 import inference_pb2 as pb
    from proto.bellwether.v1 import inference_pb2_grpc
except ImportError:
    grpc = None

MESSAGES = [{"role": "system", "content": "Be a sheep."}, {"role": "user", "content": "Say something."}]


def a_model(test, positions=2048):
    """A directory "sheep-1b", which ends with the class of tests."""
    directory = tempfile.TemporaryDirectory()
    test.addClassCleanup(directory.cleanup)
    model = pathlib.Path(directory.name) / "sheep-1b"
    model.mkdir()
    processes.write_tiny_checkpoint(model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": positions}))
    return model


def wait_for(happened):
    end = time.monotonic() + processes.PATIENCE
    while not happened():
        assert time.monotonic() < end, "it has not happened"


class Door:
    """One connection for each request, whose answers come as (status, headers, JSON or text)."""

    def __init__(self, address):
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)
        self.notices = []  # that came in streams

    def open(self, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=processes.PATIENCE)
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        connection.request(method, path, body, dict(headers))
        return connection, connection.getresponse()

    def ask(self, method, path, body=None, headers=()):
        connection, response = self.open(method, path, body, headers)
        with contextlib.closing(connection):
            text = response.read().decode()
            is_json = response.headers.get_content_type() == "application/json"
            return response.status, response.headers, json.loads(text) if is_json else text

    def get(self, path):
        return self.ask("GET", path)

    def post(self, path, headers=(), **body):
        """The answer to a request that is expected to do."""
        status, _, answer = self.ask("POST", path, body, headers)
        assert status == 200, (status, answer)
        return answer

    def wait_until_serving(self):
        wait_for(lambda: self.get("/health")[0] == 200)

    def events(self, path, headers=(), **body):
        """What the events of a stream carry, one by one."""
        connection, response = self.open("POST", path, body | {"stream": True}, headers)
        with contextlib.closing(connection):
            assert response.status == 200, (response.status, response.read())
            assert response.headers["Content-Type"].startswith("text/event-stream"), response.headers
            for line in response:
                if line.startswith(b"data: "):
                    yield line[6:].decode().rstrip("\n")
                elif line.endswith(b"the answer goes on when service is back\n"):
                    self.notices.append(line[2:].decode().rstrip("\n"))
                else:
                    assert line in (b"\n", b": still here\n"), line


def joined(events):
    """(choices by index, the other members of the last piece) of a whole stream."""
    events = list(events)
    assert events[-1] == "[DONE]", events[-1]
    choices, last = {}, {}
    for piece in map(json.loads, events[:-1]):
        last = piece
        for choice in piece["choices"]:
            so_far = choices.setdefault(choice["index"], {"text": "", "logprobs": [], "finish_reason": None, "seed": None})
            assert so_far["finish_reason"] is None, "nothing follows the end"
            so_far["text"] += choice["delta"].get("content", "") if "delta" in choice else choice["text"]
            so_far["logprobs"] += (choice["logprobs"] or {}).get("content", [])
            so_far["finish_reason"] = choice["finish_reason"]
            so_far["seed"] = choice.get("seed")
    return choices, last


class OpenAi(unittest.TestCase):
    end = 2  # the token that ends an answer

    @classmethod
    def setUpClass(cls):
        cls.model = a_model(cls)
        cls.cluster = processes.Cluster(cls.model, workers=2, coordinator_flags=["--context-tokens", "2048"])
        cls.addClassCleanup(cls.cluster.close)
        cls.door = Door(cls.cluster.http_address)
        cls.door.wait_until_serving()

    def chat(self, **options):
        return self.door.post("/v1/chat/completions", **{"model": "sheep-1b", "messages": MESSAGES, "ignore_eos": True,
                                                         "max_tokens": 20} | options)

    def complete(self, **options):
        return self.door.post("/v1/completions", **{"model": "sheep-1b", "prompt": "One sheep", "ignore_eos": True} | options)

    def refusal(self, path="/v1/chat/completions", body=None, headers=(), **options):
        status, got, answer = self.door.ask(
            "POST", path, body or {"model": "sheep-1b", "messages": MESSAGES} | options, headers)
        self.assertEqual(set(answer), {"error"})
        self.assertEqual(set(answer["error"]), {"message", "type", "param", "code"})
        return status, got, answer["error"]

    def test_the_small_routes(self):
        status, _, models = self.door.get("/v1/models")
        self.assertEqual((status, [model["id"] for model in models["data"]]), (200, ["sheep-1b"]))
        self.assertEqual(self.door.get("/v1/models/sheep-1b")[2]["object"], "model")
        self.assertEqual(self.door.get("/v1/models/goat")[0], 404)
        self.assertIn("version", self.door.get("/version")[2])
        health = self.door.get("/health")[2]
        self.assertEqual((health["status"], health["weights"]), ("ok", "fp32"))
        self.assertTrue(health["layout"] and health["kernel_level"])
        status, headers, page = self.door.get("/")
        self.assertEqual((status, headers.get_content_type()), (200, "text/html"))
        self.assertIn("v1/chat/completions", page)
        for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405), ("PUT", "/health", 405)):
            answer = self.door.ask(method, path)
            self.assertEqual((answer[0], answer[2]["error"]["type"]), (status, "invalid_request_error"))

    def test_a_whole_answer(self):
        answer = self.chat(seed=5, user="someone", tools=[], never_heard_of=1)
        self.assertEqual(answer["object"], "chat.completion")
        self.assertEqual(answer["model"], "sheep-1b")
        self.assertRegex(answer["id"], "^chatcmpl-")
        self.assertRegex(answer["system_fingerprint"], "fp32")
        self.assertEqual(answer["seed"], "5")
        (choice,) = answer["choices"]
        self.assertEqual(choice["message"]["role"], "assistant")
        self.assertTrue(choice["message"]["content"])
        self.assertEqual((choice["finish_reason"], choice["logprobs"], choice["index"]), ("length", None, 0))
        usage = answer["usage"]
        self.assertEqual(usage["completion_tokens"], 20)
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + 20)

    # A conversation's second turn: its beginning is in KV blocks, prompt and answer, and the answer is no other for that.
    def test_what_was_read_before_is_not_read_again(self):
        turns = [{"role": "user", "content": "Count the sheep of the hill, one by one. " * 5}]
        first = self.chat(messages=turns, seed=3, max_tokens=64)
        turns += [first["choices"][0]["message"], {"role": "user", "content": "And those of the valley?"}]
        hits = self.cluster.metric("bellwether_prefix_cache_hits_total")
        second = self.chat(messages=turns, seed=4)
        cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
        self.assertGreaterEqual(cached, (first["usage"]["prompt_tokens"] - 8) // 32 * 32, "the text's last tokens may be others now")
        self.assertGreater(cached, 0)
        self.assertLess(cached, second["usage"]["prompt_tokens"])
        self.assertEqual(self.cluster.metric("bellwether_prefix_cache_hits_total") - hits, cached)
        whole = processes.Cluster(self.model, coordinator_flags=["--context-tokens", "2048", "--no-prefix-cache"])
        self.addCleanup(whole.close)
        door = Door(whole.http_address)
        door.wait_until_serving()
        for _ in range(2):
            again = door.post("/v1/chat/completions", model="sheep-1b", messages=turns, ignore_eos=True, max_tokens=20, seed=4)
            self.assertEqual(again["choices"], second["choices"])
            self.assertEqual(again["usage"]["prompt_tokens_details"]["cached_tokens"], 0)

    def test_a_stream_brings_the_same_in_pieces(self):
        whole = self.chat(seed=5, n=2)
        events = list(self.door.events("/v1/chat/completions", model="sheep-1b", messages=MESSAGES, ignore_eos=True, max_tokens=20,
                                       seed=5, n=2, stream_options={"include_usage": True}))
        choices, last = joined(events)
        self.assertEqual([choices[i]["text"] for i in range(2)], [each["message"]["content"] for each in whole["choices"]])
        self.assertGreater(len(events), 10)
        known = {"prompt_tokens_details": whole["usage"]["prompt_tokens_details"]}  # of the same prompt more, the second time
        self.assertEqual((last["choices"], last["usage"] | known), ([], whole["usage"]))
        pieces = [json.loads(event) for event in events[:-2]]
        self.assertTrue(all(piece["usage"] is None and piece["object"] == "chat.completion.chunk" for piece in pieces))
        self.assertEqual({json.dumps(piece["choices"][0]["delta"]["role"]) for piece in pieces if "role" in piece["choices"][0]["delta"]},
                         {'"assistant"'})

    def test_the_headers_of_a_stream(self):
        connection, response = self.door.open("POST", "/v1/chat/completions",
                                              {"model": "sheep-1b", "messages": MESSAGES, "stream": True, "max_tokens": 1},
                                              {"x-request-id": "my-own-name"})
        with contextlib.closing(connection):
            self.assertEqual(response.headers["Cache-Control"], "no-cache")
            self.assertEqual(response.headers["X-Accel-Buffering"], "no")
            self.assertEqual(response.headers["x-request-id"], "my-own-name")
            response.read()

    def test_the_drawn_seed_draws_the_same_again(self):
        drawn = self.chat()
        self.assertNotEqual(drawn["choices"], self.chat()["choices"], "another seed")
        self.assertEqual(drawn["choices"], self.chat(seed=int(drawn["seed"]))["choices"])
        choices, _ = joined(self.door.events("/v1/chat/completions", model="sheep-1b", messages=MESSAGES, ignore_eos=True,
                                             max_tokens=20, seed=int(drawn["seed"])))
        self.assertEqual((choices[0]["text"], choices[0]["seed"]), (drawn["choices"][0]["message"]["content"], drawn["seed"]))
        bits = self.chat(seed=-1)
        self.assertEqual(bits["seed"], str(2**64 - 1), "a negative seed is taken by its bits")
        self.assertEqual(bits["choices"], self.chat(seed=2**64 - 1)["choices"])

    @unittest.skipIf(grpc is None, "the grpc module is missing (Debian: python3-grpcio)")
    def test_both_doors_give_the_same_bits(self):
        with grpc.insecure_channel(self.cluster.address, [("grpc.enable_http_proxy", 0)]) as channel:
            stub = inference_pb2_grpc.InferenceStub(channel)
            sampling = pb.Sampling(temperature=0.9, top_p=0.95, seed=77, presence_penalty=0.5, logit_bias={65: 1.5})
            options = pb.GenerationOptions(sampling=sampling, max_tokens=40, logprobs=3, n=2, ignore_eos=True)
            messages = [pb.ChatMessage(**message) for message in MESSAGES]
            texts, logprobs = ["", ""], [[], []]
            for part in stub.Chat(pb.ChatRequest(messages=messages, options=options), timeout=processes.PATIENCE):
                texts[part.choice] += part.text
                logprobs[part.choice] += part.logprobs
        asked = {"temperature": 0.9, "top_p": 0.95, "seed": 77, "presence_penalty": 0.5, "logit_bias": {"65": 1.5},
                 "max_tokens": 40, "logprobs": True, "top_logprobs": 3, "n": 2}
        whole = [{"text": each["message"]["content"], "logprobs": each["logprobs"]["content"]} for each in self.chat(**asked)["choices"]]
        streamed, _ = joined(self.door.events("/v1/chat/completions", model="sheep-1b", messages=MESSAGES, ignore_eos=True, **asked))

        def bits(number):
            return struct.pack("<f", number)

        for answers in (whole, streamed):
            for choice in range(2):
                self.assertEqual(answers[choice]["text"], texts[choice])
                shown = [each for each in logprobs[choice] if each.sampled.token]
                self.assertEqual([bits(each["logprob"]) for each in answers[choice]["logprobs"]],
                                 [bits(each.sampled.logprob) for each in shown])
                self.assertEqual([[bits(top["logprob"]) for top in each["top_logprobs"]] for each in answers[choice]["logprobs"]],
                                 [[bits(top.logprob) for top in each.top] for each in shown])

    def test_logprobs_cover_exactly_the_text(self):
        """Also where a stop string lies across tokens: what it takes away has been computed, and is no part of the text."""
        whole = self.chat(seed=3, max_tokens=60, logprobs=True)["choices"][0]["message"]["content"]
        tried = 0
        for begin in range(5, len(whole) - 3, 7):
            stop = whole[begin:begin + 3]
            if "\ufffd" in stop:
                continue
            tried += 1
            answer = self.chat(seed=3, max_tokens=60, logprobs=True, stop=stop)
            (choice,) = answer["choices"]
            self.assertEqual((choice["message"]["content"], choice["finish_reason"]), (whole[:whole.index(stop)], "stop"))
            content = choice["logprobs"]["content"]
            self.assertEqual(bytes(byte for token in content for byte in token["bytes"]).decode(), choice["message"]["content"])
            self.assertGreater(answer["usage"]["completion_tokens"], len(content) - 1, "what the stop string took was computed too")
            choices, _ = joined(self.door.events("/v1/chat/completions", model="sheep-1b", messages=MESSAGES, ignore_eos=True,
                                                 max_tokens=60, seed=3, logprobs=True, stop=stop))
            self.assertEqual(bytes(byte for token in choices[0]["logprobs"] for byte in token["bytes"]).decode(), choices[0]["text"])
        self.assertGreater(tried, 2)

    def test_completions_of_many_prompts(self):
        ids = self.door.post("/tokenize", prompt="Two sheep")["tokens"]
        prompts = ["One sheep", "Two sheep"]
        answer = self.complete(prompt=prompts, n=2, seed=4)
        self.assertEqual(answer["object"], "text_completion")
        self.assertEqual([choice["index"] for choice in answer["choices"]], [0, 1, 2, 3])
        self.assertEqual(answer["usage"]["completion_tokens"], 4 * 16, "OpenAI's default")
        self.assertEqual(self.complete(prompt=ids, n=2, seed=4)["choices"][0]["text"], answer["choices"][2]["text"])
        self.assertEqual(self.complete(prompt=[ids, ids], seed=4)["choices"][1]["text"], answer["choices"][2]["text"])
        choices, _ = joined(self.door.events("/v1/completions", model="sheep-1b", prompt=prompts, n=2, seed=4, ignore_eos=True))
        self.assertEqual([choices[i]["text"] for i in range(4)], [choice["text"] for choice in answer["choices"]])

    def test_completions_with_logprobs(self):
        (choice,) = self.complete(logprobs=2, seed=9)["choices"]
        logprobs = choice["logprobs"]
        self.assertEqual(set(logprobs), {"tokens", "token_logprobs", "top_logprobs", "text_offset"})
        self.assertEqual(len({len(values) for values in logprobs.values()}), 1)
        self.assertEqual(logprobs["text_offset"][0], 0)
        for token, logprob, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"]):
            self.assertEqual(top[token], logprob)

    def test_echo(self):
        (plain,) = self.complete(seed=2)["choices"]
        (choice,) = self.complete(seed=2, echo=True)["choices"]
        self.assertEqual(choice["text"], "One sheep" + plain["text"])
        answer = self.complete(echo=True, max_tokens=0)
        self.assertEqual((answer["choices"][0]["text"], answer["usage"]["completion_tokens"]), ("One sheep", 0))

    def test_the_logprobs_of_a_prompt(self):
        """As lm-eval asks for them."""
        prompt = self.door.post("/tokenize", prompt="One sheep, two")["tokens"]
        for max_tokens in (0, 1):
            answer = self.complete(prompt=[prompt, prompt], echo=True, logprobs=1, max_tokens=max_tokens, temperature=0)
            self.assertEqual((answer["usage"]["completion_tokens"], answer["usage"]["prompt_tokens"]), (2 * max_tokens, 2 * len(prompt)))
            for choice in answer["choices"]:
                logprobs = choice["logprobs"]
                self.assertIn(len(logprobs["tokens"]), (len(prompt), len(prompt) + max_tokens))
                self.assertEqual(len({len(values) for values in logprobs.values()}), 1)
                self.assertEqual((logprobs["token_logprobs"][0], logprobs["top_logprobs"][0]), (None, None))
                self.assertTrue(choice["text"].startswith("One sheep, two"))
                for token, logprob, top, offset in list(zip(*(logprobs[name] for name in (
                        "tokens", "token_logprobs", "top_logprobs", "text_offset"))))[1:len(prompt)]:
                    self.assertEqual(top[token], logprob)
                    self.assertGreaterEqual(max(top.values()), logprob)
                    self.assertEqual(choice["text"][offset:offset + len(token)], token)
        rest = self.door.post("/tokenize", prompt="\U00012345", add_special_tokens=False)["tokens"][-2:]  # of a character
        (choice,) = self.complete(prompt=rest + prompt, echo=True, logprobs=1, max_tokens=0)["choices"]
        logprobs = choice["logprobs"]
        self.assertEqual(choice["text"], "\ufffd\ufffdOne sheep, two")
        self.assertEqual(logprobs["text_offset"][:3], [0, 1, 2])
        for token, offset in list(zip(logprobs["tokens"], logprobs["text_offset"]))[2:]:
            self.assertEqual(choice["text"][offset:offset + len(token)], token)
        self.assertEqual(self.refusal("/v1/completions", {"model": "sheep-1b", "prompt": "a", "echo": True, "logprobs": 1,
                                                          "stream": True})[2]["param"], "stream")

    def test_the_token_that_ends_the_answer_to_an_echo_is_listed(self):
        """lm-eval takes the last token for the answer's: without it, it would lose one of the prompt's."""
        prompt = self.door.post("/tokenize", prompt="One sheep, two")["tokens"]
        for bias in ({}, {self.end: 100}):
            answer = self.door.post("/v1/completions", model="sheep-1b", prompt=prompt, echo=True, logprobs=1, max_tokens=1,
                                    temperature=0, logit_bias=bias)
            (choice,) = answer["choices"]
            self.assertEqual(choice["finish_reason"], "stop" if bias else "length")
            self.assertEqual({len(values) for values in choice["logprobs"].values()}, {len(prompt) + 1})
            self.assertEqual("".join(choice["logprobs"]["tokens"]), choice["text"])

    def test_the_most_likely_token_of_a_prompt_is_what_is_generated(self):
        prompt = self.door.post("/tokenize", prompt="One sheep, two")["tokens"]
        (greedy,) = self.complete(prompt=prompt, logprobs=1, max_tokens=1, temperature=0)["choices"]
        for last in range(100, 400, 37):  # whatever follows, the place before it is the same
            (scored,) = self.complete(prompt=prompt + [last], echo=True, logprobs=1, max_tokens=0)["choices"]
            self.assertEqual(max(scored["logprobs"]["top_logprobs"][-1].values()), greedy["logprobs"]["token_logprobs"][0])

    def test_tokenize_and_back(self):
        answer = self.door.post("/tokenize", prompt="Grüße, sheep", return_token_strs=True)
        self.assertEqual(answer["count"], len(answer["tokens"]))
        self.assertEqual(len(answer["token_strs"]), answer["count"])
        self.assertEqual(self.door.post("/detokenize", tokens=answer["tokens"])["prompt"], "Grüße, sheep")

    def test_the_names_of_the_tokens_that_begin_and_end_a_text(self):
        status, _, info = self.door.get("/tokenizer_info")
        self.assertEqual((status, info["model_max_length"]), (200, 2048))
        for name, token in (("bos_token", 1), ("eos_token", self.end)):
            self.assertEqual(self.door.post("/tokenize", prompt=info[name], add_special_tokens=False)["tokens"], [token])

    def test_refusals(self):
        for code, param, status, options in (("model_not_found", "model", 404, {"model": "goat"}),
                                             (None, "temperature", 400, {"temperature": 3}),
                                             (None, "tools", 400, {"tools": [{"type": "function"}]}),
                                             (None, "repetition_penalty", 400, {"repetition_penalty": 0}),
                                             (None, "stop_token_ids", 400, {"stop_token_ids": [99999]}),
                                             (None, "n", 400, {"n": 17})):
            with self.subTest(options):
                got, headers, error = self.refusal(**options)
                self.assertEqual((got, error["code"], error["param"]), (status, code, param))
                self.assertTrue(headers["x-request-id"])
        status, _, error = self.refusal(messages=[{"role": "user", "content": "sheep " * 3000}])
        self.assertEqual((status, error["code"]), (400, "context_length_exceeded"))
        status, _, error = self.refusal(body="{no json")
        self.assertIn("no JSON", error["message"])
        self.assertEqual(self.refusal(headers={"X-Request-Timeout": "soon"})[0], 400)
        self.assertEqual(self.refusal(headers={"x-request-id": "two words"})[0], 400)
        self.assertEqual(self.door.ask("POST", "/v1/completions", b"x" * (17 << 20))[0], 413)


class Keys(unittest.TestCase):
    """A cluster that knows who may ask."""

    def test_both_doors_ask_for_keys_and_follow_their_file(self):
        model = a_model(type(self))
        keys = model / "keys"

        def write(key):
            record = {"name": "team-a", "sha256": hashlib.sha256(key.encode()).hexdigest(), "weight": 1}
            (model / "new").write_text(json.dumps(record) + "\n")
            (model / "new").rename(keys)

        def ask(key, method="POST", path="/v1/completions"):
            body = {"model": "sheep-1b", "prompt": "a", "max_tokens": 1} if method == "POST" else None
            return door.ask(method, path, body, {"Authorization": f"Bearer {key}"} if key else {})

        write("first-key")
        cluster = processes.Cluster(model, coordinator_flags=["--api-keys", keys, "--log-level", "debug"])
        self.addCleanup(cluster.close)
        door = Door(cluster.http_address)
        door.wait_until_serving()  # health is for everybody
        for method, path in (("POST", "/v1/completions"), ("POST", "/tokenize"), ("GET", "/v1/models"), ("GET", "/tokenizer_info")):
            code, headers, answer = ask(None, method, path)
            self.assertEqual((code, answer["error"]["code"], headers["WWW-Authenticate"]), (401, "invalid_api_key", "Bearer"))
            self.assertEqual(ask("another-key", method, path)[0], 401)
            self.assertEqual(ask("first-key", method, path)[0], 200)
        self.assertEqual(ask("  first-key")[0], 200, "any number of spaces stands before a key")
        if grpc is not None:
            with grpc.insecure_channel(cluster.address, [("grpc.enable_http_proxy", 0)]) as channel:
                stub = inference_pb2_grpc.InferenceStub(channel)
                request = pb.TokenizeRequest(text="a")
                for refused in (lambda: stub.Tokenize(request),
                                lambda: list(stub.Generate(pb.GenerateRequest(prompt=pb.Prompt(text="a"))))):
                    with self.assertRaises(grpc.RpcError) as caught:
                        refused()
                    self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED)
                for said in "Bearer first-key", "bearer   first-key":
                    self.assertTrue(stub.Tokenize(request, metadata=[("authorization", said)]).token_ids)
        write("second-key")
        wait_for(lambda: ask("first-key")[0] == 401)
        self.assertEqual(ask("second-key")[0], 200)
        self.assertIn("client=team-a", cluster.logs())
        for key in ("first-key", "second-key", "another-key"):
            self.assertNotIn(key, cluster.logs(), "keys are in no log")


class Limits(unittest.TestCase):
    """Of a cluster that runs one request and lets none wait, with answers that would take very long."""

    @classmethod
    def setUpClass(cls):
        cls.model = a_model(cls, positions=60000)
        cls.cluster = processes.Cluster(cls.model, coordinator_flags=[
            "--context-tokens", "60000", "--sequences-max", "1", "--requests-waiting-max", "0", "--served-model-name", "a, b"])
        cls.addClassCleanup(cls.cluster.close)
        cls.door = Door(cls.cluster.http_address)
        cls.door.wait_until_serving()

    LONG = {"model": "b", "prompt": [5, 6, 7], "max_tokens": 59000, "ignore_eos": True}

    def test_the_names_that_it_goes_by(self):
        self.assertEqual([model["id"] for model in self.door.get("/v1/models")[2]["data"]], ["a", "b"])

    def test_who_goes_away_makes_room(self):
        connection, response = self.door.open("POST", "/v1/completions", self.LONG | {"stream": True})
        self.assertEqual(response.status, 200, "accepted, though there is no token yet")
        status, headers, answer = self.door.ask("POST", "/v1/completions", self.LONG)
        self.assertEqual((status, answer["error"]["code"]), (429, "rate_limit_exceeded"))
        self.assertEqual(headers["Retry-After"], "1")
        response.close()
        connection.close()
        # Until the engine has heard of it, which takes a step.
        wait_for(lambda: self.door.ask("POST", "/v1/completions", self.LONG | {"max_tokens": 1})[0] != 429)
        self.assertEqual(self.door.ask("POST", "/v1/completions", self.LONG | {"max_tokens": 1})[0], 200)

    def test_of_several_prompts_none_runs_on_when_one_is_refused(self):
        status, _, answer = self.door.ask("POST", "/v1/completions", self.LONG | {"prompt": [[5], [6], [7], [8]]})
        self.assertEqual((status, answer["error"]["code"]), (429, "rate_limit_exceeded"))
        wait_for(lambda: self.door.ask("POST", "/v1/completions", self.LONG | {"max_tokens": 1})[0] == 200)

    def test_deadlines(self):
        timeout = {"X-Request-Timeout": "0.5"}
        status, _, answer = self.door.ask("POST", "/v1/completions", self.LONG, timeout)
        self.assertEqual((status, answer["error"]["type"]), (504, "timeout_error"))
        *_, last = self.door.events("/v1/completions", timeout, **self.LONG)
        self.assertEqual(json.loads(last)["error"]["type"], "timeout_error", "an event, and no [DONE]")

    def test_a_stream_survives_a_lost_worker(self):
        asked = self.LONG | {"max_tokens": 4000, "seed": 7, "temperature": 1}
        undisturbed, _ = joined(self.door.events("/v1/completions", **asked))
        events = self.door.events("/v1/completions", **asked)
        first = next(events)
        self.cluster.processes[-1].kill()
        wait_for(lambda: self.door.get("/health")[0] == 503)
        status, _, answer = self.door.ask("POST", "/v1/completions", self.LONG)
        self.assertEqual((status, answer["error"]["type"]), (503, "service_unavailable_error"))
        self.cluster.start_worker("--model", self.model, "--name", "sheep-0")
        survived, _ = joined(itertools.chain([first], events))
        self.assertEqual(survived, undisturbed)
        [notice] = self.door.notices
        self.assertRegex(notice, r"^worker sheep-0 \(stage 0, rank 0\) is lost: .*; the answer goes on when service is back$")
        self.assertEqual(self.cluster.metric("bellwether_interruptions_total"), 1)


class Ends(unittest.TestCase):
    """What clients hear when the coordinator is told to stop, or has lost its worker."""

    def serve(self, **seconds):
        flags = [word for what, value in seconds.items() for word in (f"--{what}-seconds", str(value))]
        self.model = a_model(type(self), positions=60000)
        self.cluster = processes.Cluster(self.model, coordinator_flags=[
            "--context-tokens", "60000", "--served-model-name", "m", *flags])
        self.addCleanup(self.cluster.close)
        door = Door(self.cluster.http_address)
        door.wait_until_serving()
        return *self.cluster.processes, door

    def test_a_lost_worker_is_an_error_in_the_stream_of_a_server_without_patience(self):
        _, worker, door = self.serve(resume=0)
        events = door.events("/v1/completions", model="m", prompt=[5], max_tokens=59000, ignore_eos=True)
        next(events)
        worker.kill()
        *_, last = events
        self.assertIn("sheep-0", json.loads(last)["error"]["message"])

    # Each of them was interrupted, and each said so.
    def test_a_call_with_several_prompts_tells_of_an_interruption_once(self):
        _, worker, door = self.serve()
        events = door.events("/v1/completions", model="m", prompt=[[5], [6], [7]], n=2, max_tokens=4000, ignore_eos=True)
        first = next(events)
        for losses in 1, 2:
            worker.kill()
            wait_for(lambda: self.cluster.metric("bellwether_interruptions_total") == 3 * losses)
            worker = self.cluster.start_worker("--model", self.model, "--name", "sheep-0")
            door.wait_until_serving()
        choices, _ = joined(itertools.chain([first], events))
        self.assertEqual({choice["finish_reason"] for choice in choices.values()}, {"length"})
        self.assertEqual(len(door.notices), 2)

    def test_a_drain_takes_nothing_new_and_its_end_is_an_error_in_the_stream(self):
        coordinator, _, door = self.serve(drain=3)
        events = door.events("/v1/completions", model="m", prompt=[5], max_tokens=59000, ignore_eos=True)
        next(events)
        coordinator.terminate()
        wait_for(lambda: door.get("/health")[0] != 200)
        self.assertIn("stopping", door.get("/health")[2]["error"]["message"])
        status, _, answer = door.ask("POST", "/v1/completions", {"model": "m", "prompt": [5], "max_tokens": 1})
        self.assertEqual((status, answer["error"]["type"]), (503, "service_unavailable_error"))
        *_, last = events
        self.assertIn("shutting down", json.loads(last)["error"]["message"])
        self.assertEqual(coordinator.wait(processes.PATIENCE), 0)

    # Reading it takes longer than the stop: it once went on with what was no longer there.
    def test_a_body_that_is_being_read(self):
        coordinator, _, door = self.serve(drain=0)
        body = json.dumps({"model": "m", "prompt": [5], "more": [0] * 5_000_000})
        connection = http.client.HTTPConnection(door.host, door.port, timeout=processes.PATIENCE)
        with contextlib.closing(connection):
            connection.request("POST", "/v1/completions", body)
            coordinator.terminate()
            with contextlib.suppress(http.client.HTTPException, ConnectionError):
                self.assertEqual(connection.getresponse().status, 503)
        self.assertEqual(coordinator.wait(processes.PATIENCE), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
