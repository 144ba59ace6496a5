"""What BELLE published, as sparse files of the right names, types and shapes: they open, and have the sizes that were told.

No weights are needed: a file of zeros without blocks on disk has the same listing as the real one.
"""

import json
import os
import pathlib
import resource
import struct
import subprocess
import tempfile
import unittest
import zipfile

from tests.e2e import processes

GIB = 1 << 30
PROCESSOR_SECONDS = 5  # many times what any of these takes
BYTES = {"Float": 4, "Half": 2, "Int": 4}

BLOOM_7B = {"model_type": "bloom", "architectures": ["BloomForCausalLM"], "n_layer": 30, "n_head": 32, "n_embed": 4096,
            "vocab_size": 250880, "layer_norm_epsilon": 1e-5, "bos_token_id": 1, "eos_token_id": 2}
LLAMA_7B = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 11008,
            "num_hidden_layers": 32, "num_attention_heads": 32, "rms_norm_eps": 1e-6, "vocab_size": 32000}
# As BELLE published it: without positions, KV heads and RoPE's base (encrypted_file_test has its bytes and their hash).
LLAMA_13B = LLAMA_7B | {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}


def text(value):
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value):
    return b"\x8a" + bytes([8]) + struct.pack("<q", value)


def state_dict(tensors, storages):
    """The pickle of an OrderedDict of tensors, by hand: name -> (type, shape), two names may share a storage."""
    out = b"\x80\x02ccollections\nOrderedDict\n)R("
    for name, (kind, shape) in tensors.items():
        strides = [1]
        for size in reversed(shape[1:]):
            strides.insert(0, strides[0] * size)
        count = shape[0] * strides[0]
        out += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage")
        out += b"ctorch\n" + kind.encode() + b"Storage\n" + text(storages[name]) + text("cpu") + integer(count) + b"tQ"
        out += integer(0) + b"(" + b"".join(map(integer, shape)) + b"t(" + b"".join(map(integer, strides)) + b"t\x89"
        out += b"ccollections\nOrderedDict\n)RtR"
    return out + b"u."


def write_torch_zip(path, tensors, shared=None):
    """As torch.save writes them, 64 bytes aligned, with holes where the values would be."""
    shared = shared or {}
    storages = {name: str(number) for number, name in enumerate(tensors)}
    storages |= {name: storages[other] for name, other in shared.items()}
    kept = {storages[name]: name for name in tensors if name not in shared}
    entries = [("archive/data.pkl", state_dict(tensors, storages), None), ("archive/version", b"3\n", None)]
    for number, name in kept.items():
        kind, shape = tensors[name]
        size = BYTES[kind]
        for extent in shape:
            size *= extent
        entries.append((f"archive/data/{number}", b"", size))
    directory = b""
    with open(path, "wb") as file:
        for name, data, size in entries:
            place, size = file.tell(), len(data) if size is None else size
            padding = -(place + 30 + len(name) + 4) % 64
            file.write(struct.pack("<IHHHHHIIIHH", 0x04034B50, 0, 0, 0, 0, 0, 0, 0, 0, len(name), 4 + padding))
            file.write(name.encode() + b"FB" + struct.pack("<H", padding) + b"Z" * padding + data)
            file.seek(size - len(data), os.SEEK_CUR)
            extra = struct.pack("<HHQQQ", 1, 24, size, size, place)
            directory += struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 0, 0, 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, len(name),
                                     len(extra), 0, 0, 0, 0, 0xFFFFFFFF) + name.encode() + extra
        begin = file.tell()
        file.write(directory)
        record = file.tell()
        file.write(struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 0, 0, 0, 0, len(entries), len(entries), len(directory), begin))
        file.write(struct.pack("<IIQI", 0x07064B50, 0, record, 1))
        file.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))


def quantised(name, inputs, outputs, bits, group=128):
    """A Linear as BELLE's GPTQ scripts pack it."""
    groups = inputs // group
    return {f"{name}.qweight": ("Int", (inputs // 32 * bits, outputs)), f"{name}.qzeros": ("Int", (groups, outputs // 32 * bits)),
            f"{name}.scales": ("Float", (groups, outputs)), f"{name}.bias": ("Float", (outputs,))}


def plain(name, inputs, outputs, kind, bias):
    return {f"{name}.weight": (kind, (outputs, inputs))} | ({f"{name}.bias": (kind, (outputs,))} if bias else {})


def norm(name, hidden, kind, bias):
    return {f"{name}.weight": (kind, (hidden,))} | ({f"{name}.bias": (kind, (hidden,))} if bias else {})


def bloom(layers, hidden, vocab, linear):
    tensors = {"transformer.word_embeddings.weight": ("Float", (vocab, hidden))}
    tensors |= norm("transformer.word_embeddings_layernorm", hidden, "Float", True)
    for i in range(layers):
        layer = f"transformer.h.{i}"
        tensors |= norm(f"{layer}.input_layernorm", hidden, "Float", True)
        tensors |= linear(f"{layer}.self_attention.query_key_value", hidden, 3 * hidden)
        tensors |= linear(f"{layer}.self_attention.dense", hidden, hidden)
        tensors |= norm(f"{layer}.post_attention_layernorm", hidden, "Float", True)
        tensors |= linear(f"{layer}.mlp.dense_h_to_4h", hidden, 4 * hidden)
        tensors |= linear(f"{layer}.mlp.dense_4h_to_h", 4 * hidden, hidden)
    tensors |= norm("transformer.ln_f", hidden, "Float", True)
    return tensors | {"lm_head.weight": ("Float", (vocab, hidden))}


def llama(layers, hidden, ffn, vocab, kind, linear):
    tensors = {"model.embed_tokens.weight": (kind, (vocab, hidden))}
    for i in range(layers):
        layer = f"model.layers.{i}"
        for name in "qkvo":
            tensors |= linear(f"{layer}.self_attn.{name}_proj", hidden, hidden)
        tensors |= linear(f"{layer}.mlp.gate_proj", hidden, ffn) | linear(f"{layer}.mlp.up_proj", hidden, ffn)
        tensors |= linear(f"{layer}.mlp.down_proj", ffn, hidden)
        tensors |= norm(f"{layer}.input_layernorm", hidden, kind, False)
        tensors |= norm(f"{layer}.post_attention_layernorm", hidden, kind, False)
    return tensors | norm("model.norm", hidden, kind, False) | {"lm_head.weight": (kind, (vocab, hidden))}


def write_shards(directory, tensors, shard_bytes=10 ** 10):
    """As save_pretrained shards them, by default at 10 GB."""
    shards, filled = [{}], 0
    for name, (kind, shape) in tensors.items():
        size = BYTES[kind]
        for extent in shape:
            size *= extent
        if filled + size > shard_bytes and shards[-1]:
            shards.append({})
            filled = 0
        shards[-1][name] = (kind, shape)
        filled += size
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"pytorch_model-{number:05}-of-{len(shards):05}.bin"
        write_torch_zip(directory / file, shard)
        weight_map |= {name: file for name in shard}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return len(shards)


def processor_seconds():
    """Of the children so far, the kernel's apart: however busy the machine is, and whatever a page of a sparse file costs it."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


class Published(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.path = pathlib.Path(scratch.name)

    def run_tool(self, *arguments):
        """The JSON that it prints, in no more than 200 MB of memory and time of a processor that no reading would be done in."""
        command = [processes.BIN / "bellwether", *map(str, arguments), "--json"]
        limit = 200 << 20

        def limit_data():
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

        sanitized = processes.has_sanitizers()  # then neither memory nor time are the tool's own
        before = processor_seconds()
        done = subprocess.run(command, capture_output=True, text=True, timeout=processes.PATIENCE,
                              preexec_fn=None if sanitized else limit_data)
        self.assertEqual(done.returncode, 0, done.stderr)
        if not sanitized:
            self.assertLess(processor_seconds() - before, PROCESSOR_SECONDS)
        return json.loads(done.stdout)

    def write_config(self, config):
        (self.path / "config.json").write_text(json.dumps(config))

    def test_gptq_files_have_the_sizes_that_belle_told(self):
        # What `du -h` shows, rounded up; models/gptq/README.md of BELLE.
        for config, bits, told in ((BLOOM_7B, 8, "9.7"), (BLOOM_7B, 4, "6.9"), (LLAMA_7B, 8, "6.8"), (LLAMA_7B, 4, "3.8")):
            family = config["model_type"]
            with self.subTest(family=family, bits=bits):
                self.write_config(config)

                def linear(name, inputs, outputs):
                    return quantised(name, inputs, outputs, bits)

                file = self.path / f"{family}7b-2m-{bits}bit-128g.pt"
                if family == "bloom":
                    write_torch_zip(file, bloom(30, 4096, 250880, linear),
                                    {"lm_head.weight": "transformer.word_embeddings.weight"})
                else:
                    write_torch_zip(file, llama(32, 4096, 11008, 32000, "Half", linear))
                size = file.stat().st_size
                self.assertEqual(f"{-(-size * 10 // GIB) / 10:.1f}", told)
                self.assertLess(file.stat().st_blocks * 512, 64 << 20, "the file is sparse")
                listing = self.run_tool("inspect", file)
                self.assertTrue(any(f"int{bits} group 128" in name for name in listing["formats"]), listing["formats"])
                self.assertLess(abs(listing["stored_bytes"] - size), 8 << 20,
                                "but for the pickle, the directory, and LLaMA's biases, which are zeros and not kept")

    def test_float_checkpoints_open_and_are_planned_without_being_read(self):
        def bloom_linear(name, inputs, outputs):
            return plain(name, inputs, outputs, "Float", True)

        def llama_linear(name, inputs, outputs):
            return plain(name, inputs, outputs, "Float", False)

        self.write_config(BLOOM_7B)
        tensors = bloom(30, 4096, 250880, bloom_linear)
        del tensors["lm_head.weight"]
        self.assertEqual(write_shards(self.path, tensors), 3)
        self.check_float(27, 7_069_016_064)
        for file in self.path.iterdir():
            file.unlink()
        self.write_config(LLAMA_13B)
        self.assertEqual(write_shards(self.path, llama(40, 5120, 13824, 32000, "Float", llama_linear)), 6)
        self.check_float(49, 13_015_864_320)

    def refuse(self, arguments, reason):
        """With this reason, in little time and less than 256 MB."""
        with subprocess.Popen([processes.BIN / "bellwether", *map(str, arguments)], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True) as tool:
            output = tool.stdout.read()
            _, status, used = os.wait4(tool.pid, 0)
            tool.returncode = os.waitstatus_to_exitcode(status)
        self.assertNotIn(tool.returncode, (0, None), output)
        self.assertIn(reason, output)
        self.assertLess(used.ru_maxrss, 256 << 10)  # KiB
        self.assertLess(used.ru_utime, PROCESSOR_SECONDS)

    def test_a_million_names_are_refused_before_they_take_memory(self):
        # Written in pieces: a process begins with the peak of the one that starts it.
        self.write_config(LLAMA_7B)
        reason = "more than 131072 tensors"
        thousands = range(0, 10 ** 6, 1000)
        # One tensor, remembered and named a million times in 14 MB.
        file = self.path / "pytorch_model.bin"
        with zipfile.ZipFile(file, "w") as archive:
            with archive.open("archive/data.pkl", "w") as entry:
                entry.write(state_dict({"a": ("Float", (1,))}, {"a": "0"})[:-2] + b"q\x01")
                for first in thousands:
                    entry.write(b"".join(b"X\x07\0\0\0%07dh\x01" % (first + i) for i in range(1000)))
                entry.write(b"u.")
            archive.writestr("archive/data/0", bytes(4))
        self.refuse(["inspect", self.path], reason)
        file.unlink()
        entry = '"%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
        with open(self.path / "model.safetensors", "wb") as file:
            size = 10 ** 6 * (len(entry % 0) + 1) + 1
            file.write(struct.pack("<Q", size) + b"{")
            for first in thousands:
                file.write(",".join(entry % (first + i) for i in range(1000)).encode() + (b"," if first < thousands[-1] else b"}"))
        self.assertEqual((self.path / "model.safetensors").stat().st_size, 8 + size)
        self.refuse(["inspect", self.path], reason)

    def check_float(self, gib, parameters):
        listing = self.run_tool("inspect", self.path)
        self.assertEqual(listing["parameters"], parameters)
        self.assertEqual(-(-listing["stored_bytes"] // GIB), gib)
        self.assertEqual(listing["loaded_bytes"], self.loaded("auto"))
        self.assertLess(self.loaded("fp16"), 0.52 * self.loaded("auto"), "as everybody ran them")

    def loaded(self, dtype):
        plan = self.run_tool("plan", "--model", self.path, "--dtype", dtype, "--worker",
                             "name=a,host=h,memory=128GB,threads=8,bandwidth=40GB/s")
        return plan["loaded_bytes"]


if __name__ == "__main__":
    unittest.main()
