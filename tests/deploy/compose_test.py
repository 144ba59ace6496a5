"""compose.yaml: valid for Compose, what it names is there, and the programs take its command lines. tests/deploy/images_test.py plays it.

Needs PyPI's check-jsonschema and PyYAML (tools/check.sh images installs them into build/); skipped without.
"""

import re
import subprocess
import sys
import unittest

try:
    import check_jsonschema
    import yaml
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

from tests.deploy import compose
from tests.e2e import processes

VARIABLES = {"MODELS": "/srv/models", "MODEL": "belle-7b"}
PROGRAMS = {"coordinator": "bellwether-coordinator", "worker-0": "bellwether-worker", "worker-1": "bellwether-worker"}


class Compose(unittest.TestCase):
    def test_the_file_is_valid(self):
        said = subprocess.run([sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", compose.FILE],
                              capture_output=True, text=True, timeout=processes.PATIENCE)
        self.assertEqual(said.returncode, 0, said.stdout + said.stderr)

    def test_what_must_be_said_is_asked_for(self):
        for name in VARIABLES:
            with self.assertRaisesRegex(KeyError, name):
                compose.services({other: "x" for other in VARIABLES if other != name})

    def test_what_is_named_is_there(self):
        whole = yaml.safe_load(compose.FILE.read_text())
        dockerfile = None
        for name, service in compose.services(VARIABLES).items():
            for volume in service["volumes"]:
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue((compose.FOLDER / source).exists(), f"{name}: {source}")
                elif not source.startswith("/"):
                    self.assertIn(source, whole["volumes"], name)
            if "build" in service:
                root = compose.FOLDER / service["build"]["context"]
                dockerfile = (root / service["build"]["dockerfile"]).read_text()
                self.assertRegex(dockerfile, rf"(?m)^FROM \w+ AS {service['build']['target']}$")
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), f"{name}: all is in clear, and {port} is for the whole network")
        self.assertIsNotNone(dockerfile)

    def test_programs_take_their_command_lines(self):
        services = compose.services(VARIABLES)
        self.assertLessEqual(PROGRAMS.keys(), services.keys())
        for name, program in PROGRAMS.items():
            done = subprocess.run([processes.BIN / program, *services[name]["command"], "--print-config"], capture_output=True,
                                  text=True, timeout=processes.PATIENCE, env=services[name].get("environment", {}))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("model = /models/belle-7b\n", done.stdout)

    def test_prometheus_is_the_one_of_monitoring(self):
        """Its settings know no variables, so they are there twice."""
        ours = yaml.safe_load((compose.FOLDER / "prometheus.yml").read_text())
        theirs = yaml.safe_load((processes.ROOT / "monitoring/prometheus.yml").read_text().replace("127.0.0.1", "coordinator"))
        self.assertEqual(ours, theirs)

    def test_grafana_is_told_all_that_its_settings_ask_for(self):
        said = compose.services(VARIABLES)["grafana"]["environment"]
        asked = {word for path in (processes.ROOT / "monitoring/grafana/provisioning").rglob("*.yml")
                 for word in re.findall(r"\$\{(\w+)\}", path.read_text())}
        self.assertEqual(asked, {name for name in said if name.startswith("BELLWETHER_")})


if __name__ == "__main__":
    unittest.main()
