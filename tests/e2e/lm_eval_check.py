"""EleutherAI's lm-eval against the HTTP door, with tasks of ours: what it measures is what `bellwether score` says. Its package comes
from PyPI (tools/check.sh lm-eval)."""

import contextlib
import json
import logging
import os
import pathlib
import struct
import subprocess
import tempfile
import unittest

for setting in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE"):
    os.environ[setting] = "1"

import lm_eval
import lm_eval.tasks

from tests.e2e import openai_test, processes

LLAMA2C = processes.ROOT / "../shared/data"
CHOICES = [{"question": "Once upon a time, there was a little", "choices": [" girl named Lily.", " sheep", " x1 Zq!"], "answer": 0},
           {"question": "One day, the", "choices": [" big dog went to the park", " park", " dog dog dog"], "answer": 0},
           {"question": "Tom said: \"Hello\"", "choices": [".", ", and he was happy.\n", " Grüße"], "answer": 1}]
TEXTS = [{"text": "Once upon a time, there was a big sheep. He was very happy.\nThe end."}, {"text": "Lily"}]

# Tasks as lm-eval reads them from files; the data lie beside them.
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {output}
{more}
"""
CHOICE = """
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: ""
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
PERPLEXITY = """
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
GENERATION = """
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n", "and"], max_gen_toks: 24, temperature: 0}
metric_list: [{metric: bypass}]
"""


def single(number):
    """As a float of 32 bits, which is what both doors send."""
    return struct.unpack("<f", struct.pack("<f", number))[0]


class Evaluations:
    """Tests of one model, which `write_model` puts into a directory."""

    @classmethod
    def setUpClass(cls):
        ends = contextlib.ExitStack()
        cls.addClassCleanup(ends.close)
        directory = pathlib.Path(ends.enter_context(tempfile.TemporaryDirectory()))
        model = directory / "sheep-1b"
        model.mkdir()
        cls.write_model(model)
        cls.cluster = processes.Cluster(model)
        ends.callback(cls.cluster.close)
        cls.door = openai_test.Door(cls.cluster.http_address)
        cls.door.wait_until_serving()
        for name, output, more, docs in (("sheep_choice", "multiple_choice", CHOICE, CHOICES),
                                         ("sheep_text", "loglikelihood_rolling", PERPLEXITY, TEXTS),
                                         ("sheep_answer", "generate_until", GENERATION, CHOICES)):
            data = directory / f"{name}.jsonl"
            data.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
            (directory / f"{name}.yaml").write_text(TASK.format(name=name, data=data, output=output, more=more))
        os.environ["HF_DATASETS_CACHE"] = str(directory / "cache")
        cls.tasks = lm_eval.tasks.TaskManager(include_path=str(directory), include_defaults=False)

    def evaluate(self, task, path="completions", chat=False, **options):
        """(results, samples) of a task. Who knows only the address and the model's name gets the rest from the door."""
        model = {"model": "sheep-1b", "base_url": f"http://{self.cluster.http_address}/v1/{path}", "max_length": 256, "max_retries": 1}
        answer = lm_eval.simple_evaluate(f"local-{'chat-' if chat else ''}completions", model | options, [task], task_manager=self.tasks,
                                         apply_chat_template=chat, bootstrap_iters=0)
        return answer["results"][task], answer["samples"][task]

    def tokens(self, text):
        return self.door.post("/tokenize", prompt=text, add_special_tokens=False)["tokens"]

    def score(self, text):
        """By gRPC: (the tokens, the log-probability of each but the first)."""
        done = subprocess.run([processes.BIN / "bellwether", "score", "--connect", self.cluster.address, "--json", "--no-special-tokens",
                               "--parse-special-tokens", "--text", text], capture_output=True, timeout=processes.PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        answer = json.loads(done.stdout)
        return answer["token_ids"], [single(logprob) for logprob in answer["logprobs"][1:]]

    def test_choices(self):
        for options in ({}, {"num_concurrent": 3}, {"batch_size": 4}):
            with self.subTest(options):
                results, samples = self.evaluate("sheep_choice", **options)
                best = []
                for sample, doc in zip(sorted(samples, key=lambda sample: sample["doc_id"]), CHOICES):
                    sums = []
                    for choice, ((measured, _),) in zip(doc["choices"], sample["resps"]):
                        ids, logprobs = self.score(doc["question"] + choice)
                        expected = sum(logprobs[len(self.tokens(doc["question"])) - 1:])
                        self.assertEqual(ids, self.tokens(doc["question"] + choice))
                        self.assertEqual(measured, expected, (doc["question"], choice))
                        sums.append(expected)
                    best.append(sums.index(max(sums)) == doc["answer"])
                self.assertEqual(results["acc,none"], sum(best) / len(best))

    def test_whole_texts(self):
        results, samples = self.evaluate("sheep_text")
        bos = self.door.get("/tokenizer_info")[2]["bos_token"]
        total = 0
        for sample, doc in zip(sorted(samples, key=lambda sample: sample["doc_id"]), TEXTS):
            ids, logprobs = self.score(bos + doc["text"])
            self.assertEqual(ids[1:], self.tokens(doc["text"]))
            (measured,) = sample["resps"][0]
            self.assertEqual(measured, sum(logprobs))
            total += measured
        self.assertGreater(results["word_perplexity,none"], 1)
        self.assertLess(total, 0)

    def test_answers(self):
        for path, options, field in (("completions", {}, lambda choice: choice["text"]),
                                     ("chat/completions", {"chat": True}, lambda choice: choice["message"]["content"])):
            with self.subTest(path):
                _, samples = self.evaluate("sheep_answer", path, **options)
                for sample, doc in zip(sorted(samples, key=lambda sample: sample["doc_id"]), CHOICES):
                    prompt = ({"messages": [{"role": "user", "content": doc["question"]}]} if options else
                              {"prompt": self.tokens(doc["question"])})
                    answer = self.door.post(f"/v1/{path}", model="sheep-1b", temperature=0, max_tokens=24, stop=["\n", "and"], **prompt)
                    self.assertEqual(sample["resps"], [[field(answer["choices"][0])]])


class RandomWeights(Evaluations, unittest.TestCase):
    write_model = staticmethod(processes.write_tiny_checkpoint)


@unittest.skipUnless((LLAMA2C / "stories260K.bin").exists(), "needs ../shared/data")
class Stories(Evaluations, unittest.TestCase):
    """A model that has learned something: 260 thousand weights of llama2.c."""

    @staticmethod
    def write_model(directory):
        subprocess.run(["python3", "-B", processes.ROOT / "tools/convert_llama2c.py", LLAMA2C / "stories260K.bin", LLAMA2C / "tok512.bin",
                        directory], check=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    unittest.main(verbosity=2)
