"""Checkpoints as the BELLE and BiLLa projects published them, through the programs: what people do with them first."""

import array
import hashlib
import json
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest

from tests.e2e import processes
from tests.e2e.cli_test import run

GOLDENS = processes.ROOT / "tests/goldens"
LLAMA = GOLDENS / "models/llama-mha"
BLOCK = 10 << 20


def encrypt(plain, key):
    """As BELLE's script: blocks of 10 MiB, the key's last one repeated within its block."""
    out = bytearray(hashlib.sha256(plain).digest())
    blocks = [key[i:i + BLOCK] for i in range(0, len(key), BLOCK)]
    for number, start in enumerate(range(0, len(plain), BLOCK)):
        data, block = plain[start:start + BLOCK], blocks[number % len(blocks)]
        out += bytes(byte ^ block[i % len(block)] for i, byte in enumerate(data))
    return bytes(out)


def read_safetensors(path):
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return {name: (entry["dtype"], entry["shape"], data[8 + size + entry["data_offsets"][0]:8 + size + entry["data_offsets"][1]])
            for name, entry in json.loads(data[8:8 + size]).items() if name != "__metadata__"}


def write_safetensors(path, tensors):
    header, body = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


class OldFiles(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="bellwether-test."))
        self.addCleanup(shutil.rmtree, self.directory)

    def answer(self, *arguments):
        golden = json.loads((LLAMA / "golden.json").read_text())
        done = run("generate", *arguments, "--threads", 1, "--kernel-level", "portable", "--prompt-ids",
                   ",".join(map(str, golden["token_ids"])), "--temperature", 0, "--ignore-eos", "--max-tokens", 8, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_belle_encrypted_model(self):
        source, plain = self.directory / "belle-enc", self.directory / "belle"
        source.mkdir()
        base = self.directory / "consolidated.00.pth"
        base.write_bytes(bytes(i * 7 % 251 for i in range(5000)))
        for name in ("config.json", "model.safetensors"):
            data = (LLAMA / name).read_bytes()
            (source / f"{name}.{hashlib.sha256(data).hexdigest()}.enc").write_bytes(encrypt(data, base.read_bytes()))
        refused = run("inspect", source)
        self.assertIn("run bellwether convert xor --base", refused.stderr)
        convert = ["convert", "xor", "--base", base, "--model", source, "--output", plain]
        done = run(*convert)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("2 files written", done.stdout)
        self.assertEqual((plain / "model.safetensors").read_bytes(), (LLAMA / "model.safetensors").read_bytes())
        self.assertIn("0 files written", run(*convert).stdout)
        self.assertEqual(self.answer("--model", plain)["logprobs"], self.answer("--model", LLAMA)["logprobs"])
        base.write_bytes(b"another model's weights")
        wrong = run("convert", "xor", "--base", base, "--input", source, "--output", self.directory / "other")
        self.assertNotEqual(wrong.returncode, 0)
        self.assertIn("the base is not the file", wrong.stderr)
        self.assertEqual(list((self.directory / "other").iterdir()), [])

    def test_llama_as_meta_publishes_it(self):
        for name in ("meta-llama-2", "meta-llama-3"):
            model = GOLDENS / "models" / name
            golden = json.loads((model / "golden.json").read_text())
            scores = []
            for layout in ([], ["--tensor-parallel", 2, "--pipeline-parallel", 2]):
                done = run("score", "--model", model, *layout, "--threads", 1, "--kernel-level", "portable", "--kv-type", "fp32", "--json",
                           "--token-ids", ",".join(map(str, golden["token_ids"])))
                self.assertEqual(done.returncode, 0, done.stderr)
                scores.append(json.loads(done.stdout)["logprobs"])
            self.assertEqual(scores[0], scores[1])
            for got, expected in zip(scores[0][1:], golden["token_logprobs"][1:]):
                self.assertAlmostEqual(got, expected, delta=2e-4)

    def test_billa_at_load_time_and_converted(self):
        model, base = self.directory / "billa", self.directory / "base.safetensors"
        model.mkdir()
        shutil.copy(LLAMA / "config.json", model)
        tensors = read_safetensors(LLAMA / "model.safetensors")
        dtype, (rows, columns), data = tensors["model.embed_tokens.weight"]
        own = array.array("f", data)
        term = array.array("f", [((i * 37) % 101 - 50) / 64 for i in range((rows - 6) * columns)])
        total = array.array("f", [value + (term[i] if i < len(term) else 0) for i, value in enumerate(own)])
        tensors["model.embed_tokens.weight"] = (dtype, [rows, columns], total.tobytes())
        write_safetensors(model / "model.safetensors", tensors)
        write_safetensors(base, {"tok_embeddings.weight": ("F32", [rows - 6, columns], term.tobytes())})
        out = self.directory / "plain"
        done = run("convert", "billa", "--base", base, "--input", model, "--output", out)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("the embedding's sum is", done.stdout)
        loaded = self.answer("--model", model, "--billa-base", base, "--tensor-parallel", 2)
        self.assertEqual(loaded["logprobs"], self.answer("--model", out)["logprobs"])
        for again in (["inspect", out, "--billa-base", base],
                      ["convert", "billa", "--base", base, "--input", out, "--output", self.directory / "twice"]):
            self.assertIn("has been subtracted already", run(*again).stderr)
        # A directory above is nobody's name.
        above = self.directory / "BiLLa-7B-SFT"
        above.mkdir()
        model.rename(above / "mine")
        self.assertEqual(run("convert", "billa", "--base", base, "--input", above / "mine", "--output", self.directory / "mine").returncode, 0)
        # Its own is one however it is written, and wherever it is asked for.
        (above / "mine").rename(self.directory / "billa_7B_sft")
        gone = self.directory / "gone"
        gone.mkdir()
        sft = subprocess.run(["sh", "-c", 'rmdir ../gone; exec "$@"', "sh", processes.BIN / "bellwether", "convert", "billa", "--base", base,
                              "--input", "../billa_7B_sft", "--output", self.directory / "sft"], cwd=gone, capture_output=True, text=True,
                             timeout=processes.PATIENCE)
        self.assertIn("the base is another model's, or a file is damaged", sft.stderr)

    def test_billa_is_not_served_without_its_base(self):
        # In the types that it is published in.
        tensors = read_safetensors(LLAMA / "model.safetensors")
        for name, (_, shape, data) in tensors.items():
            if name != "model.embed_tokens.weight":
                tensors[name] = ("F16", shape, struct.pack(f"<{len(data) // 4}e", *array.array("f", data)))
        model = self.directory / "BiLLa-7B-LLM"
        model.mkdir()
        shutil.copy(LLAMA / "config.json", model)
        write_safetensors(model / "model.safetensors", tensors)
        for command in (["inspect", model], ["score", "--model", model, "--token-ids", "1,2"]):
            refused = run(*command)
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn("give --billa-base consolidated.00.pth", refused.stderr)
        renamed = model.rename(self.directory / "renamed")
        done = run("inspect", renamed, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(["if this is a BiLLa" in warning for warning in json.loads(done.stdout)["warnings"]], [True])
        self.assertEqual(done.stderr.count("if this is a BiLLa"), 1, "said once")

    def test_lora_is_the_same_on_every_layout_and_when_written_out(self):
        model, adapter = GOLDENS / "models/llama-mha", GOLDENS / "lora/llama-vocabulary"
        lora = ["--model", model, "--lora", f"{adapter}:0.5"]
        whole = self.answer(*lora)
        self.assertEqual(whole["logprobs"], self.answer(*lora, "--tensor-parallel", 2, "--pipeline-parallel", 2)["logprobs"])
        self.assertNotEqual(whole["logprobs"], self.answer("--model", model)["logprobs"])
        out = self.directory / "merged"
        done = run("convert", "safetensors", "--input", model, "--lora", f"{adapter}:0.5", "--output", out)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(whole["logprobs"], self.answer("--model", out)["logprobs"])

    def scores(self, model, golden):
        done = run("score", "--model", model, "--threads", 1, "--kernel-level", "portable", "--kv-type", "fp32", "--json",
                   "--token-ids", ",".join(map(str, golden["token_ids"])))
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["logprobs"]

    def test_quantised_models_written_as_safetensors(self):
        for name in ("gptq-belle-bloom-4bit/bloom7b-4bit-128g.pt", "gptq-act-order-llama", "awq-llama"):
            model, out = GOLDENS / "models" / name, self.directory / name.split("/")[0]
            golden = json.loads((GOLDENS / "models" / name.split("/")[0] / "golden.json").read_text())
            done = run("convert", "safetensors", "--model", model, "--output", out)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(self.scores(out, golden), self.scores(model, golden))

    def test_blocks_written_as_floats_are_what_transformers_computed_with(self):
        for name in ("gguf-llama-mixed/model.gguf", "ggjt-v1-mixed/ggml-model.bin", "gptq-act-order-llama"):
            model, out = GOLDENS / "models" / name, self.directory / name.split("/")[0]
            golden = json.loads((GOLDENS / "models" / name.split("/")[0] / "golden.json").read_text())
            if "gptq" not in name:
                refused = run("convert", "safetensors", "--model", model, "--output", out)
                self.assertNotEqual(refused.returncode, 0)
                self.assertIn("--dequantize fp16", refused.stderr)
            done = run("convert", "safetensors", "--model", model, "--output", out, "--dequantize", "fp32")
            self.assertEqual(done.returncode, 0, done.stderr)
            for got, expected in zip(self.scores(out, golden)[1:], golden["token_logprobs"][1:]):
                self.assertAlmostEqual(got, expected, delta=2e-4)

    def test_gptq_files_are_what_the_command_line_says(self):
        model = GOLDENS / "models/gptq-belle-bloom-4bit/bloom7b-4bit-128g.pt"
        self.assertEqual(run("inspect", model, "--gptq-bits", 4, "--gptq-group", 32).returncode, 0)
        refused = run("inspect", model, "--gptq-bits", 8)
        self.assertIn("these are 4 bits, but --gptq-bits or its settings say 8", refused.stderr)
        self.assertIn("allowed: 2, 3, 4, 8", run("inspect", model, "--gptq-bits", 5).stderr)
        whole = GOLDENS / "models/gptq-belle-llama-3bit/llama7b-3bit.pt"
        self.assertEqual(run("inspect", whole, "--gptq-group", -1).returncode, 0)

    def test_dtype_shows_both_sizes(self):
        stored = json.loads(run("inspect", LLAMA, "--json").stdout)
        rounded = json.loads(run("inspect", LLAMA, "--dtype", "fp16", "--json").stdout)
        self.assertEqual(rounded["stored_bytes"], stored["stored_bytes"])
        self.assertLess(rounded["loaded_bytes"], 0.6 * stored["loaded_bytes"])
        self.assertNotEqual(rounded["model_id"], stored["model_id"])
        plan = json.loads(run("plan", "--model", LLAMA, "--dtype", "fp16", "--worker", "memory=8GB", "--json").stdout)
        self.assertEqual(plan["stored_bytes"], stored["stored_bytes"])
        self.assertEqual(plan["loaded_bytes"], rounded["loaded_bytes"])
        self.assertRegex(run("plan", "--model", LLAMA, "--dtype", "fp16", "--worker", "memory=8GB").stdout,
                         r"weights: .* in files, .* loaded")

    def test_programs_that_read_differently_are_told_which_flag(self):
        cluster = processes.Cluster(LLAMA, workers=0, coordinator_flags=["--dtype", "bf16"])
        self.addCleanup(cluster.close)
        worker = cluster.start_worker("--model", LLAMA)
        self.assertNotEqual(worker.wait(processes.PATIENCE), 0)
        self.assertRegex(cluster.logs(), "reads its model without --dtype, this coordinator with --dtype bf16")

    def test_a_model_of_the_hubs_cache(self):
        snapshot = self.directory / "models--org--tiny/snapshots/abc"
        shutil.copytree(LLAMA, snapshot)
        done = run("inspect", "org/tiny", "--json", HF_HUB_CACHE=str(self.directory))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["path"], str(snapshot))
        self.assertIn("nor in the hub's cache", run("up", "--model", "org/other", HF_HUB_CACHE=str(self.directory)).stderr)


if __name__ == "__main__":
    unittest.main()
