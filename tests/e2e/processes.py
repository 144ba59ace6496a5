"""A coordinator and workers as real processes, for the tests in Python. Standard library alone."""

import array
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import time
import urllib.request
import warnings

BIN = pathlib.Path(os.environ["BELLWETHER_BIN"])
PATIENCE = 120  # seconds: the longest wait for what must happen but has no time of its own
ROOT = pathlib.Path(__file__).resolve().parents[2]

# Runs the program that follows, with the standard descriptors closed whose numbers come first: WITH_CLOSED, "0 2", program ...
WITH_CLOSED = ("sh", "-c", 'for fd in $1; do eval "exec $fd>&-"; done; shift; exec "$@"', "sh")


def write_tiny_checkpoint(directory, layers=1, positions=2048):
    """A LLaMA of random fp32 weights with a real tokenizer and the ChatML template, as a Hugging Face directory."""
    hidden, heads, ffn, vocab = 32, 2, 44, 420
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    layer = {"input_layernorm": (hidden,), "post_attention_layernorm": (hidden,), "mlp.gate_proj": (ffn, hidden),
             "mlp.up_proj": (ffn, hidden), "mlp.down_proj": (hidden, ffn)}
    layer |= {f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"}
    shapes |= {f"model.layers.{i}.{name}.weight": shape for i in range(layers) for name, shape in layer.items()}
    numbers, header, body = random.Random(7), {}, array.array("f")
    for name, shape in shapes.items():
        begin = 4 * len(body)
        center = 1 if len(shape) == 1 else 0
        body.extend(center + numbers.uniform(-0.3, 0.3) for _ in range(shape[0] * (shape[1] if len(shape) > 1 else 1)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, 4 * len(body)]}
    text = json.dumps(header).encode()
    directory = pathlib.Path(directory)
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body.tobytes())
    (directory / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": hidden,
        "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads,
        "max_position_embeddings": positions, "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "bos_token_id": 1,
        "eos_token_id": 2, "vocab_size": vocab}))
    golden = ROOT / "tests/goldens/tokenizer/smollm"
    shutil.copy(golden / "tokenizer.json", directory)
    config = json.loads((golden / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "<|im_start|>"}))


def has_sanitizers():
    return any(name in (BIN / "bellwether-worker").read_bytes() for name in (b"__asan_init", b"__tsan_init"))


def make_certificates(directory, *names, days=365):
    subprocess.run([ROOT / "tools/make_certificates.sh", directory, *names], check=True,
                   env={"PATH": "/usr/bin:/bin", "DAYS": str(days)})


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def takes_protocol(address, newest):
    """Whether a TLS listener shakes hands with who knows no newer protocol than that, an ssl.TLSVersion."""
    warnings.simplefilter("ignore", DeprecationWarning)  # that is the point
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, newest
    host, _, port = address.rpartition(":")
    with contextlib.closing(socket.create_connection((host, int(port)), PATIENCE)) as connection:
        try:
            old.wrap_socket(connection).close()
        except (ssl.SSLError, ConnectionError):
            return False
    return True


class Cluster:
    """Serves `model` until closed. `address` is where clients connect; serving begins when a worker is ready."""

    def __init__(self, model, workers=1, coordinator_flags=(), worker_flags=(), tensor_parallel=None, closed=""):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="bellwether-test."))
        self.processes = []
        self.closed = closed  # standard descriptors of its programs, as WITH_CLOSED takes them
        ports = self.directory / "ports"
        coordinator = self._start(
            "bellwether-coordinator", "--model", model, "--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0",
            "--http-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--port-file", ports,
            "--workers", max(workers, 1), "--tensor-parallel", tensor_parallel or workers, *coordinator_flags)
        addresses = {}
        end = time.monotonic() + PATIENCE
        while not {"client", "worker", "http"} <= addresses.keys():
            if coordinator.poll() is not None or time.monotonic() > end:
                raise RuntimeError("no coordinator:\n" + self.logs())
            if ports.exists():
                addresses = self.addresses = dict(line.split() for line in ports.read_text().splitlines())
        self.address, self.worker_address, self.http_address = (addresses[name] for name in ("client", "worker", "http"))
        for i in range(workers):
            self.start_worker("--model", model, "--name", f"sheep-{i}", *worker_flags)

    def start_worker(self, *arguments):
        return self._start("bellwether-worker", "--coordinator", self.worker_address, "--metrics-listen", "127.0.0.1:0",
                           "--threads", 1, *arguments)

    def _start(self, program, *arguments):
        with open(self.directory / f"{program}-{len(self.processes)}.log", "wb") as log:
            process = subprocess.Popen([*WITH_CLOSED, self.closed, BIN / program, *map(str, arguments)], stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def logs(self):
        return "\n".join(f"-- {path.name}\n{path.read_text(errors='replace')}" for path in sorted(self.directory.glob("*.log")))

    def metric(self, name, **labels):
        """The sum of the coordinator's series with such labels."""
        with urllib.request.urlopen(f"http://{self.addresses['metrics']}/metrics", timeout=PATIENCE) as answer:
            series = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", answer.read().decode(), re.MULTILINE)
        return sum(float(value) for has, value in series if all(f'{label}="{text}"' in has for label, text in labels.items()))

    def close(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        shutil.rmtree(self.directory)
