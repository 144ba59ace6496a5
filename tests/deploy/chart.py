"""The Helm chart, rendered by a real Helm (PyPI's helm-python-sdk)."""

import copy

import helm_python
import yaml

from tests.e2e import processes

CHART = processes.ROOT / "helm" / "bellwether"


def values_of(path):
    return yaml.safe_load(path.read_text())


def merged(below, above):
    """As Helm does with several files of values; None takes a value away."""
    result = copy.deepcopy(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return {key: value for key, value in result.items() if value is not None}


def workloads_of(manifests):
    """The manifests with what the controller of a LeaderWorkerSet makes of one: for each replica a leader, and a StatefulSet of workers."""
    for each in manifests:
        if each["kind"] != "LeaderWorkerSet":
            yield each
            continue
        parts = each["spec"]["leaderWorkerTemplate"]
        for kind, template, replicas in (("Deployment", parts["leaderTemplate"], 1), ("StatefulSet", parts["workerTemplate"], parts["size"] - 1)):
            labels = template["metadata"]["labels"]
            yield {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": f"{each['metadata']['name']}-{kind.lower()}", "labels": labels},
                   "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
                   | ({"serviceName": each["metadata"]["name"]} if kind == "StatefulSet" else {})}


def render(values, path=CHART):
    with helm_python.Chart.load(path) as chart:
        files = chart.render(values, name="bell", namespace="test", is_install=True)
    manifests = []
    for path, text in files.items():
        if path.endswith(".yaml"):
            manifests += [manifest for manifest in yaml.safe_load_all(text) if manifest]
    return manifests, next(text for path, text in files.items() if path.endswith("NOTES.txt"))
