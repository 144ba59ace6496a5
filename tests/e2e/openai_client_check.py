"""OpenAI's own client against the real binaries. Its package comes from PyPI (tools/check.sh openai), so this is not part
of `make test`; tests/e2e/openai_test.py has what can be seen without it."""

import asyncio
import unittest

import openai

from tests.e2e import openai_test, processes

MESSAGES = [{"role": "developer", "content": "Be a sheep."},
            {"role": "user", "content": [{"type": "text", "text": "Say something."}]}]
VLLM = {"ignore_eos": True, "top_k": 50, "min_p": 0.01}


class OfficialClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = openai_test.a_model(cls, positions=60000)
        cls.cluster = processes.Cluster(cls.model, coordinator_flags=["--context-tokens", "60000"])
        cls.addClassCleanup(cls.cluster.close)
        openai_test.Door(cls.cluster.http_address).wait_until_serving()
        cls.options = {"base_url": f"http://{cls.cluster.http_address}/v1", "api_key": "none", "max_retries": 0}
        cls.client = openai.OpenAI(**cls.options)
        cls.addClassCleanup(cls.client.close)

    def chat(self, **options):
        return self.client.chat.completions.create(**{"model": "sheep-1b", "messages": MESSAGES, "max_tokens": 20, "seed": 5,
                                                      "extra_body": VLLM} | options)

    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["sheep-1b"])
        self.assertEqual(self.client.models.retrieve("sheep-1b").object, "model")

    def test_a_chat_whole_and_as_a_stream(self):
        whole = self.chat(n=2, logprobs=True, top_logprobs=2, tools=[], user="someone")
        texts, last = ["", ""], None
        for chunk in self.chat(n=2, stream=True, stream_options={"include_usage": True}):
            last = chunk
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        self.assertEqual(texts, [choice.message.content for choice in whole.choices])
        self.assertEqual(last.usage.total_tokens, whole.usage.total_tokens)
        self.assertGreaterEqual(last.usage.prompt_tokens_details.cached_tokens, whole.usage.prompt_tokens_details.cached_tokens)
        self.assertEqual(whole.choices[0].finish_reason, "length")
        self.assertEqual(bytes(byte for token in whole.choices[0].logprobs.content for byte in token.bytes).decode(), texts[0])
        self.assertEqual(len(whole.choices[0].logprobs.content[0].top_logprobs), 2)
        self.assertEqual(whole._request_id, whole.id.removeprefix("chatcmpl-"))

    def test_completions(self):
        answer = self.client.completions.create(model="sheep-1b", prompt=["One", "Two"], n=2, seed=3, logprobs=1, extra_body=VLLM)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2, 3])
        self.assertEqual(answer.usage.completion_tokens, 64)
        pieces = self.client.completions.create(model="sheep-1b", prompt="One", seed=3, stream=True, extra_body=VLLM)
        self.assertEqual("".join(piece.choices[0].text for piece in pieces), answer.choices[0].text)

    def test_errors_are_its_exceptions(self):
        for error, code, options in ((openai.NotFoundError, "model_not_found", {"model": "goat"}),
                                     (openai.BadRequestError, None, {"temperature": 3}),
                                     (openai.BadRequestError, None, {"response_format": {"type": "json_object"}}),
                                     (openai.BadRequestError, "context_length_exceeded",
                                      {"messages": [{"role": "user", "content": "sheep " * 70000}]})):
            with self.assertRaises(error) as caught:
                self.chat(**options)
            self.assertEqual(caught.exception.code, code)

    def test_errors_in_the_middle_of_a_stream_are_raised(self):
        with self.assertRaises(openai.APIError) as caught:
            for _ in self.chat(max_tokens=50000, stream=True, extra_headers={"X-Request-Timeout": "1"}):
                pass
        self.assertIn("deadline", caught.exception.message)

    def test_a_hundred_at_once(self):
        async def ask(client, seed):
            stream = await client.chat.completions.create(model="sheep-1b", messages=MESSAGES, max_tokens=20, seed=seed, stream=True,
                                                          extra_body=VLLM)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        async def ask_all():
            async with openai.AsyncOpenAI(**self.options) as client:
                return await asyncio.gather(*(ask(client, seed) for seed in range(100)))

        self.assertEqual(asyncio.run(ask_all())[5], self.chat(seed=5).choices[0].message.content)


if __name__ == "__main__":
    unittest.main(verbosity=2)
