"""What monitoring/ asks Prometheus for, and what there is to ask for. Standard library alone."""

import dataclasses
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
MONITORING = ROOT / "monitoring"
DASHBOARDS = sorted((MONITORING / "grafana/dashboards").glob("*.json"))
# What Prometheus adds to every series.
TARGET_LABELS = {"job", "instance"}
# Labels that are left of a recorded series, by its level, the first part of its name.
LEVELS = {"instance": {"job", "instance", "model_name"}, "rank": {"job", "stage", "rank", "worker"}}


@dataclasses.dataclass(frozen=True)
class Query:
    where: str  # "serving: Queue time", "alert BellwetherWorkerDown"
    expression: str
    legend: str = ""
    instant: bool = True


@dataclasses.dataclass(frozen=True)
class Metric:
    name: str
    type: str
    labels: frozenset
    values: dict = dataclasses.field(default_factory=dict)  # label -> all that it takes, where they are listed
    buckets: frozenset = frozenset()


def cells(text):
    return re.findall(r"`([^`]+)`", text)


def metric_table():
    """Series by name, from docs/metrics.md, which common/metrics/metric_table_test holds to the table."""
    metrics, section = {}, ""
    for line in (ROOT / "docs/metrics.md").read_text().splitlines():
        section = line if line.startswith("## ") else section
        columns = [column.strip() for column in line.split("|")[1:-1]]
        if not columns or not columns[0].startswith("`"):
            continue
        name = cells(columns[0])[0]
        if section == "## Label values":
            metrics[name].values[cells(columns[1])[0]] = set(cells(columns[2]))
        elif section == "## Buckets":
            metrics[name] = dataclasses.replace(metrics[name], buckets=frozenset(columns[1].split()))
        else:
            metrics[name] = Metric(name, columns[1], frozenset(cells(columns[3])))
    series = {name: metric for name, metric in metrics.items() if metric.type != "histogram"}
    for name, metric in metrics.items():
        if metric.type == "histogram":
            bucket = dataclasses.replace(metric, labels=metric.labels | {"le"}, values={**metric.values, "le": metric.buckets | {"+Inf"}})
            series |= {f"{name}_bucket": bucket, f"{name}_sum": metric, f"{name}_count": metric}
    series["up"] = Metric("up", "gauge", frozenset())
    return series


def rules(kind):
    """Of monitoring/rules: name -> expression, of "record" or "alert"."""
    found = {}
    for path in sorted((MONITORING / "rules").glob("*.yml")):
        for rule in re.finditer(r"- (record|alert): (\S+)\n +expr: (>-\n((?: {10,}.*\n)+)|.*\n)", path.read_text()):
            if rule.group(1) == kind:
                found[rule.group(2)] = " ".join((rule.group(4) or rule.group(3)).split())
    return found


def boards():
    return {path.stem: json.loads(path.read_text()) for path in DASHBOARDS}


def panels():
    """(dashboard, panel) of all that show something."""
    for name, board in boards().items():
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield name, panel


def panel_queries():
    for board, panel in panels():
        for target in panel["targets"]:
            yield Query(f"{board}: {panel['title']}", target["expr"], target["legendFormat"], target["instant"])


def rule_queries():
    return [Query(f"{kind} {name}", expression) for kind in ("record", "alert") for name, expression in rules(kind).items()]


def variable_queries():
    """Query and label of each variable's label_values()."""
    for name, board in boards().items():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                yield Query(f"{name}: ${variable['name']}", match.group(1)), match.group(2)


@dataclasses.dataclass(frozen=True)
class Selector:
    metric: str
    matchers: tuple  # of (label, operator, value)


# What is in braces and quotes is for the selector before it; clauses hold names of labels; the rest are words of PromQL.
SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?!\s*[\w:(])")
CLAUSE = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
WORDS = {"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right"}


def selectors(expression):
    """All series that a query names, and all labels that its clauses do."""
    clauses = {label for _, labels in CLAUSE.findall(expression) for label in re.findall(r"\w+", labels)}
    rest = re.sub(r"\[[^\]]*\]", " ", CLAUSE.sub(" ", expression))
    rest = re.sub(r"(?<![=~!])(\s|,)\"[^\"]*\"", r"\1", rest)  # strings that are arguments, not values of labels
    found = []
    for name, braces in SELECTOR.findall(rest):
        if name not in WORDS and not re.fullmatch(r"e\d*", name):
            found.append(Selector(name, tuple(re.findall(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"", braces))))
    return found, clauses
