"""Weights that do not fit: real processes with little memory stream layers from a drive and give the same answers."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import unittest
import urllib.request

from tests.e2e import processes

# 6 layers of 6.3 MB, and 2 MB outside them.
MODEL = "random:llama?hidden=512,layers=6,heads=8,ffn=1376,vocab=512,positions=2048:bf16"
WHOLE_MIB, LITTLE_MIB = 4000, 80
# Of a machine for so many workers, so that some and so that all layers are streamed.
SOME_MIB, ALL_MIB = {1: 98, 2: 160}, {1: LITTLE_MIB, 2: 140}

# Embedding and head of five pieces each, 10 MB; as one matrix too. 4 layers of 1.6 MB.
LARGE_VOCABULARY = "random:llama?hidden=256,layers=4,heads=8,ffn=704,vocab=20000,positions=2048{}:bf16"
# Of a machine for so many workers, so that the embedding, then the head, then all layers are streamed too.
EMBEDDING_MIB, HEAD_MIB, LEAST_MIB = {1: 88, 2: 152}, {1: 78, 2: 142}, {1: 71, 2: 138}


def generate(*arguments, max_tokens=12):
    return subprocess.run(
        [processes.BIN / "bellwether", "generate", "--prompt-ids", "1,2,3,4,5", "--max-tokens", str(max_tokens), "--seed", "7",
         "--json", *map(str, arguments)], capture_output=True, text=True, timeout=processes.PATIENCE)


class Streaming(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="bellwether-test."))
        self.addCleanup(shutil.rmtree, self.directory)
        self.cache = self.directory / "shards"

    def private(self, memory_mib, *flags, model=MODEL):
        done = generate("--model", model, "--context-tokens", 64, "--plan-for-batch", 1, "--memory-mib", memory_mib,
                        "--shard-cache", self.cache, *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["token_ids"]

    def layers(self):
        done = subprocess.run([processes.BIN / "bellwether", "cache", "list", "--directory", self.cache, "--json"],
                              capture_output=True, text=True, timeout=processes.PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    # The number of files whose key has a line like that.
    def damage(self, key):
        damaged = [layer["path"] for layer in self.layers() if re.search(key, layer["key"], re.M)]
        for path in damaged:
            with open(path, "r+b") as file:
                file.seek(-5000, os.SEEK_END)
                file.write(b"damage")
        return len(damaged)

    def test_the_same_answers_with_a_part_of_the_memory(self):
        expected = self.private(WHOLE_MIB)
        for memory in SOME_MIB, ALL_MIB:
            for ranks in 1, 2:
                self.assertEqual(self.private(memory[ranks], "--tensor-parallel", ranks), expected, (memory, ranks))
        self.assertEqual(self.private(SOME_MIB[2], "--pipeline-parallel", 2), expected)

    def test_a_model_that_does_not_fit_is_refused_where_nothing_may_be_streamed(self):
        for flags in (["--offload", "off"], ["--shard-cache", "off"]):
            done = generate("--model", MODEL, "--context-tokens", 64, "--memory-mib", LITTLE_MIB, "--give-up-seconds", 5,
                            *flags)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("does not fit", done.stderr)

    def plan(self, model, memory_mib, *flags):
        done = subprocess.run(
            [processes.BIN / "bellwether", "plan", "--model", model, "--context-tokens", "64", "--plan-for-batch", "1", *flags,
             "--worker", f"memory={memory_mib}MiB,drive=100MB/s,gflops=100"], capture_output=True, text=True,
            timeout=processes.PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_the_plan_tells_what_is_streamed(self):
        done = subprocess.run(
            [processes.BIN / "bellwether", "plan", "--model", MODEL, "--context-tokens", "64", "--json", "--worker",
             f"memory={LITTLE_MIB}MiB,drive=100MB/s,gflops=100"], capture_output=True, text=True, timeout=processes.PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        plan = json.loads(done.stdout)
        worker = plan["workers"][0]
        self.assertGreater(worker["streamed_layers"], 0)
        self.assertAlmostEqual(worker["drive_seconds"], worker["streamed_bytes"] / 100e6, delta=1e-4)
        self.assertLess(worker["resident_bytes"], worker["weight_bytes"])
        self.assertIn("drive", plan["bound_by"])
        self.assertEqual([batch["sequences"] for batch in plan["batches"]], [16, 64])
        for batch in plan["batches"]:  # which share the reading
            self.assertAlmostEqual(batch["tokens_per_second_at_most"] / plan["decode_tokens_per_second"], batch["sequences"], places=3)

    def test_how_many_tokens_a_step_has_is_in_the_plan(self):
        plans = {}
        for tokens in "auto", "512":
            done = subprocess.run(
                [processes.BIN / "bellwether", "plan", "--model", MODEL, "--context-tokens", "1024", "--step-tokens", tokens,
                 "--worker", f"memory={SOME_MIB[1]}MiB,drive=10MB/s,gflops=100"], capture_output=True, text=True,
                timeout=processes.PATIENCE)
            self.assertEqual(done.returncode, 0, done.stderr)
            plans[tokens] = done.stdout
        self.assertRegex(plans["auto"], r"a step has at most \d+ tokens: ")
        self.assertNotIn("a step has at most", plans["512"])

    # A long prompt is computed in one pass over the drive where arithmetic is fast enough, and the answer is the same.
    def test_auto_step_tokens_give_the_same_answer(self):
        self.assertEqual(self.private(SOME_MIB[1], "--step-tokens", "auto"), self.private(WHOLE_MIB, "--step-tokens", 32))

    def test_memory_is_a_size_or_mib(self):
        cache = ["--shard-cache", self.cache, "--context-tokens", 64, "--plan-for-batch", 1, "--model", MODEL]
        expected = self.private(LITTLE_MIB)
        done = generate(*cache, "--memory", f"{LITTLE_MIB}MiB")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["token_ids"], expected)
        for flags in (["--memory", "8 apples"], ["--memory", "8GB", "--memory-mib", 8000]):
            done = generate(*cache, *flags)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("--memory", done.stderr)

    def test_bench_prints_what_streaming_costs(self):
        done = subprocess.run(
            [processes.BIN / "bellwether", "bench", "--shape", MODEL.split(":")[1], "--memory", f"{LITTLE_MIB}MiB", "--offload", "auto",
             "--layouts", "1x1", "--shard-cache", self.directory / "bench", "--decode-tokens", "4", "--repeats", "1", "--json"],
            capture_output=True, text=True, timeout=processes.PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        row, = json.loads(done.stdout)["layouts"]
        self.assertGreater(row["drive_bytes_per_second"], 0)
        self.assertGreater(row["streamed_bytes_per_step"], 4 * 6e6)
        self.assertAlmostEqual(row["step_to_drive"], row["step_seconds"] * row["drive_bytes_per_second"] /
                               row["streamed_bytes_per_step"], places=6)
        self.assertGreater(row["reading_share"], 0)
        self.assertEqual(row["batches"][0]["sequences"], 1)
        for batch in row["batches"]:
            self.assertGreater(batch["tokens_per_second"], 0)
            self.assertGreater(batch["planned_tokens_per_second"], 0)
        self.assertEqual(list((self.directory / "bench").glob("**/*.layer")), [], "they go with the bench")

    def test_the_cache_is_listed_and_pruned(self):
        self.private(LITTLE_MIB)
        layers = self.layers()
        self.assertEqual(len(layers), 7)  # and what is outside the layers
        self.assertEqual({re.search(r"^(layer \d+|outside the layers)$", layer["key"], re.M).group() for layer in layers},
                         {f"layer {i}" for i in range(6)} | {"outside the layers"})
        done = subprocess.run([processes.BIN / "bellwether", "cache", "prune", "--directory", self.cache],
                              capture_output=True, text=True, timeout=processes.PATIENCE)
        self.assertIn("--max-bytes is missing", done.stderr)
        self.assertEqual(len(self.layers()), 7)
        done = subprocess.run([processes.BIN / "bellwether", "cache", "prune", "--directory", self.cache, "--max-bytes", "20MB"],
                              capture_output=True, text=True, timeout=processes.PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLessEqual(sum(layer["bytes"] for layer in self.layers()), 20e6)

    def cluster(self, memory_mib, model=MODEL):
        cluster = processes.Cluster(model, coordinator_flags=["--context-tokens", 64, "--plan-for-batch", 1],
                                    worker_flags=["--memory-mib", memory_mib, "--shard-cache", self.cache])
        self.addCleanup(cluster.close)
        return cluster

    def ask(self, cluster, max_tokens=12):
        end = time.monotonic() + processes.PATIENCE
        done = generate("--connect", cluster.address, max_tokens=max_tokens)
        while done.returncode != 0 and time.monotonic() < end:  # until it serves
            done = generate("--connect", cluster.address, max_tokens=max_tokens)
        self.assertEqual(done.returncode, 0, done.stderr + cluster.logs())
        return json.loads(done.stdout)["token_ids"]

    def metric(self, cluster, name):
        with urllib.request.urlopen(f"http://{cluster.addresses['metrics']}/http_sd", timeout=60) as answer:
            targets = [target for group in json.load(answer) for target in group["targets"]]
        for target in targets:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=60) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith(name + "{"):
                        return float(line.split()[-1])
        self.fail(f"no {name} at {targets}")

    # Passes over the drive are what a step costs, so they are counted: by what was read, which is two layers ahead.
    def test_every_step_reads_every_streamed_layer_once(self):
        cluster = self.cluster(LITTLE_MIB)
        self.ask(cluster, max_tokens=1)
        streamed = "bellwether_weights_streamed_bytes_total"
        layer = max(layer["bytes"] for layer in self.layers())
        first = self.metric(cluster, streamed)
        self.assertGreater(first, 5 * layer)
        self.ask(cluster, max_tokens=21)
        self.assertLess(abs(self.metric(cluster, streamed) - first - 21 * 6 * layer), 4 * layer)
        self.assertGreater(self.metric(cluster, "bellwether_weights_read_seconds_total"), 0)
        self.assertGreaterEqual(self.metric(cluster, "bellwether_weights_ring_bytes"), 2 * (layer - 8192))
        busy, planned = (self.metric(cluster, f"bellwether_step_{what}_seconds_total") for what in ("busy", "planned"))
        self.assertGreater(busy, 0)
        self.assertGreater(planned, 0)

    # A byte that has changed on the drive ends the epoch, and the layer is written anew.
    def test_a_damaged_layer_gives_no_wrong_token(self):
        expected = self.private(LITTLE_MIB)
        self.assertEqual(self.damage(r"^layer \d"), 6)
        cluster = self.cluster(LITTLE_MIB)
        self.assertEqual(self.ask(cluster), expected)
        self.assertRegex(cluster.logs(), r"weights of a layer: \S+\.layer: damaged between bytes")

    def test_embedding_and_head_may_be_streamed_too(self):
        for tied in "", ",tied=1":
            model = LARGE_VOCABULARY.format(tied)
            expected = self.private(WHOLE_MIB, model=model)
            for memory in EMBEDDING_MIB, HEAD_MIB, LEAST_MIB:
                for ranks in 1, 2:
                    self.assertEqual(self.private(memory[ranks], "--tensor-parallel", ranks, model=model), expected,
                                     (tied, memory, ranks))

    def test_the_plan_tells_of_embedding_and_head(self):
        streamed = []
        for memory in WHOLE_MIB, EMBEDDING_MIB[1], HEAD_MIB[1], LEAST_MIB[1]:
            plan = json.loads(self.plan(LARGE_VOCABULARY.format(""), memory, "--json"))
            worker = plan["workers"][0]
            streamed.append((worker["streamed_embedding"], worker["streamed_head"], worker["streamed_layers"] > 0))
            self.assertEqual(worker["streamed_from"], "nvme" if any(streamed[-1]) else None)
        self.assertEqual(streamed, [(False, False, False), (True, False, False), (True, True, False), (True, True, True)])
        tied = json.loads(self.plan(LARGE_VOCABULARY.format(",tied=1"), LEAST_MIB[1], "--json"))["workers"][0]
        self.assertTrue(tied["streamed_embedding"] and tied["streamed_head"], tied)
        self.assertIn("streams the head, rows of the embedding, ", self.plan(LARGE_VOCABULARY.format(""), HEAD_MIB[1]))

    # The head once a step, whatever the prompt; of the embedding some panels.
    def test_every_step_reads_a_streamed_head_once(self):
        cluster = self.cluster(HEAD_MIB[1], model=LARGE_VOCABULARY.format(""))
        self.ask(cluster, max_tokens=1)
        streamed, panel = "bellwether_weights_streamed_bytes_total", 64 * 256 * 2
        first = self.metric(cluster, streamed)
        self.ask(cluster, max_tokens=21)
        read = self.metric(cluster, streamed) - first
        head, piece = 20000 * 256 * 2, 4096 * 256 * 2
        self.assertLess(abs(read - 21 * head), 4 * piece + 30 * panel + 5 * piece)

    # As a layer, and a piece of the embedding that a token asks for as one of the head.
    def test_damaged_pieces_give_no_wrong_token(self):
        model = LARGE_VOCABULARY.format("")
        expected = self.private(HEAD_MIB[1], model=model)
        self.assertEqual(self.damage(r"^(embedding|head) rows \d"), 10)
        cluster = self.cluster(HEAD_MIB[1], model=model)
        self.assertEqual(self.ask(cluster), expected)
        self.assertRegex(cluster.logs(), r"weights of the head: \S+\.layer: damaged between bytes")

    # Killed while it writes: the next one packs what is missing.
    def test_a_worker_that_is_killed_while_it_packs_is_followed_by_one_that_goes_on(self):
        expected = self.private(WHOLE_MIB, "--shard-cache", "off")
        cluster = self.cluster(LITTLE_MIB)
        end = time.monotonic() + processes.PATIENCE
        with contextlib.suppress(FileNotFoundError):
            while not list(self.cache.glob("*.layer")) and time.monotonic() < end:
                os.sched_yield()
        cluster.processes[1].kill()
        cluster.start_worker("--model", MODEL, "--name", "next", "--memory-mib", LITTLE_MIB, "--shard-cache", self.cache)
        self.assertEqual(self.ask(cluster), expected)
        self.assertEqual(list(self.cache.glob("*.partial")), [])

    def test_a_directory_that_cannot_be_used_is_named(self):
        (self.directory / "file").write_text("x")
        done = subprocess.run([processes.BIN / "bellwether-worker", "--model", MODEL, "--shard-cache", self.directory / "file/x"],
                              capture_output=True, text=True, timeout=processes.PATIENCE)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("file/x", done.stderr)


if __name__ == "__main__":
    unittest.main()
