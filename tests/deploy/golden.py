"""What the chart's own values files render to, committed, so that a change of a template shows in review.

`python -m tests.deploy.golden` rewrites golden/*.yaml. It does not rewrite what is in kept.yaml already: what an upgrade cannot change.
A release that must change it is a release that has to be installed anew, and says so: whoever makes it edits that file by hand.
"""

import pathlib

import yaml

from tests.deploy.chart import CHART, merged, render, values_of

GOLDEN = pathlib.Path(__file__).parent / "golden"
KEPT = GOLDEN / "kept.yaml"
BASE = "values.yaml"
WIDTH = 110  # of what is written on one line, so that a changed flag is a changed line
# Of a StatefulSet's spec Kubernetes changes these and no others.
CHANGEABLE = {"replicas", "ordinals", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
              "revisionHistoryLimit"}


class Dumper(yaml.SafeDumper):
    """Small collections on one line, large ones with a line an entry."""

    def represent_sequence(self, tag, sequence, flow_style=None):
        return super().represent_sequence(tag, sequence, self.fits(sequence))

    def represent_mapping(self, tag, mapping, flow_style=None):
        return super().represent_mapping(tag, mapping, self.fits(mapping))

    def ignore_aliases(self, data):
        return True

    @staticmethod
    def fits(collection):
        values = collection.values() if isinstance(collection, dict) else collection
        return len(str(collection)) < WIDTH and not any(isinstance(each, (dict, list)) and len(each) > 1 for each in values)


def name_of(manifest):
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def golden_text(manifests, base):
    """The manifests but for those that are in `base` too."""
    return "".join(f"---\n{yaml.dump(each, Dumper=Dumper, sort_keys=False, width=10000)}" for each in manifests if each not in base)


def kept(manifests):
    """What an upgrade cannot change, or would lose pods by: names of workloads and Services, and their immutable fields."""
    def fields(manifest):
        spec = manifest["spec"]
        if manifest["kind"] == "StatefulSet":
            return {name: value for name, value in spec.items() if name not in CHANGEABLE}
        if manifest["kind"] == "LeaderWorkerSet":
            return {"networkConfig": spec["networkConfig"]}
        if manifest["kind"] == "Deployment":
            return {"selector": spec["selector"]}
        return {"clusterIP": spec.get("clusterIP", "any"), "selector": spec["selector"]}
    return {name_of(each): fields(each) for each in manifests if each["kind"] in ("Deployment", "StatefulSet", "LeaderWorkerSet", "Service")}


def main():
    defaults = values_of(CHART / BASE)
    rendered = {path.name: render(merged(defaults, values_of(path)))[0] for path in sorted(CHART.glob("values*.yaml"))}
    GOLDEN.mkdir(exist_ok=True)
    for name, manifests in rendered.items():
        (GOLDEN / name).write_text(golden_text(manifests, [] if name == BASE else rendered[BASE]))
    before = yaml.safe_load(KEPT.read_text()) if KEPT.exists() else {}
    KEPT.write_text(yaml.dump({name: kept(manifests) for name, manifests in rendered.items()} | before, Dumper=Dumper, width=10000))


if __name__ == "__main__":
    main()
