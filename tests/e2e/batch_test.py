"""`bellwether batch` against real processes: the answers depend on nothing but the lines, and no run is lost."""

import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

from tests.e2e import processes


def lines_of(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


class Batch(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.directory.cleanup)
        cls.path = pathlib.Path(cls.directory.name)
        cls.model = cls.path / "model"
        cls.model.mkdir()
        processes.write_tiny_checkpoint(cls.model)

    def write_input(self, lines, name="in.jsonl"):
        path = self.path / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    def command(self, source, output, *arguments):
        return [processes.BIN / "bellwether", "batch", "--input", source, "--output", output, "--threads", "1",
                "--temperature", "0.8", "--seed", "5", *map(str, arguments)]

    def run_batch(self, source, output, *arguments):
        return subprocess.run(self.command(source, output, *arguments), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=processes.PATIENCE)

    def wait_for_output(self, batch, output):
        end = time.monotonic() + processes.PATIENCE
        while not output.exists() or output.stat().st_size < 1000:
            self.assertIsNone(batch.poll(), "it was to be disturbed in its middle")
            self.assertLess(time.monotonic(), end)

    def worker_of(self, batch):
        children = pathlib.Path(f"/proc/{batch.pid}/task/{batch.pid}/children").read_text().split()
        names = {int(pid): pathlib.Path(f"/proc/{pid}/comm").read_text() for pid in children}
        return next(pid for pid, name in names.items() if name.startswith("bellwether-work"))

    def some_lines(self, count):
        kinds = [lambda text: {"text": text}, lambda text: {"prompt": text},
                 lambda text: {"instruction": text, "input": "x"}, lambda text: {"turns": [text, "and then?"]},
                 lambda text: {"messages": [{"role": "user", "content": text}], "id": "last"}]
        return [kinds[i % len(kinds)]("word " * (1 + i % 7)) for i in range(count)]

    def test_every_kind_of_line_has_the_same_answer_for_any_concurrency(self):
        source = self.write_input(self.some_lines(20))
        answers = []
        for concurrency in (1, 16):
            output = self.path / f"out.{concurrency}"
            done = self.run_batch(source, output, "--model", self.model, "--max-tokens", 12, "--concurrency", concurrency)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("20 lines answered, 0 before, 0 refused", done.stderr)
            answers.append(sorted(lines_of(output), key=lambda record: record["line"]))
        self.assertEqual(answers[0], answers[1])
        self.assertEqual([record["line"] for record in answers[0]], list(range(1, 21)))
        self.assertEqual(len(answers[0][3]["outputs"]), 2)
        self.assertEqual(answers[0][4]["id"], "last")
        self.assertEqual(set(answers[0][0]), {"line", "key", "output", "finish_reason", "usage"})

        # A line is what `generate` answers with the same text; a greedy one does not need the line's seed.
        output = self.path / "out.greedy"
        done = self.run_batch(source, output, "--model", self.model, "--max-tokens", 12, "--temperature", 0, "--in-order")
        self.assertEqual(done.returncode, 0, done.stderr)
        greedy = lines_of(output)
        self.assertEqual([record["line"] for record in greedy], list(range(1, 21)))
        alone = subprocess.run([processes.BIN / "bellwether", "generate", "--model", self.model, "--threads", "1",
                                "--prompt", "word word ", "--max-tokens", "12", "--temperature", "0", "--json"],
                               capture_output=True, text=True, timeout=processes.PATIENCE)
        self.assertEqual(json.loads(alone.stdout)["text"], greedy[1]["output"])

    def test_a_killed_run_is_completed_and_a_half_written_line_repaired(self):
        source = self.write_input(self.some_lines(200), "long.jsonl")
        arguments = ["--model", self.model, "--max-tokens", 40, "--concurrency", 2]
        whole, output = self.path / "whole", self.path / "killed"
        self.assertEqual(self.run_batch(source, whole, *arguments[:-1], 32).returncode, 0)
        with subprocess.Popen(self.command(source, output, *arguments), stderr=subprocess.DEVNULL) as killed:
            self.wait_for_output(killed, output)
            killed.send_signal(signal.SIGKILL)
        with open(output, "r+b") as file:  # as if the kill had come in the middle of a line
            file.truncate(output.stat().st_size - 7)
        before = output.read_bytes().count(b"\n")
        self.assertTrue(0 < before < 200)
        done = self.run_batch(source, output, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{200 - before} lines answered, {before} before", done.stderr)
        self.assertEqual(sorted(output.read_text().splitlines()), sorted(whole.read_text().splitlines()))
        again = self.run_batch(source, output, *arguments)
        self.assertIn("0 lines answered, 200 before", again.stderr)

        other = self.run_batch(source, output, *arguments, "--top-k", 3)
        self.assertEqual(other.returncode, 1)
        self.assertIn("or with another model or other options: give another --output", other.stderr)

    def test_a_worker_that_dies_costs_no_answer(self):
        source = self.write_input(self.some_lines(200), "long.jsonl")
        arguments = ["--model", self.model, "--max-tokens", 40, "--concurrency", 4]
        whole, output = self.path / "whole.2", self.path / "bled"
        self.assertEqual(self.run_batch(source, whole, *arguments).returncode, 0)
        with subprocess.Popen(self.command(source, output, *arguments), stderr=subprocess.PIPE, text=True) as batch:
            self.wait_for_output(batch, output)
            os.kill(self.worker_of(batch), signal.SIGKILL)
            self.assertIn("200 lines answered, 0 before, 0 refused", batch.stderr.read())
            self.assertEqual(batch.wait(), 0)
        self.assertEqual(sorted(output.read_text().splitlines()), sorted(whole.read_text().splitlines()))

    # Answers once waited five minutes for a worker that could not come back, whatever the command had been told.
    def test_it_gives_up_when_it_is_told_to(self):
        source, output = self.write_input(self.some_lines(200), "lost.jsonl"), self.path / "lost"
        with tempfile.TemporaryDirectory() as model:
            processes.write_tiny_checkpoint(model)
            command = self.command(source, output, "--model", model, "--max-tokens", 400, "--give-up-seconds", 1)
            batch = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            self.addCleanup(lambda: batch.poll() is None and batch.kill())
            self.wait_for_output(batch, output)
            (pathlib.Path(model) / "config.json").unlink()
            os.kill(self.worker_of(batch), signal.SIGKILL)
            _, said = batch.communicate(timeout=processes.PATIENCE)
        self.assertEqual(batch.returncode, 1)
        self.assertIn("the same command goes on where this one ends", said)

    def test_files_of_others_are_left_alone(self):
        source = self.write_input([{"text": "a"}], "same.jsonl")
        note = self.path / "note.txt"
        note.write_text("a line without an end")
        for output in (source, note):
            before = output.read_bytes()
            done = self.run_batch(source, output, "--model", self.model)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("give another --output", done.stderr)
            self.assertEqual(output.read_bytes(), before)

    def test_a_wrong_option_is_no_answer(self):
        source = self.write_input([{"text": "a"}, {"text": "b"}], "two.jsonl")
        output = self.path / "hot"
        done = self.run_batch(source, output, "--model", self.model, "--max-tokens", 2, "--temperature", -1)
        self.assertEqual(done.returncode, 2)
        self.assertIn("temperature", done.stderr)
        self.assertEqual(output.read_text(), "")
        done = self.run_batch(source, output, "--model", self.model, "--max-tokens", 2)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_what_cannot_be_answered_is_said(self):
        source = self.write_input([{"text": "a"}, {"txt": "b"}, {"text": "word " * 3000}], "bad.jsonl")
        output = self.path / "bad"
        done = self.run_batch(source, output, "--model", self.model, "--max-tokens", 4, "--in-order")
        self.assertEqual(done.returncode, 1)
        self.assertIn("2 lines cannot be answered", done.stderr)
        self.assertIn("line ", done.stderr)
        records = lines_of(output)
        self.assertIn("output", records[0])
        self.assertIn("has none of prompt, text", records[1]["error"])
        self.assertIn("tokens", records[2]["error"])
        again = self.run_batch(source, output, "--model", self.model, "--max-tokens", 4, "--in-order")
        self.assertEqual(again.returncode, 1, "as long as there are such lines")
        self.assertIn("2 lines cannot be answered", again.stderr)
        for text, arguments in (("leave out --n", ["--model", self.model, "--n", 2]),
                                ("cannot write", ["--model", self.model, "--output", "/nowhere/at/all"])):
            done = self.run_batch(source, self.path / "unused", *arguments)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(text, done.stderr)

    def test_model_defaults(self):
        source = self.write_input([{"text": "word"}], "one.jsonl")
        (self.model / "generation_config.json").write_text(json.dumps({"do_sample": False, "max_new_tokens": 3}))
        self.addCleanup((self.model / "generation_config.json").unlink)

        def tokens(name, *arguments):
            output = self.path / name
            command = [processes.BIN / "bellwether", "batch", "--input", source, "--output", output, "--threads", "1",
                       "--model", self.model, "--ignore-eos", "--chat-template", "belle-7b", *arguments]
            subprocess.run(command, check=True, capture_output=True, timeout=processes.PATIENCE)
            return lines_of(output)[0]["usage"]["generated_tokens"]

        self.assertEqual(tokens("file", "--model-defaults"), 3)
        self.assertEqual(tokens("flag", "--model-defaults", "--max-tokens", "2"), 2)
        (self.model / "generation_config.json").write_text("{}")
        self.assertEqual(tokens("card", "--model-defaults"), 200, "BELLE's card says so")


class Perplexity(unittest.TestCase):
    def test_equals_the_golden_for_every_window(self):
        golden = json.loads((processes.ROOT / "tests/goldens/perplexity.json").read_text())
        with tempfile.TemporaryDirectory() as directory:
            processes.write_tiny_checkpoint(directory)
            texts = pathlib.Path(directory) / "texts"
            texts.write_text("".join(json.dumps({"text": text}) + "\n\n" for text in golden["texts"]))
            for expected in golden["runs"]:
                done = subprocess.run(
                    [processes.BIN / "bellwether", "perplexity", "--model", directory, "--threads", "1", "--file", texts,
                     "--window", str(expected["window"]), "--stride", str(expected["stride"]), "--json"],
                    capture_output=True, text=True, timeout=processes.PATIENCE)
                self.assertEqual(done.returncode, 0, done.stderr)
                answer = json.loads(done.stdout)
                self.assertEqual([document["tokens"] for document in answer["documents"]], golden["tokens"])
                self.assertEqual([document["scored"] for document in answer["documents"]], expected["scored"])
                pairs = [(answer["perplexity"], expected["perplexity"])]
                pairs += [(d["perplexity"], e) for d, e in zip(answer["documents"], expected["documents"])]
                for found, wanted in pairs:
                    if wanted is None:
                        self.assertIsNone(found, "a text of one token has nothing to foretell")
                    else:
                        self.assertLess(abs(found / wanted - 1), 1e-5)

            texts.write_text(golden["texts"][0])  # plain text is one document
            one = subprocess.run([processes.BIN / "bellwether", "perplexity", "--model", directory, "--threads", "1",
                                  "--file", texts], capture_output=True, text=True, timeout=processes.PATIENCE)
            self.assertIn(f"{golden['runs'][-1]['documents'][0]:.3f}"[:-1], one.stdout)
            texts.write_text('{"text": "a b"}\n{"txt": "c"}\n')
            mixed = subprocess.run([processes.BIN / "bellwether", "perplexity", "--model", directory, "--file", texts],
                                   capture_output=True, text=True, timeout=processes.PATIENCE)
            self.assertEqual(mixed.returncode, 2)
            self.assertIn("line 2 is no object", mixed.stderr)
            texts.write_text("a b")
            bad = subprocess.run([processes.BIN / "bellwether", "perplexity", "--model", directory, "--threads", "1",
                                  "--file", texts, "--window", "64", "--stride", "65"], capture_output=True, text=True,
                                 timeout=processes.PATIENCE)
            self.assertEqual(bad.returncode, 2)
            self.assertIn("strides are no longer than they", bad.stderr)


if __name__ == "__main__":
    unittest.main()
