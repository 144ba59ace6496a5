"""What surrounds the programs on people's machines: proxies, names that are not UTF-8, full disks, files that cannot be read,
slips of the keyboard, and neighbours that never answer. Nothing of it may be silent, or last for ever."""

import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from unittest import mock

from tests.e2e import processes

GOLDEN = processes.ROOT / "tests/goldens/models/llama-mha"
MODEL = "random:llama:fp32"
NOBODY = 65534
PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


def run(program, *arguments, **options):
    """Output as text, which fails where it is not UTF-8."""
    if "stdin" not in options and "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    return subprocess.run([processes.BIN / program, *map(str, arguments)], timeout=processes.PATIENCE, encoding="utf-8",
                          **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options))


def tool(*arguments, **options):
    return run("bellwether", *arguments, **options)


def environment(**variables):
    return {name: value for name, value in os.environ.items() if name not in PROXY_VARIABLES} | variables


class Surroundings(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="bellwether-test."))
        self.addCleanup(shutil.rmtree, self.directory)

    def assert_fails(self, done, *texts, code=1):
        self.assertEqual(done.returncode, code, done.stderr)
        for text in texts:
            self.assertIn(text, done.stderr)

    def while_it_lives(self, cluster):
        """Round after round, but neither for ever nor without the programs."""
        end = time.monotonic() + processes.PATIENCE
        while time.monotonic() < end:
            yield
            self.assertTrue(all(process.poll() is None for process in cluster.processes), cluster.logs())
        self.fail("it has not happened\n" + cluster.logs())

    # Proxies
    # -------

    def test_programs_of_a_cluster_pass_by_the_proxy(self):
        proxied = environment(**dict.fromkeys(PROXY_VARIABLES[:3], "http://127.0.0.1:1"))
        done = tool("generate", "--model", MODEL, "--threads", 1, "--prompt-ids", "1", "--max-tokens", 2, env=proxied)
        self.assertEqual(done.returncode, 0, done.stderr)
        with mock.patch.dict(os.environ, proxied, clear=True):
            cluster = processes.Cluster(MODEL)
        self.addCleanup(cluster.close)
        ask = ["score", "--connect", cluster.address, "--token-ids", "1,2"]
        for _ in self.while_it_lives(cluster):
            if (done := tool(*ask, env=proxied)).returncode == 0:
                break
            self.assertNotIn("no coordinator", done.stderr)
        self.assertNotIn("proxy", done.stderr)

    def test_another_host_is_reached_by_the_proxy_and_it_is_said(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            heard = []

            def listen():
                connection, _ = server.accept()
                with connection:
                    heard.append(connection.recv(4096).decode())

            listener = threading.Thread(target=listen)
            listener.start()
            done = tool("score", "--connect", "flock.invalid:7400", "--insecure", "--token-ids", "1",
                        env=environment(https_proxy=f"http://127.0.0.1:{server.getsockname()[1]}"))
            listener.join(processes.PATIENCE)
        self.assert_fails(done, "no coordinator answers at flock.invalid:7400 through the proxy that https_proxy names",
                          "no_proxy=flock.invalid")
        self.assertIn("CONNECT flock.invalid:7400", heard[0])
        straight = tool("score", "--connect", "flock.invalid:7400", "--insecure", "--token-ids", "1",
                        env=environment(https_proxy="http://127.0.0.1:1", no_proxy="invalid"))
        self.assert_fails(straight, "no coordinator answers at flock.invalid:7400")
        self.assertNotIn("proxy", straight.stderr)

    # Neighbours that never answer
    # ----------------------------

    def programs_with(self, name, script):
        """A copy of the programs in which `name` is a shell script instead."""
        for program in ("bellwether", "bellwether-coordinator", "bellwether-worker"):
            shutil.copy(processes.BIN / program, self.directory)
        path = self.directory / name
        path.unlink()
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return self.directory / "bellwether"

    def give_up(self, program):
        return subprocess.run([program, "generate", "--model", MODEL, "--prompt-ids", "1", "--give-up-seconds", "1"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=processes.PATIENCE)

    def test_workers_that_never_join(self):
        done = self.give_up(self.programs_with("bellwether-worker", "echo my dog is lost >&2; exec sleep 1000"))
        self.assert_fails(done, "no progress for 1", "waiting for workers: 0 of 1 have joined", "--give-up-seconds",
                          "worker 0: my dog is lost")

    def test_a_coordinator_that_never_answers(self):
        done = self.give_up(self.programs_with("bellwether-coordinator", """
            while [ "$1" != --port-file ]; do shift; done
            printf 'client 127.0.0.1:1\\nworker 127.0.0.1:1\\n' > "$2"
            exec sleep 1000"""))
        self.assert_fails(done, "no progress for 1", "the coordinator at 127.0.0.1:1 does not answer")
        self.assertGreater(done.stderr.count("does not answer"), 1, "it is told while it is awaited, too")

    def test_a_coordinator_that_never_listens(self):
        done = self.give_up(self.programs_with("bellwether-coordinator", "exec sleep 1000"))
        self.assert_fails(done, "no progress for 1", "the coordinator opens " + MODEL)

    def test_a_worker_says_whom_it_awaits_and_since_when(self):
        command = [processes.BIN / "bellwether-worker", "--model", MODEL, "--coordinator", "127.0.0.1:1", "--threads", "1"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as worker:
            self.addCleanup(lambda: worker.poll() is None and worker.kill())
            lines = [line for line, _ in zip((line for line in worker.stderr if "no coordinator" in line), range(3))]
            worker.terminate()
            worker.stderr.read()
        self.assertRegex(lines[0], r"no coordinator at 127.0.0.1:1 \(.+\)", "since when is left out as it has just begun")
        self.assertRegex(lines[2], r"no coordinator at 127.0.0.1:1 for [1-9][0-9.]*s \(.+\)")

    def test_a_coordinator_that_hangs_while_it_answers(self):
        cluster = processes.Cluster(MODEL.replace("llama", "llama?positions=60000"),
                                    coordinator_flags=["--context-tokens", 60000])
        self.addCleanup(cluster.close)
        ask = ["generate", "--connect", cluster.address, "--prompt-ids", "1", "--ignore-eos", "--max-tokens"]
        for _ in self.while_it_lives(cluster):
            if tool(*ask, 1).returncode == 0:
                break
        with subprocess.Popen([processes.BIN / "bellwether", *ask, "59000"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as client:
            self.addCleanup(lambda: client.poll() is None and client.kill())
            client.stdout.read(1)
            cluster.processes[0].send_signal(signal.SIGSTOP)
            error = client.communicate(timeout=processes.PATIENCE)[1]
        self.assertEqual(client.returncode, 1)
        self.assertIn(f"the connection to {cluster.address} was lost", error)

    # Bytes that are no text
    # ----------------------

    def test_a_path_that_is_not_utf8(self):
        model = os.path.join(self.directory, os.fsdecode(b"m\xff\xc3"))
        shutil.copytree(GOLDEN, model)
        inspected = tool("inspect", "--json", "--tensors", model)
        self.assertEqual(inspected.returncode, 0, inspected.stderr)
        self.assertTrue(json.loads(inspected.stdout)["path"].endswith(r"/m\xff\xc3"))
        self.assertIn(r"/m\xff\xc3", tool("inspect", model).stdout)
        converted = tool("convert", "safetensors", "--model", model, "--output", model + "-plain")
        self.assertEqual((converted.returncode, converted.stdout), (0, f"written to {self.directory}/m\\xff\\xc3-plain\n"))
        generated = tool("generate", "--model", model, "--threads", 1, "--prompt-ids", "1", "--max-tokens", 2)
        self.assertEqual(generated.returncode, 0, generated.stderr)
        self.assert_fails(tool("inspect", model + "x"), r"m\xff\xc3x")
        self.assert_fails(tool("generate", "--model", model + "x", "--prompt-ids", "1"), r"m\xff\xc3x")

    def test_a_worker_whose_name_and_path_are_not_utf8(self):
        name = os.fsdecode(b"sheep\xe9")
        cluster = processes.Cluster(MODEL, workers=0)
        self.addCleanup(cluster.close)
        root = os.path.join(self.directory, os.fsdecode(b"root\xff"))
        os.mkdir(root)  # no model is in it: the failure names it, and travels to the coordinator
        cluster.start_worker("--model-root", root, "--name", name, "--host-id", name)
        for _ in self.while_it_lives(cluster):
            log = (cluster.directory / "bellwether-coordinator-0.log").read_text(encoding="utf-8")
            if r"sheep\xe9" in log and r"root\xff" in log:
                break

    def test_a_line_of_a_chat_that_is_not_utf8(self):
        processes.write_tiny_checkpoint(self.directory)
        done = subprocess.run([processes.BIN / "bellwether", "chat", "--model", self.directory, "--threads", "1", "--max-tokens",
                               "4"], input=b"one\ntw\xff\nthree\n\n", capture_output=True, timeout=processes.PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr.count(b"tokens/s"), 2)
        self.assertIn(b"the line is not valid UTF-8 at byte 2", done.stderr)

    def test_flags_that_are_not_utf8(self):
        bad = os.fsdecode(b"a\xff")
        processes.write_tiny_checkpoint(self.directory)
        for arguments, what in ((["generate", "--prompt", bad], "the prompt"), (["score", "--text", bad], "the text"),
                                (["generate", "--prompt", "a", "--stop", bad], "a stop string"),
                                (["chat", "--question", bad], "the question"), (["chat", "--system", bad], "the system message"),
                                (["chat", "--question", "a", "--stop", bad], "a stop string")):
            self.assert_fails(tool(*arguments, "--model", self.directory), what + " is not valid UTF-8", code=2)
        for flag in ("--chat-template", "--kernel-level"):
            self.assert_fails(tool("generate", "--model", self.directory, "--prompt", "a", flag, bad), r"a\xff")

    # Output that does not arrive
    # ---------------------------

    def outputs(self):
        processes.write_tiny_checkpoint(self.directory)
        model = ["--model", self.directory, "--threads", 1]
        generate = ["generate", *model, "--prompt", "Hi", "--max-tokens", 4]
        return [("bellwether", *arguments) for arguments in (
            generate, [*generate, "--json"], [*generate, "--n", 2], ["score", *model, "--text", "Hi there"],
            ["chat", *model, "--question", "Hi", "--max-tokens", 4], ["inspect", self.directory], ["inspect", "--json", MODEL],
            ["plan", "--model", MODEL, "--worker", "memory=1GB"], ["--help"], ["plan", "--help"], ["plan", "--print-config"])
        ] + [("bellwether-coordinator", "--help"), ("bellwether-worker", "--print-config")]

    def test_output_that_cannot_be_written_is_an_error(self):
        for program in self.outputs():
            with self.subTest(program):
                with open("/dev/full", "wb") as full:
                    self.assert_fails(run(*program, stdout=full), "cannot write to standard output", "No space left")
                reader, writer = os.pipe()
                os.close(reader)
                try:
                    self.assert_fails(run(*program, stdout=writer), "cannot write to standard output", "Broken pipe")
                finally:
                    os.close(writer)

    # Descriptors that nobody opened
    # ------------------------------

    def test_standard_descriptors_that_are_closed(self):
        # What was opened first got the number: a chat waited for ever, at an event of its own.
        processes.write_tiny_checkpoint(self.directory)
        program = processes.BIN / "bellwether"

        def ask(closed, *arguments):
            return subprocess.run([*processes.WITH_CLOSED, closed, program, *map(str, arguments)], capture_output=True,
                                  encoding="utf-8", timeout=processes.PATIENCE)

        done = ask("0", "chat", "--model", self.directory, "--threads", 1)
        self.assertEqual(done.returncode, 0, done.stderr)
        generate = ["generate", "--model", MODEL, "--threads", 1, "--prompt-ids", "1", "--max-tokens", 2]
        self.assert_fails(ask("1", *generate), "cannot write to standard output")
        done = ask("0 2", *generate)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout)
        self.assertEqual(ask("0 1 2", *generate).returncode, 1)

    def test_programs_that_serve_without_standard_descriptors(self):
        # A worker wrote its log into the connection to the coordinator.
        cluster = processes.Cluster(MODEL, closed="0 1 2")
        self.addCleanup(cluster.close)
        for _ in self.while_it_lives(cluster):
            if tool("score", "--connect", cluster.address, "--token-ids", "1,2").returncode == 0:
                break
        for process in cluster.processes:
            for descriptor in range(3):
                self.assertEqual(os.readlink(f"/proc/{process.pid}/fd/{descriptor}"), "/dev/null")

    def test_a_chat_whose_input_cannot_be_read(self):
        processes.write_tiny_checkpoint(self.directory)
        folder = os.open(self.directory, os.O_RDONLY)
        self.addCleanup(os.close, folder)
        done = tool("chat", "--model", self.directory, "--threads", 1, stdin=folder)
        self.assert_fails(done, "cannot read standard input: Is a directory")

    # Files that people have
    # ----------------------

    def test_files_that_cannot_be_read(self):
        ask = ["generate", "--model", MODEL, "--prompt-file"]
        self.assert_fails(tool(*ask, self.directory), "--prompt-file", "Is a directory")
        self.assert_fails(tool(*ask, self.directory / "none"), "--prompt-file", "No such file")
        self.assert_fails(tool("plan", "--model", MODEL, "--config", self.directory), "config", "Is a directory", code=2)
        model = self.directory / "model"
        model.mkdir(mode=0o755)
        processes.write_tiny_checkpoint(model)
        tokenizer = model / "tokenizer.json"
        tokenizer.rename(model / "kept.json")
        tokenizer.symlink_to(tokenizer.name)
        self.assert_fails(tool("inspect", model), "tokenizer.json", "Too many levels of symbolic links")
        tokenizer.unlink()
        (model / "kept.json").rename(tokenizer)
        secret = self.directory / "secret"
        secret.write_text("a = b")
        secret.chmod(0)
        self.directory.chmod(0o755)
        user = {"user": NOBODY, "cwd": "/"} if os.geteuid() == 0 else {}
        try:
            run("bellwether", "--help", **user)
        except PermissionError:
            self.skipTest("nobody may run the programs here")
        self.assert_fails(tool(*ask, secret, **user), "--prompt-file", "Permission denied")
        self.assert_fails(tool("plan", "--model", MODEL, "--config", secret, **user), "config", "Permission denied", code=2)
        for path in sorted(model.iterdir()):
            path.chmod(0)
            self.assert_fails(tool("inspect", model, **user), path.name, "Permission denied")
            path.chmod(0o644)
        for mode in (0o400, 0):  # its files can be listed, and not even that
            model.chmod(mode)
            self.assert_fails(tool("inspect", model, **user), "Permission denied")
            self.assert_fails(tool("generate", "--model", model, "--prompt", "a", **user), "Permission denied")

    def test_a_byte_order_mark_is_passed_over(self):
        processes.write_tiny_checkpoint(self.directory)
        mark = b"\xef\xbb\xbf"
        prompt = self.directory / "prompt.txt"
        settings = self.directory / "settings"
        settings.write_bytes(mark + b"threads = 1\nmax-tokens = 3\n")
        answers = []
        for beginning in (b"", mark):
            prompt.write_bytes(beginning + b"Hello")
            done = tool("generate", "--model", self.directory, "--config", settings, "--prompt-file", prompt, "--json",
                        "--temperature", 0, "--ignore-eos")
            self.assertEqual(done.returncode, 0, done.stderr)
            answers.append(json.loads(done.stdout)["token_ids"])
            for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):  # and now with the mark
                path = self.directory / name
                path.write_bytes(mark + path.read_bytes().removeprefix(mark))
        self.assertEqual(len(answers[0]), 3)
        self.assertEqual(answers[0], answers[1])

    # What the system gives
    # ---------------------

    def test_too_little_address_space_is_said(self):
        if processes.has_sanitizers():
            self.skipTest("a sanitizer takes terabytes of address space")
        for kib in (250_000, 400_000, 700_000):
            def limit():
                resource.setrlimit(resource.RLIMIT_AS, (kib << 10, kib << 10))
            for program in (["bellwether-worker", "--coordinator", "127.0.0.1:1"],
                            ["bellwether-coordinator", "--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0", "--http-listen", ""],
                            ["bellwether", "generate", "--prompt-ids", "1"]):
                with self.subTest((kib, program)):
                    done = run(*program, "--model", MODEL, preexec_fn=limit)
                    self.assert_fails(done, f"the address space may only be {kib} KiB", "ulimit -v")
                    self.assertEqual(done.stderr.count("error "), 1, done.stderr)

    # Slips of the keyboard
    # ---------------------

    def test_numbers_that_do_not_fit_are_refused(self):
        generate = ["bellwether", "generate", "--prompt-ids", "1"]
        for program, flag, value in ((generate, "--seed", "-1"), (generate, "--seed", "18446744073709551616"),
                                     (generate, "--top-k", "4294967297"), (generate, "--max-tokens", "1.5"),
                                     (generate, "--n", "0x2"), (generate, "--threads", "4294967297"),
                                     (["bellwether", "up"], "--workers", "1e1"),
                                     (generate, "--give-up-seconds", "nan"), (generate, "--device-memory-fraction", "nan"),
                                     (generate, "--temperature", "nan"), (generate, "--top-p", "inf"),
                                     (generate, "--logit-bias", "1:nan"),
                                     (["bellwether", "load"], "--rate", "nan"), (["bellwether", "load"], "--temperature", "nan"),
                                     (["bellwether", "load"], "--objective-ttft", "nan"),
                                     (["bellwether", "plan"], "--device-memory-fraction", "nan"),
                                     (["bellwether-coordinator"], "--device-memory-fraction", "nan"),
                                     (["bellwether-coordinator"], "--drain-seconds", "nan"),
                                     (["bellwether", "generate"], "--prompt-ids", "1,,2"),
                                     (["bellwether-coordinator"], "--seed", "-1"),
                                     (["bellwether-coordinator"], "--seed", "99999999999999999999"),
                                     (["bellwether-coordinator"], "--step-tokens", "4294967808"),
                                     (["bellwether-worker"], "--threads", "4294967297"),
                                     (["bellwether-worker"], "--memory-mib", "18446744073709551617")):
            with self.subTest((program, flag, value)):
                advice = ["leave it out for a random one"] if flag == "--seed" else []
                self.assert_fails(run(*program, "--model", MODEL, flag, value), flag, value, *advice, code=2)

    def test_addresses_are_read_strictly(self):
        for program in (["bellwether", "up", "--listen"], ["bellwether", "up", "--worker-listen"],
                        ["bellwether", "up", "--http-listen"], ["bellwether-coordinator", "--http-listen"],
                        ["bellwether-coordinator", "--listen"], ["bellwether-coordinator", "--worker-listen"],
                        ["bellwether-worker", "--coordinator"], ["bellwether-worker", "--link-listen"],
                        ["bellwether", "score", "--token-ids", "1", "--connect"]):
            model = [] if program[-1] == "--connect" else ["--model", MODEL]
            for address in ("127.0.0.1", "127.0.0.1:99999", "[::1]", "::1:7400", ":7400", "unix:/tmp/s", "localhost:http"):
                with self.subTest((program, address)):
                    self.assert_fails(run(*program, address, *model), program[-1], "write HOST:PORT", code=2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
