"""The tool `bellwether` as people and scripts call it: output on stdout, errors on stderr, exit codes."""

import contextlib
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from tests.e2e import processes
from tests.e2e.openai_test import wait_for

GOLDEN = processes.ROOT / "tests/goldens/models/llama-mha"
MODEL = "random:llama:fp32"


def cpu_ticks(process):
    return int(pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11])


def run(*arguments, **variables):
    return subprocess.run([processes.BIN / "bellwether", *map(str, arguments)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=processes.PATIENCE, env=os.environ | variables)


class Cli(unittest.TestCase):
    def json_of(self, *arguments):
        done = run(*arguments, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def assert_fails(self, text, *arguments):
        done = run(*arguments)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stdout, "")
        self.assertIn(text, done.stderr)

    def test_generate_equals_the_golden_on_every_layout(self):
        golden = json.loads((GOLDEN / "golden.json").read_text())
        expected = golden["greedy_token_ids"]
        answers = []
        for layout in ([], ["--tensor-parallel", 2, "--pipeline-parallel", 2]):
            answer = self.json_of("generate", "--model", GOLDEN, *layout, "--threads", 1, "--kernel-level", "portable",
                                  "--prompt-ids", ",".join(map(str, golden["token_ids"])), "--temperature", 0,
                                  "--ignore-eos", "--max-tokens", len(expected))  # JSON has logprobs unasked
            self.assertEqual(answer["prompt_token_ids"], golden["token_ids"])
            self.assertEqual(answer["token_ids"], expected)
            self.assertEqual(answer["finish_reason"], "length")
            self.assertEqual(answer["usage"]["generated_tokens"], len(expected))
            self.assertEqual(len(answer["logprobs"]), len(expected))
            answers.append(answer["logprobs"])
        self.assertEqual(answers[0], answers[1], "log-probabilities are printed with all their digits, and equal")

    def test_score_equals_the_golden(self):
        golden = json.loads((GOLDEN / "golden.json").read_text())
        tokens = golden["token_ids"]
        score = self.json_of("score", "--model", GOLDEN, "--threads", 1, "--kernel-level", "portable",
                             "--token-ids", ",".join(map(str, tokens)))
        self.assertEqual(score["token_ids"], tokens)
        self.assertIsNone(score["logprobs"][0])
        for got, expected in zip(score["logprobs"][1:], golden["token_logprobs"][1:]):
            self.assertAlmostEqual(got, expected, delta=2e-4)

    def test_connect(self):
        cluster = processes.Cluster(MODEL)
        self.addCleanup(cluster.close)
        connect = ["--connect", cluster.address]
        # --connect waits for no model: it says that none is served yet, so ask until one is.
        while run("generate", *connect, "--prompt-ids", "1", "--max-tokens", 1, "--json").returncode != 0:
            self.assertTrue(all(process.poll() is None for process in cluster.processes), cluster.logs())
        flags = ["--prompt-ids", "1,2,3", "--max-tokens", 5, "--temperature", 0.8, "--seed", 7, "--ignore-eos"]
        connected = self.json_of("generate", *connect, *flags)
        private = self.json_of("generate", "--model", MODEL, "--threads", 1, *flags)
        self.assertEqual(connected["token_ids"], private["token_ids"])
        self.assertEqual(connected["seed"], 7)
        score = self.json_of("score", *connect, "--token-ids", "4,5,6")
        self.assertEqual(len(score["logprobs"]), 3)
        choices = self.json_of("generate", *connect, *flags, "--n", 2)["choices"]
        self.assertEqual([choice["choice"] for choice in choices], [0, 1])
        streamed = run("generate", *connect, *flags)
        self.assertEqual(streamed.returncode, 0, streamed.stderr)
        self.assertEqual(list(map(int, streamed.stdout.split())), private["token_ids"])
        self.assert_fails("max_tokens", "generate", *connect, "--prompt-ids", "1", "--max-tokens", 0)
        self.assert_fails("160", "generate", *connect, "--prompt-ids", "160")

    def test_signals_end_a_call_before_its_first_answer(self):
        long = MODEL.replace("llama", "llama?positions=60000")
        cluster = processes.Cluster(long, coordinator_flags=["--context-tokens", 60000])
        self.addCleanup(cluster.close)
        connect = ["--connect", cluster.address]
        while run("generate", *connect, "--prompt-ids", "1", "--max-tokens", 1).returncode != 0:
            self.assertTrue(all(process.poll() is None for process in cluster.processes), cluster.logs())
        ids = ",".join(["1"] * 59000)
        for stop, command in ((signal.SIGINT, ["generate", *connect, "--prompt-ids", ids, "--max-tokens", "1"]),
                              (signal.SIGTERM, ["score", *connect, "--token-ids", ids])):
            worker = cluster.processes[1]
            idle = cpu_ticks(worker)
            with subprocess.Popen([processes.BIN / "bellwether", *command], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True) as tool:
                self.addCleanup(lambda tool=tool: tool.poll() is None and tool.kill())
                while cpu_ticks(worker) < idle + 20:  # heartbeats alone take none: it computes
                    self.assertIsNone(tool.poll())
                tool.send_signal(stop)
                self.assertEqual(tool.communicate(), ("", "bellwether: interrupted\n"))
                self.assertEqual(tool.returncode, 130)

    # A notice began with an empty line wherever it went.
    def test_a_notice_leaves_the_line_of_an_answer_and_no_other(self):
        with tempfile.TemporaryDirectory() as model:
            processes.write_tiny_checkpoint(model, positions=60000)
            cluster = processes.Cluster(model)
            self.addCleanup(cluster.close)
            command = [processes.BIN / "bellwether", "generate", "--connect", cluster.address, "--prompt", "hello",
                       "--max-tokens", "10000", "--ignore-eos"]
            wait_for(lambda: cluster.metric("bellwether_serving") == 1)
            person, terminal = pty.openpty()
            with open(person, "rb", buffering=0) as person, contextlib.ExitStack() as tools:
                beside = [tools.enter_context(subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE))
                          for flags in ([], ["--json"])]
                tools.enter_context(subprocess.Popen(command, stdout=terminal, stderr=terminal))
                os.close(terminal)
                seen = person.read(1)
                wait_for(lambda: cluster.metric("bellwether_requests_running") == 3)
                cluster.processes[1].kill()
                cluster.start_worker("--model", model, "--name", "sheep-0")
                with contextlib.suppress(OSError):  # so a terminal ends
                    while piece := person.read(4096):
                        seen += piece
                self.assertIn(b"\r\n[worker sheep-0 (stage 0, rank 0) is lost", seen)
                for tool in beside:
                    _, said = tool.communicate(timeout=processes.PATIENCE)
                    self.assertEqual(said[:15], b"[worker sheep-0", said)

    def test_signals_end_a_conversation(self):
        with tempfile.TemporaryDirectory() as model:
            processes.write_tiny_checkpoint(model)
            command = ["chat", "--model", model, "--threads", "1", "--max-tokens", "4"]
            with subprocess.Popen([processes.BIN / "bellwether", *command], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as chat:
                self.addCleanup(lambda: chat.poll() is None and chat.kill())
                chat.stdin.write("hello\n")
                chat.stdin.flush()
                while "tokens/s" not in (line := chat.stderr.readline()):
                    self.assertTrue(line)
                chat.send_signal(signal.SIGINT)  # while it waits for the next line
                self.assertEqual(chat.wait(processes.PATIENCE), 0)

    def test_a_line_that_is_refused_does_not_end_a_conversation(self):
        with tempfile.TemporaryDirectory() as model:
            processes.write_tiny_checkpoint(model)
            command = [processes.BIN / "bellwether", "chat", "--model", model, "--threads", "1", "--max-tokens", "4", "--context-tokens", "64"]
            lines = f"hello\n{'too long ' * 50}\nhello\n\n".encode()
            person, terminal = pty.openpty()
            with open(person, "wb", buffering=0) as person, subprocess.Popen(
                    command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as chat:
                os.close(terminal)
                person.write(lines)
                _, said = chat.communicate(timeout=processes.PATIENCE)
            self.assertEqual(chat.returncode, 0, said)
            self.assertEqual(said.count(b"tokens/s"), 2)
            self.assertIn(b"the context holds 64", said)
            piped = subprocess.run(command, input=lines, capture_output=True, timeout=processes.PATIENCE)
            self.assertEqual(piped.returncode, 2)
            self.assertEqual(piped.stderr.count(b"tokens/s"), 1)

    def test_inspect_and_plan(self):
        inspected = self.json_of("inspect", GOLDEN, "--tensors")
        self.assertEqual(inspected["config"]["layers"], 2)
        self.assertEqual(len(inspected["model_id"]), 64)
        self.assertTrue(inspected["tensors"])
        plan = self.json_of("plan", "--model", "random:llama-7b:int4", "--worker", "host=a,memory=16GB",
                            "--worker", "host=b,memory=16GB,bandwidth=40GB/s")
        self.assertEqual(len(plan["workers"]), 2)
        self.assertGreater(plan["decode_tokens_per_second"], 0)
        text = run("plan", "--model", "random:llama-7b:int4", "--worker", "memory=16GB")
        self.assertEqual(text.returncode, 0, text.stderr)
        self.assert_fails("positions up to 512", "plan", "--model", MODEL, "--context-tokens", 100000)
        self.assert_fails("1B to 1000TB", "plan", "--model", MODEL, "--worker", "memory=1e30")

    def test_inspect_says_what_a_coordinator_would(self):
        with tempfile.TemporaryDirectory() as directory:
            model = pathlib.Path(directory) / "model"
            shutil.copytree(GOLDEN, model)
            inspected = self.json_of("inspect", model)
            self.assertIn("none", inspected["tokenizer"])
            self.assertEqual(inspected["chat_template"], "none: chat needs a tokenizer")
            shutil.copy(processes.ROOT / "tests/goldens/tokenizer/smollm/tokenizer.json", model)
            damaged = (model / "tokenizer.json").read_bytes()[:1000]
            (model / "tokenizer.json").write_bytes(damaged)
            self.assert_fails("tokenizer.json", "inspect", model)
            done = subprocess.run([processes.BIN / "bellwether-coordinator", "--model", model], capture_output=True,
                                  text=True, timeout=processes.PATIENCE)
            self.assertEqual(done.returncode, 1)
            self.assertIn("tokenizer.json", done.stderr)
        with tempfile.TemporaryDirectory() as model:
            processes.write_tiny_checkpoint(model)
            self.assertEqual(self.json_of("inspect", model)["chat_template"], "chatml")
            self.assertRegex(run("inspect", model).stdout, r"(?m)^chat_template +chatml$")
            path = pathlib.Path(model) / "tokenizer_config.json"
            path.write_text(path.read_text().replace("<|im_start|>", "?"))
            inspected = self.json_of("inspect", model)
            self.assertEqual(inspected["chat_template"], "none")
            self.assertIn("its own chat_template is of no known family", inspected["chat_template_reason"])

    def test_devices(self):
        devices = self.json_of("devices")
        self.assertIn("portable", devices["cpu"]["kernel_levels"])
        self.assertGreater(devices["cpu"]["cores"], 0)
        self.assertEqual(devices["gpus"] == [], devices["gpu_problem"] != "")
        for gpu in devices["gpus"]:
            self.assertLessEqual(gpu["free_bytes"], gpu["memory_bytes"])
            self.assertTrue(gpu["kernel_level"].startswith("cuda_sm"))
        text = run("devices").stdout
        self.assertIn("cpu  ", text)
        self.assertEqual("no GPU: " in text, devices["gpus"] == [])

    def test_each_program_says_what_it_was_built_from(self):
        machines, ids = {}, set()
        for program in "bellwether", "bellwether-coordinator", "bellwether-worker":
            for flags in ["--version"], ["--help"]:
                done = subprocess.run([processes.BIN / program, *flags], capture_output=True, text=True,
                                      timeout=processes.PATIENCE)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                if flags == ["--help"]:
                    self.assertIn("--version", done.stdout)
                    continue
                first, *machines[program] = done.stdout.splitlines()
                name, build_id = first.split(" ")
                self.assertEqual(name, program)
                ids.add(build_id)
        self.assertEqual(len(ids), 1, "a cluster is of one build")
        self.assertIn("kernel levels", machines["bellwether-worker"][0])
        self.assertEqual(machines["bellwether-worker"], machines["bellwether"])
        self.assertEqual(machines["bellwether-coordinator"], [])

    def test_generate_on_devices(self):
        model = "random:llama?hidden=64,layers=2,heads=4,kv_heads=2,head_dim=16,ffn=96,vocab=101:bf16"
        flags = ["--model", model, "--threads", 1, "--context-tokens", 64, "--prompt-ids", "1,2,3", "--max-tokens", 2,
                 "--ignore-eos"]
        for devices in "emulated", "emulated,cpu":
            self.assertEqual(len(self.json_of("generate", *flags, "--devices", devices)["token_ids"]), 2, devices)
        self.assert_fails("expected cpu, auto or cuda:N", "generate", *flags, "--devices", "emulated,gpu")
        self.assert_fails("--devices names 2 for 3 workers", "generate", *flags, "--devices", "cpu,cpu",
                          "--pipeline-parallel", 3)

    def test_bench(self):
        bench = self.json_of("bench", "--shape", "llama", "--weights", "int8", "--layouts", "1x1,1x2t1", "--repeats", 1,
                             "--prompt-tokens", 16, "--decode-tokens", 128)  # long enough for streams to meet
        self.assertEqual([bench[key] for key in ("shape", "weights", "prompt_tokens", "decode_tokens")],
                         ["llama", "int8", 16, 128])
        self.assertGreater(bench["bytes_per_token"], 0)
        self.assertGreater(bench["operations_per_token"], 0)
        self.assertEqual([(row["layout"], row["workers"]) for row in bench["layouts"]], [("1x1", 1), ("1x2t1", 2)])
        for row in bench["layouts"]:
            self.assertLessEqual({"threads_per_worker", "read_gigabytes_per_second", "peak_gigaoperations_per_second",
                                  "prefill_tokens_per_second", "prefill_share_of_peak", "decode_tokens_per_second",
                                  "decode_share_of_read_bandwidth", "decode_all_streams_tokens_per_second",
                                  "decode_to_first_layout", "decode_all_streams_to_first_layout", "resident_bytes",
                                  "weight_bytes", "kv_bytes", "resident_to_weights_and_kv"}, row.keys())
            self.assertIn("portable", run("--version").stdout)
            self.assertIn(row["kernel_level"], run("--version").stdout)
            for key in row.keys() - {"layout", "kernel_level"}:
                self.assertGreater(row[key], 0, key)

    def test_text(self):
        with tempfile.TemporaryDirectory() as model:
            processes.write_tiny_checkpoint(model)
            flags = ["--model", model, "--threads", 1, "--temperature", 0, "--max-tokens", 20]
            answer = self.json_of("generate", *flags, "--prompt", "Hello", "--ignore-eos", "--logprobs", 2)
            self.assertEqual(len(answer["token_ids"]), 20)
            self.assertEqual([len(top) for top in answer["top_logprobs"]], [2] * 20)
            self.assertTrue(answer["text"])
            streamed = run("generate", *flags, "--prompt", "Hello", "--ignore-eos")
            self.assertEqual(streamed.stdout.rstrip("\n"), answer["text"].rstrip("\n"))
            self.assertIn("tokens/s", streamed.stderr)
            file = pathlib.Path(model) / "prompt.txt"
            file.write_text("Hello")
            from_file = self.json_of("generate", *flags, "--prompt-file", file, "--ignore-eos")
            self.assertEqual(from_file["prompt_token_ids"], answer["prompt_token_ids"])
            self.assertEqual(from_file["text"], answer["text"])
            chat = self.json_of("chat", *flags, "--question", "Who are you?", "--ignore-eos")
            self.assertEqual(len(chat["token_ids"]), 20)
            talk = subprocess.run([processes.BIN / "bellwether", "chat", *map(str, flags)], capture_output=True,
                                  input=b"first\nsecond\n\n", timeout=processes.PATIENCE)
            self.assertEqual(talk.returncode, 0, talk.stderr)
            self.assertEqual(talk.stderr.count(b"tokens/s"), 2)

    def test_special_tokens_of_a_text(self):
        with tempfile.TemporaryDirectory() as model:
            processes.write_tiny_checkpoint(model)
            path = pathlib.Path(model) / "tokenizer.json"
            tokenizer = json.loads(path.read_text())
            special = next(token for token in tokenizer["added_tokens"] if token["content"] == "<|im_start|>")["id"]
            # With a BOS, which this tokenizer has not by itself.
            tokenizer["post_processor"] = {
                "type": "TemplateProcessing", "pair": [],
                "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [special], "tokens": ["<|im_start|>"]}}}
            path.write_text(json.dumps(tokenizer))

            def tokens_of(*arguments):
                return self.json_of("score", "--model", model, "--threads", 1, "--text", "Hi<|im_start|>", *arguments)["token_ids"]

            self.assertEqual([i for i, token in enumerate(tokens_of()) if token == special], [0])
            parsed = tokens_of("--parse-special-tokens")
            self.assertEqual([i for i, token in enumerate(parsed) if token == special], [0, len(parsed) - 1])
            self.assertEqual(tokens_of("--parse-special-tokens", "--no-special-tokens"), parsed[1:])

    def test_up_restarts_dead_and_stopped_workers_and_ends_in_order(self):
        command = [processes.BIN / "bellwether", "up", "--model", MODEL, "--tensor-parallel", "2", "--threads", "1",
                   "--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as up:
            self.addCleanup(lambda: up.poll() is None and up.kill())
            address = next(m.group(1) for m in (re.search(r"served at (\S+)", line) for line in up.stderr) if m)
            ask = ["generate", "--connect", address, "--prompt-ids", "1,2", "--temperature", 0, "--max-tokens", 9]
            before = self.json_of(*ask)
            children = pathlib.Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
            names = {pid: pathlib.Path(f"/proc/{pid}/comm").read_text().strip() for pid in children}
            self.assertEqual(sum(name.startswith("bellwether") for name in names.values()), 3, names)
            victims = [int(pid) for pid, name in names.items() if name.startswith("bellwether-work")]
            for victim, how in zip(victims, (signal.SIGKILL, signal.SIGSTOP)):
                os.kill(victim, how)
                while "worker" not in (line := up.stderr.readline()) or "again" not in line:
                    self.assertTrue(line, "the supervisor says that it starts a worker again")
                while (done := run(*ask, "--json")).returncode != 0:
                    self.assertIsNone(up.poll())
                self.assertEqual(json.loads(done.stdout)["token_ids"], before["token_ids"])
            up.send_signal(signal.SIGTERM)
            up.stderr.read()
            self.assertEqual(up.wait(processes.PATIENCE), 0)
        for pid in children:
            self.assertFalse(pathlib.Path(f"/proc/{pid}").exists(), f"{names[pid]} is left behind")

    def test_up_says_that_its_coordinator_is_stopped_and_leaves_nothing_when_killed(self):
        with tempfile.TemporaryDirectory() as scratch:
            command = [processes.BIN / "bellwether", "up", "--model", MODEL, "--threads", "1",
                       "--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": scratch}) as up:
                self.addCleanup(lambda: up.poll() is None and up.kill())
                while "served at" not in (line := up.stderr.readline()):
                    self.assertTrue(line)
                self.assertEqual(len(list(pathlib.Path(scratch).iterdir())), 1)
                children = pathlib.Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
                names = {pid: pathlib.Path(f"/proc/{pid}/comm").read_text() for pid in children}
                coordinator = next(int(pid) for pid, name in names.items() if name.startswith("bellwether-coor"))
                for how, text in ((signal.SIGSTOP, f"kill -CONT {coordinator}"), (signal.SIGCONT, "goes on")):
                    os.kill(coordinator, how)
                    while text not in (line := up.stderr.readline()):
                        self.assertTrue(line, "the supervisor says how it is with the coordinator")
                up.kill()
                up.stderr.read()  # its end: the programs that share it are gone too
            limit = time.monotonic() + processes.PATIENCE
            while list(pathlib.Path(scratch).iterdir()) and time.monotonic() < limit:
                pass
            self.assertEqual(list(pathlib.Path(scratch).iterdir()), [])

    def test_a_second_signal_ends_the_draining(self):
        command = [processes.BIN / "bellwether", "up", "--model", MODEL.replace("llama", "llama?positions=60000"),
                   "--context-tokens", "60000", "--threads", "1", "--drain-seconds", "3600",
                   "--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as up:
            self.addCleanup(lambda: up.poll() is None and up.kill())
            address = next(m.group(1) for m in (re.search(r"served at (\S+)", line) for line in up.stderr) if m)
            ask = ["generate", "--connect", address, "--prompt-ids", "1", "--ignore-eos", "--max-tokens", "59000"]
            with subprocess.Popen([processes.BIN / "bellwether", *ask], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  text=True) as client:
                self.addCleanup(lambda: client.poll() is None and client.kill())
                client.stdout.read(1)
                up.send_signal(signal.SIGINT)
                while "^C again" not in (line := up.stderr.readline()):
                    self.assertTrue(line)
                up.send_signal(signal.SIGINT)
                self.assertEqual(up.wait(processes.PATIENCE), 130)
                client.stdout.read()
                self.assertEqual(client.wait(processes.PATIENCE), 1, "the answer is cut short")
            up.stderr.read()  # its end: the coordinator and the worker, who share it, are gone too

    def test_demo(self):
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "bellwether"
        if not list(cache.glob("SmolLM2*.gguf")):
            self.skipTest("the demo model has not been fetched")
        demo = subprocess.run([processes.ROOT / "tools/demo.sh", processes.BIN], capture_output=True, text=True,
                              timeout=processes.PATIENCE)
        self.assertEqual(demo.returncode, 0, demo.stderr)
        self.assertIn("together", demo.stdout)
        self.assertRegex(demo.stderr, r"\d+ tokens at [0-9.]+ tokens/s")

    def test_printed_settings_can_be_read_again(self):
        def output_of(program, *arguments, **variables):
            return subprocess.run([processes.BIN / program, *map(str, arguments)], capture_output=True, text=True, check=True,
                                  env=os.environ | variables).stdout

        generate = ["generate", "--model", MODEL, "--prompt-ids", "1,2,3", "--max-tokens", 5, "--temperature", 0.8, "--seed", 7,
                    "--threads", 1, "--ignore-eos", "--stop-token-ids", "9,8", "--logit-bias", "3:-1", "5:0.5", "--json"]
        with tempfile.TemporaryDirectory() as directory:
            file = pathlib.Path(directory) / "settings"
            for program, arguments in (
                    ("bellwether", generate), ("bellwether", ["score"]),
                    ("bellwether", ["generate", "--prompt", " a\n\"b", "--stop", "[8]", "--stop", ' "a\n']),
                    ("bellwether", ["chat", "--system", "Be brief."]),
                    ("bellwether", ["up", "--workers", 2]), ("bellwether", ["plan", "--worker", "memory=1GB", "--json"]),
                    ("bellwether", ["inspect", "/some/model"]), ("bellwether", ["bench", "--layouts", "1x1,2x1"]),
                    ("bellwether", ["bench"]), ("bellwether", ["generate", "--prompt", "", "--connect", "", "--model", MODEL]),
                    ("bellwether-coordinator", ["--layout", "1x2"]),
                    ("bellwether-worker", ["--cpus", "0,1", "--name", "ram"])):
                command = arguments[:1] if program == "bellwether" else []
                printed = output_of(program, *arguments, "--print-config")
                self.assertIn("model = ", printed + "model = " * (command == ["bench"]))
                file.write_text(printed)
                self.assertEqual(output_of(program, *command, "--config", file, "--print-config"), printed)
            file.write_text(output_of("bellwether", *generate, "--print-config"))
            answers = [self.json_of("generate", "--config", file), self.json_of(*generate[:-1])]
            self.assertEqual(answers[0]["token_ids"], answers[1]["token_ids"])
            self.assertIn("seed = 9\n", output_of("bellwether", "generate", "--print-config", "--seed", 9,
                                                  BELLWETHER_SEED="8", BELLWETHER_CONFIG=str(file)))
            self.assertIn("seed = 8\n", output_of("bellwether", "generate", "--print-config",
                                                  BELLWETHER_SEED="8", BELLWETHER_CONFIG=str(file)))
            file.write_text("temperture = 1\n")
            self.assert_fails('"temperture"', "generate", "--model", MODEL, "--prompt-ids", "1", "--config", file)
            for program in ("bellwether-coordinator", "bellwether-worker"):
                done = subprocess.run([processes.BIN / program, "--config", file], capture_output=True, text=True)
                self.assertEqual(done.returncode, 2)
                self.assertIn('"temperture"', done.stderr)

    def test_what_is_given_displaces_what_says_the_same_below(self):
        inspected = run("inspect", MODEL, BELLWETHER_MODEL="/nope")
        self.assertEqual(inspected.returncode, 0, inspected.stderr)
        connect = ("generate", "--connect", "127.0.0.1:1")
        with tempfile.TemporaryDirectory() as directory:
            file = pathlib.Path(directory) / "f.conf"
            for text, arguments, variables, settings in (
                    ("prompt-ids = 1\n", ["generate", "--prompt", "hi"], {}, ["prompt = hi", "prompt-ids = "]),
                    ("", ["generate", "--prompt-ids", "1"], {"BELLWETHER_PROMPT": "hi"}, ["prompt = ", "prompt-ids = 1"]),
                    ("text = hi\n", ["score"], {"BELLWETHER_TOKEN_IDS": "2"}, ["text = ", "token-ids = 2"]),
                    ("threads = 2\n", connect, {"BELLWETHER_MODEL": "x"}, ["model = ", "threads = 0"]),
                    ("connect = a:1\nthreads = 2\n", ["generate", "--model", "x"], {}, ["connect = ", "threads = 2"]),
                    ("layout = 1x2\n", ["up", "--tensor-parallel", "2"], {}, ["layout = ", "tensor-parallel = 2"]),
                    ("worker = memory=1GB\n", ["plan", "--workers", "2"], {}, ["worker = ", "workers = 2"]),
                    ("model = y\n", ["inspect", "--json", "--config", file, "x"], {"BELLWETHER_MODEL": "z"}, ["model = x"])):
                with self.subTest(arguments):
                    file.write_text(text)
                    done = run(*arguments, "--print-config", BELLWETHER_CONFIG=str(file), **variables)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertLessEqual(set(settings), set(done.stdout.splitlines()))
            file.write_text("prompt-ids = 1\n")
            self.assert_fails("answers at 127.0.0.1:1", *connect, "--prompt", "hi", "--config", file)
        for twice in ([MODEL, "another"], ["--model", MODEL, "another"], [f"--model={MODEL}", "another"]):
            self.assert_fails("not expected", "inspect", *twice)

    def test_errors(self):
        self.assert_fails("/no/such/model", "generate", "--model", "/no/such/model", "--prompt-ids", "1")
        self.assert_fails("/no/such/model", "inspect", "/no/such/model")
        self.assert_fails("memory", "plan", "--model", "random:llama-7b:fp32", "--worker", "memory=1GB")
        self.assert_fails("127.0.0.1:1", "generate", "--connect", "127.0.0.1:1", "--prompt-ids", "1")
        self.assert_fails("prompt", "generate", "--model", MODEL)
        self.assert_fails("tokenizer", "generate", "--model", MODEL, "--threads", 1, "--prompt", "hello")
        self.assert_fails("1-4 ranks", "generate", "--model", MODEL, "--tensor-parallel", 5, "--threads", 1,
                          "--prompt-ids", "1")
        self.assert_fails("--no-such-flag", "generate", "--model", MODEL, "--prompt-ids", "1", "--no-such-flag")
        # Before it is said what is missing, which may be what was meant; and in the order in which they were written.
        self.assert_fails("not expected: --modle MODEL", "up", "--modle", "MODEL")
        self.assert_fails("not expected: --modle MODEL", "up", "--modle", "MODEL", "--print-config")
        self.assert_fails("not expected: genrate", "genrate", "--model", MODEL)
        self.assert_fails("--model is required", "inspect", "--")  # and "--" is always expected
        with tempfile.TemporaryDirectory() as directory:
            self.assert_fails("config.json", "inspect", directory)

    def test_a_worker_that_cannot_load_ends_the_command(self):
        if b"__asan_init" in (processes.BIN / "bellwether-worker").read_bytes():
            self.skipTest("AddressSanitizer maps more than the limit at its start")
        # Every process may have 1 GiB of its own (stacks are part of it), the weights are 2 GB; the plan knows of no limit.
        done = subprocess.run(["sh", "-c", 'ulimit -s 2048 && ulimit -d 1048576 && exec "$@"', "sh", processes.BIN / "bellwether", "generate",
                               "--model", "random:llama-1.1b:bf16", "--prompt-ids", "1"],
                              capture_output=True, text=True, timeout=processes.PATIENCE)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout, "")
        self.assertRegex(done.stderr, r"worker-0 \(stage 0, rank 0\) failed: .* cannot allocate \d+ bytes")

    def test_what_the_flags_refuse(self):
        ids = ["--prompt-ids", "1"]
        for arguments, texts in ((["up", "--workers", 500], ["--workers", "0 to 64"]),
                                 (["up", "--drain-seconds", -1], ["--drain-seconds"]),
                                 (["generate", *ids, "--threads", -1], ["--threads", "0 to 1024"]),
                                 (["generate", *ids, "--log-level", "foo"], ["--log-level", "warning"]),
                                 (["generate", *ids, "--tensor-parallel", 8, "--pipeline-parallel", 9], ["72", "64"]),
                                 (["plan", "--workers", -3], ["--workers", "0 to 1024"]),
                                 (["plan", "--quantize", "int5"], ["--quantize", "int4"]),
                                 (["plan", "--worker", "memory=1GB", "--workers", 2], ["--worker", "--workers"]),
                                 (["plan", "--layout", "1x1", "--tensor-parallel", 2], ["--layout", "--tensor-parallel"]),
                                 (["plan", "--layout", "99x1"], ["covers 99 layers"]),
                                 (["up", "--drain-seconds", "nan"], ["--drain-seconds", "0 to 86400"]),
                                 (["bench", "--layouts", "1x1t-5"], ["1x1t-5"]),
                                 (["bench", "--layouts", "1x1,64x2"], ["64x2", "128", "64"]),
                                 (["up", "--devices", "cpu,,cpu"], ["--devices"]),
                                 (["up", "--served-model-name", "a,,b"], ["--served-model-name", "empty name"]),
                                 (["bench", "--repeats", 0], ["--repeats", "1 to 1000"])):
            model = ["--model", MODEL] if arguments[0] != "bench" else []
            for text in texts:
                self.assert_fails(text, *arguments, *model)
        for program, arguments in (("coordinator", ["--log-level", "foo"]), ("coordinator", ["--drain-seconds", "-1"]),
                                   ("coordinator", ["--step-deadline-seconds", "nan"]),
                                   ("coordinator", ["--served-model-name", "a,,b"]),
                                   ("worker", ["--log-level", "foo"]), ("worker", ["--memory-mib", "-1"]),
                                   ("worker", ["--cpus", "0,,1"])):
            done = subprocess.run([processes.BIN / f"bellwether-{program}", "--model", MODEL, *arguments],
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 2)
            self.assertIn(arguments[0], done.stderr)

    def test_fewer_kv_blocks_than_one_context_are_refused(self):
        done = subprocess.run([processes.BIN / "bellwether-coordinator", "--model", MODEL, "--listen", "127.0.0.1:0",
                               "--worker-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--context-tokens", "65", "--kv-blocks-max", "2"],
                              capture_output=True, text=True, timeout=processes.PATIENCE)
        self.assertEqual(done.returncode, 1)
        self.assertIn("kv-blocks-max is 2, one context of 65 tokens takes 3", done.stderr)

    def test_connect_takes_no_flags_of_a_cluster(self):
        connect = ["--connect", "127.0.0.1:1", "--prompt-ids", "1"]
        self.assert_fails("leave out --model, --threads", "generate", *connect, "--model", MODEL, "--threads", 1)
        self.assert_fails("answers at 127.0.0.1:1", "generate", *connect, "--threads", 0)  # which asks for nothing

    def test_a_lost_coordinator_is_named(self):
        cluster = processes.Cluster(MODEL.replace("llama", "llama?positions=60000"),
                                    coordinator_flags=["--context-tokens", 60000])
        self.addCleanup(cluster.close)
        ask = ["generate", "--connect", cluster.address, "--prompt-ids", "1", "--ignore-eos", "--max-tokens"]
        while run(*ask, 1).returncode != 0:
            self.assertTrue(all(process.poll() is None for process in cluster.processes), cluster.logs())
        with subprocess.Popen([processes.BIN / "bellwether", *ask, "59000"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as tool:
            self.addCleanup(lambda: tool.poll() is None and tool.kill())
            tool.stdout.read(1)
            cluster.processes[0].kill()
            error = tool.communicate()[1]
        self.assertIn(f"the connection to {cluster.address} was lost", error)
        self.assertEqual(tool.returncode, 1)

    def test_layout(self):
        flags = ["--model", MODEL, "--threads", 1]
        ask = ["--prompt-ids", "1,2", "--temperature", 0, "--max-tokens", 3]
        layers = self.json_of("inspect", MODEL)["config"]["layers"]
        answers = [self.json_of("generate", *flags, *layout, *ask)["token_ids"]
                   for layout in ([], ["--layout", f"{layers}x3+1"], ["--layout", f"1x1,{layers - 1}x2"])]
        self.assertEqual(answers[1:], answers[:1] * 2)
        plan = self.json_of("plan", "--model", MODEL, "--layout", f"1x1,{layers - 1}x3+1")
        self.assertEqual([(worker["stage"], worker["rank"]) for worker in plan["workers"]], [(0, 0), (1, 0), (1, 1)])
        self.assert_fails("--tensor-parallel", "generate", *flags, "--layout", f"{layers}x2", "--tensor-parallel", 2, *ask)
        self.assert_fails("layers", "generate", *flags, "--layout", "99x1", *ask)

    def test_help(self):
        for command in ([], ["generate"], ["score"], ["chat"], ["up"], ["plan"], ["inspect"], ["bench"]):
            done = run(*command, "--help")
            self.assertEqual(done.returncode, 0)
            self.assertIn("--help", done.stdout)
        generate, bench = (" ".join(run(command, "--help").stdout.split()) for command in ("generate", "bench"))
        self.assertIn("--stop TEXT", generate)
        self.assertIn("0: what the model can", generate)
        self.assertIn("=1x1,2x1,1x2", bench)

    def test_the_command_comes_first(self):
        self.assert_fails("the command comes first: bellwether generate --config FILE", "--config", "f", "generate")


if __name__ == "__main__":
    unittest.main(verbosity=2)
