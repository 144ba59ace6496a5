#!/usr/bin/env python3
"""House rules as a test: who may include whom, what numeric code may not call, sizes that may only shrink.

Usage: tidy.py ROOT BUILD_DIR. Prints one line a violation, with what to do about it, and fails if there is one.
docs/architecture.md explains the rules; tests/tidy/ratchet.txt lists the old excess that is still allowed.
"""

import json
import pathlib
import re
import subprocess
import sys

# Room -> rooms it may include, besides itself.
ROOMS = {
    "common": set(),
    "http": {"common"},
    "metrics": {"common"},
    "kernels": {"common"},
    "model": {"common"},
    "proto": {"common", "model"},
    "worker": {"kernels", "model", "common"},
    "coordinator": {"model", "common"},
    "cli": {"worker", "kernels", "model", "common", "proto", "coordinator"},
}
# Files in which gRPC and generated types may appear; everywhere else our own structs rule.
EDGES = re.compile(
    r"^(proto/.*|coordinator/(\w*_service|\w*_server|\w*_client|worker_stream|worker_messages|main)\.(h|cc)|coordinator/.*_test\.cc|coordinator/testing/.*"
    r"|worker/(session\w*|main)\.(h|cc)|worker/link/grpc\w*\.(h|cc)|worker/link/\w*_test\.cc|worker/session\w*_test\.cc"
    r"|cli/\w*client\w*\.(h|cc)|tests/.*|examples/.*)$")
# Files that may know Prometheus: what makes the numbers does not.
METRICS_EDGES = re.compile(
    r"^(metrics/.*|coordinator/(coordinator_metrics|request_metrics|coordinator_server|main)\w*\.(h|cc)"
    r"|worker/(worker_metrics|worker_server|main)\w*\.(h|cc)|tests/.*)$")
# Likewise HTTP.
HTTP_EDGES = re.compile(r"^((coordinator|worker)/(http_\w*|\w*_server|main)\.(h|cc)|coordinator/.*_test\.cc|worker/.*_test\.cc|tests/.*)$")
AT_EDGES = {"proto": EDGES, "http": HTTP_EDGES, "metrics": METRICS_EDGES}
EDGE_INCLUDE = re.compile(r'^#include [<"](grpc|proto/|google/protobuf)')
# What the tool may use of the coordinator's insides: the pure planner, for `plan`.
CLI_COORDINATOR = {"coordinator/planner.h"}
# And of the worker's: what a process may use of its machine, and the files that workers leave on it.
CLI_WORKER = {"worker/inventory.h", "worker/weights/drive_rate.h", "worker/weights/shard_cache.h"}

LIBM = re.compile(
    r"(?<![\w.>:])(?:std::|__builtin_|::)?"
    r"(exp|expf|exp2|exp2f|expm1|pow|powf|log|logf|log2|log2f|log10|log1p|sin|sinf|cos|cosf|tan|tanf|tanh|tanhf|sinh|cosh|"
    r"erf|erff|fma|fmaf|atan2|cbrt|hypot)\(")
NUMERIC_ROOMS = ("common", "kernels", "model", "worker")
# Peaks and benches measure; they compute nothing that a model sees.
BANNED = [
    (re.compile(r"\b(steady_clock|system_clock|high_resolution_clock)\b"), "read the time through common/clock.h",
     {"common/clock.cc", "kernels/peaks.cc"}),
    (re.compile(r"\b(sleep_for|sleep_until|usleep|nanosleep|absl::SleepFor)\b"),
     "wait for an event, not for time", set()),
    (re.compile(r"\b(AwaitWithTimeout|AwaitWithDeadline|WaitWithTimeout|WaitWithDeadline|LockWhenWithTimeout|wait_until)\b|"
                r"WaitForNotificationWith"),
     "a timed wait follows the monotonic clock: common/mutex.h", set()),
    (re.compile(r"\bgetenv\("), "settings come through common/config", {"common/config.cc"}),
    (re.compile(r"\bstd::(cout|printf|puts)\b|\bf(puts|printf)\((.*, *)?stdout\b"),
     "what cannot be written is an error: common/output.h", set()),
    (re.compile(r"\bCreate(Custom)?Channel\("), "it may go through a proxy: proto/grpc_channel.h", {"proto/grpc_channel.h"}),
    (re.compile(r"\b(srand|rand|random_device)\b\(?"), "randomness is common/random.h", set()),
    (re.compile(r"\bstd::(recursive_|timed_|shared_)?mutex\b|\bstd::condition_variable"), "clang checks what common/mutex.h guards",
     # The emulator, which stands for a compiler of others.
     {"kernels/gpu/emulate.cc", "kernels/gpu/emulated_memory.h", "kernels/gpu/emulated_memory.cc"}),
    (re.compile(r"\bCLI::Range\((?=[^)]*(\d\.|\de[-+]?\d|[dD]ouble))|\bCLI::(Positive|NonNegative)Number\b|\bCLI::Number\b"),
     "takes NaN too: FloatRange of common/program_flags.h", set()),
    (re.compile(r"\b(TODO|FIXME|XXX)\b"), "finish it, or file an issue", set()),
    (re.compile(r"(?<!\w)throw\b"), "return absl::Status", set()),
    (re.compile(r"(?<![\w:.>])(?:std::)?(exit|abort|_exit|quick_exit)\("), "a library never ends the process",
     # In a forked child that cannot return; at the user's second ^C; in what std::terminate calls.
     {"common/check.h", "common/memory.cc", "cli/child_process.cc", "cli/scratch_directory.cc", "cli/stop.cc"}),
]
# Each has an overload without an error_code that throws, as has the increment that a range-for makes.
FILESYSTEM = re.compile(
    r"(?:\b(?:std::filesystem|fs)::(?:absolute|canonical|weakly_canonical|copy\w*|create_\w+|current_path|equivalent|exists|file_size|"
    r"hard_link_count|is_\w+|last_write_time|permissions|proximate|relative|read_symlink|remove|remove_all|rename|resize_file|space|"
    r"status|symlink_status|temp_directory_path|(?:recursive_)?directory_iterator(?:\s+\w+)?)"
    r"|\bentry(?:\.|->)(?:exists|file_size|hard_link_count|is_\w+|last_write_time|refresh|replace_filename|status|symlink_status|increment))"
    r"\(")
FILESYSTEM_LOOP = re.compile(r"\bfor \([^;{}]*\s:\s[^;{}]*directory_iterator")
FUNCTION_LINES, KERNEL_LINES, FILE_LINES, PARAMETERS = 70, 120, 600, 6

violations = []
found_sizes = {}


def complain(path, line, message):
    violations.append(f"{path}:{line}: {message}")


def strip_comments(text):
    """Comments and string literals become blanks, so that words in them break no rule; lines stay."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)


def check_includes(path, text):
    room = path.split("/")[0]
    is_test = re.search(r"_(test|bench|fuzz)\.cc$", path) or path.startswith("tests/")
    for number, line in enumerate(text.splitlines(), 1):
        if "nlohmann" in line and line.startswith("#include") and not is_test:
            complain(path, number, "JSON is read and written by common/json.h alone; what it cannot read is a Status")
        if re.match(r'#include [<"]boost/', line) and room != "http":
            complain(path, number, "Boost is behind http/ (docs/architecture.md)")
        if re.match(r'#include [<"]prometheus/', line) and room != "metrics":
            complain(path, number, "prometheus-cpp is known to metrics/ alone")
        if EDGE_INCLUDE.match(line) and not EDGES.match(path):
            if not re.match(r'#include "proto/\w+\.h"', line) or room not in ("worker", "coordinator"):
                complain(path, number, "gRPC and generated types stop at the edges (docs/architecture.md)")
        match = re.match(r'#include "(\w+)/([^"]+)"', line)
        if not match or room not in ROOMS:
            continue
        target, rest = match.groups()
        if target == room or target not in ROOMS or target in ROOMS[room]:
            allowed = True
            if room == "cli" and target == "coordinator":
                allowed = f"{target}/{rest}" in CLI_COORDINATOR
            if room == "cli" and target == "worker":
                allowed = f"{target}/{rest}" in CLI_WORKER
        else:
            allowed = target in AT_EDGES and AT_EDGES[target].match(path)
        if not allowed:
            complain(path, number, f"{room}/ may not include {target}/{rest}")


def check_words(path, code):
    is_test = re.search(r"_(test|bench|fuzz)\.cc$", path) or path.startswith("tests/") or "/testing/" in path
    for number, line in enumerate(code.splitlines(), 1):
        if path.split("/")[0] in NUMERIC_ROOMS and not is_test and (match := LIBM.search(line)):
            complain(path, number, f"{match.group(1)}() of libm differs between machines: use common/exact_math.h")
        if path.endswith(".h") and not path.startswith(("kernels/cpu/", "kernels/gpu/simt")) and re.match(r"\s*#\s*if(n?def)?\b", line):
            complain(path, number, "no conditional compilation in headers: an absent backend is a file")
        for pattern, advice, exempt in BANNED:
            if is_test and ("getenv" in pattern.pattern or "exit" in pattern.pattern):
                continue
            if (is_test or path.startswith("examples/")) and "stdout" in pattern.pattern:
                continue
            if path.startswith("examples/") and "Channel" in pattern.pattern:
                continue  # as other projects would write it
            if "steady_clock" in pattern.pattern and EDGES.match(path):
                continue  # gRPC wants deadlines as system_clock times
            if path not in exempt and pattern.search(line) and not (path.endswith("main.cc") and "exit" in pattern.pattern):
                complain(path, number, f"{pattern.search(line).group(0).strip()}: {advice}")


def check_filesystem(path, code):
    """Of the file system's calls the last argument is a std::error_code; an iterator made of nothing is the end."""
    names = set(re.findall(r"std::error_code ([\w, ]+);", code))
    names = {name for several in names for name in several.split(", ")}
    for match in FILESYSTEM.finditer(code):
        depth, end = 1, match.end()
        while depth > 0 and end < len(code):
            depth += {"(": 1, ")": -1}.get(code[end], 0)
            end += 1
        arguments = code[match.end():end - 1]
        last = arguments.rsplit(",", 1)[-1].strip()
        if last not in names and not (arguments == "" and "directory_iterator" in match.group(0)):
            complain(path, code.count("\n", 0, match.start()) + 1, f"{match.group(0)}: may throw: give it a std::error_code")
    for match in FILESYSTEM_LOOP.finditer(code):
        complain(path, code.count("\n", 0, match.start()) + 1, "a directory's ++ may throw: iterate with increment(error)")


def functions(code):
    """(name, first line, lines, parameters) of function definitions, by the layout that clang-format gives."""
    lines = code.splitlines()
    for indent in ("", "  "):
        start = None
        for i, line in enumerate(lines):
            if re.match(rf"^{indent}[A-Za-z_~\[]", line) and not re.match(rf"^{indent}(namespace|public|private|protected)\b", line):
                if start is None or not line.startswith(indent + "}"):
                    start = i
            if line.startswith(indent + "}") and start is not None:
                head = " ".join(lines[start:i + 1])
                head = head.split("{")[0]
                name = re.search(r"([\w:~]+)\s*\(", head)
                if name and not re.match(r"\s*(class|struct|enum|union|using|template <[^>]*> (class|struct)|constexpr \w+ \w+\[|const \w+ \w+\[)", head):
                    yield name.group(1), start + 1, i - start + 1, count_parameters(head)
                start = None


def count_parameters(head):
    begin = head.find("(")
    depth, commas, content = 0, 0, ""
    for char in head[begin:]:
        if char in "(<[{":
            depth += 1
        elif char in ")>]}":
            depth -= 1
            if depth == 0:
                break
        elif char == "," and depth == 1:
            commas += 1
        content += char
    return commas + 1 if content.strip("( ") else 0


def check_sizes(path, text, code):
    if path.startswith("tests/goldens"):
        return
    length = text.count("\n")
    if length > FILE_LINES:
        found_sizes[path] = length
    if re.search(r"_(test|bench|fuzz)\.cc$", path):
        return
    limit = KERNEL_LINES if path.startswith("kernels/") else FUNCTION_LINES
    for name, line, lines, parameters in functions(code):
        if lines > limit:
            found_sizes[f"{path}:{name}"] = max(lines, found_sizes.get(f"{path}:{name}", 0))
        if parameters > PARAMETERS and not path.startswith("kernels/"):
            found_sizes[f"{path}:{name}()"] = max(parameters, found_sizes.get(f"{path}:{name}()", 0))


def check_ratchet(root):
    allowed = {}
    for line in (root / "tests/tidy/ratchet.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            key, value = line.split()
            allowed[key] = int(value)
    for key, size in sorted(found_sizes.items()):
        if size > allowed.get(key, 0):
            what = "parameters" if key.endswith("()") else "lines"
            complain(key, size, f"{size} {what}: too many (function {FUNCTION_LINES} lines, in kernels {KERNEL_LINES}, "
                                f"file {FILE_LINES}, {PARAMETERS} parameters)")
    for key in sorted(allowed):
        if found_sizes.get(key, 0) < allowed[key]:
            complain("tests/tidy/ratchet.txt", 0, f"{key} has shrunk to {found_sizes.get(key, 'its limit')}: lower the ratchet")


def check_registered(root, build, files):
    listing = subprocess.run(["ctest", "--show-only=json-v1"], cwd=build, capture_output=True, text=True, check=True)
    names = {test["name"] for test in json.loads(listing.stdout)["tests"]}
    for path in files:
        if path.endswith(("_test.cc", "_test.py")) and path.rsplit(".", 1)[0] not in names:
            complain(path, 1, "no such test in ctest: register it")


def check_goldens(root, files, sources):
    everything = "\n".join(text for path, text in sources.items() if not path.startswith("tools/"))  # they make them
    for entry in sorted((root / "tests/goldens").glob("*/*")):
        kind = entry.parent.name
        enumerated = f'GoldenPath("{kind}")' in everything or f'goldens/{kind}"' in everything
        if not enumerated and entry.name not in everything and entry.stem not in everything:
            complain(entry.relative_to(root), 1, "no test names this golden")


def check_compile_flags(root, build):
    for command in json.loads((build / "compile_commands.json").read_text()):
        if "/generated/" in command["file"]:
            continue
        flags = command["command"]
        if "-ffp-contract=off" not in flags or re.search(r"(?<!-fno)-f?fast-math|-march=", flags):
            complain(command["file"], 1, "compiled with contraction, fast-math or -march")


def main():
    root, build = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True, text=True)
    files = [f for f in listed.stdout.split() if (root / f).is_file()]
    if not files:  # a source archive without git
        files = [str(f.relative_to(root)) for f in root.rglob("*") if f.is_file() and "build" not in f.parts]
    sources = {}
    for path in files:
        if path.endswith((".cc", ".h", ".py")):
            sources[path] = (root / path).read_text()
    for path, text in sources.items():
        if path.endswith(".py"):
            continue
        code = strip_comments(text)
        check_includes(path, text)
        check_words(path, code)
        if not re.search(r"_(test|bench|fuzz)\.cc$", path) and not path.startswith("tests/"):
            check_filesystem(path, code)
        check_sizes(path, text, code)
    check_ratchet(root)
    check_registered(root, build, files)
    check_goldens(root, files, {k: v for k, v in sources.items() if "tidy" not in k})
    check_compile_flags(root, build)
    for violation in violations:
        print(violation)
    print(f"tidy: {len(sources)} files, {len(violations)} violations")
    return 1 if violations else 0


sys.exit(main())
