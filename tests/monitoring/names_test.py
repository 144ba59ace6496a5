"""Dashboards, rules and runbook agree with each other and with the table of metrics. Needs neither Prometheus nor Grafana."""

import itertools
import re
import unittest

from monitoring.grafana import dashboards
from tests.monitoring import queries

RUNBOOK = (queries.ROOT / "docs/runbook.md").read_text()


class Names(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.metrics = queries.metric_table()
        cls.records = queries.rules("record")
        cls.alerts = queries.rules("alert")
        cls.queries = [*queries.panel_queries(), *queries.rule_queries(), *(query for query, _ in queries.variable_queries())]

    def labels_of(self, name):
        if name in self.records:
            return queries.LEVELS[name.split(":")[0]]
        return self.metrics[name].labels | queries.TARGET_LABELS

    def test_the_reader_of_queries_reads(self):
        found, clauses = queries.selectors(
            'label_replace(sum by (a, b) (rate(x_total{c="d", e=~"$f"}[5m])), "g", "h", "", "") / on (i) group_left (j) (r:s:t > 1e-9) or up')
        self.assertEqual([(selector.metric, selector.matchers) for selector in found],
                         [("x_total", (("c", "=", "d"), ("e", "=~", "$f"))), ("r:s:t", ()), ("up", ())])
        self.assertEqual(clauses, {"a", "b", "i", "j"})
        self.assertIn("bellwether_time_to_first_token_seconds_bucket", self.metrics)
        self.assertGreater(len(self.records), 10)
        self.assertGreater(len(self.alerts), 10)
        self.assertGreater(len(self.queries), 100)

    def test_every_metric_is_in_the_table(self):
        for query in self.queries:
            found, _ = queries.selectors(query.expression)
            self.assertTrue(found, query)
            for selector in found:
                self.assertTrue(selector.metric in self.metrics or selector.metric in self.records, f"{query.where}: {selector.metric}")

    def test_every_label_and_value_is_one_of_the_metric(self):
        for query in self.queries:
            found, clauses = queries.selectors(query.expression)
            known = set.union(*(set(self.labels_of(selector.metric)) for selector in found))
            self.assertLessEqual(clauses, known, query.where)
            for selector in found:
                for label, operator, value in selector.matchers:
                    self.assertIn(label, self.labels_of(selector.metric), query.where)
                    allowed = selector.metric in self.metrics and self.metrics[selector.metric].values.get(label)
                    if allowed:
                        self.assertLessEqual(set(value.split("|")), allowed, query.where)

    def test_every_query_asks_for_the_chosen_job(self):
        for query in queries.panel_queries():
            for selector in queries.selectors(query.expression)[0]:
                self.assertIn(("job", "=", "$job"), selector.matchers, query)

    def test_counters_are_asked_for_as_rates_and_gauges_are_not(self):
        for query in self.queries:
            for call, name in re.findall(r"\b(\w*)\(([a-z_:]\w+)(?:\{[^}]*\})?(?=\[)", query.expression):
                kind = self.metrics[name].type if name in self.metrics else "gauge"
                cumulative = kind in ("counter", "histogram")
                self.assertEqual(cumulative, call in ("rate", "increase", "irate"), f"{query.where}: {call}({name})")
            for selector in queries.selectors(re.sub(r"(rate|increase)\([^)]*\)", "1", query.expression))[0]:
                if selector.metric in self.metrics:
                    self.assertEqual(self.metrics[selector.metric].type, "gauge", f"{query.where}: {selector.metric} without rate()")

    def test_every_record_is_used(self):
        used = {selector.metric for query in self.queries for selector in queries.selectors(query.expression)[0]}
        self.assertEqual(set(self.records) - used, set())

    def test_variables_have_values_that_are_labels(self):
        for query, label in queries.variable_queries():
            for selector in queries.selectors(query.expression)[0]:
                self.assertIn(label, self.labels_of(selector.metric), query.where)

    def test_dashboards_are_what_their_source_makes(self):
        self.assertEqual({path.stem for path in queries.DASHBOARDS}, set(dashboards.DASHBOARDS))
        for path in queries.DASHBOARDS:
            self.assertEqual(path.read_text(), dashboards.text_of(dashboards.DASHBOARDS[path.stem]),
                             "python3 -B -m monitoring.grafana.dashboards writes them anew")

    def test_every_alert_has_its_paragraph_its_link_and_its_test(self):
        paragraphs = re.findall(r"^### (\w+)\n\n(?=\*(?:Page|Ticket)\.\*)", RUNBOOK, re.M)
        self.assertEqual(paragraphs, list(self.alerts), "in the order of alerts.yml")
        text = (queries.MONITORING / "rules/alerts.yml").read_text()
        links = re.findall(r"runbook_url: docs/runbook\.md#(\w+)", text)
        self.assertEqual(links, [name.lower() for name in self.alerts])
        severities = re.findall(r"severity: (\w+)", text)
        self.assertEqual(re.findall(r"^\*(Page|Ticket)\.\*", RUNBOOK, re.M), [severity.capitalize() for severity in severities])
        tested = (queries.ROOT / "tests/monitoring/rules_test.yml").read_text()
        for name in self.alerts:
            self.assertRegex(tested, rf"alertname: {name}\n +exp_alerts:\n", f"no test in which {name} fires")

    def test_the_runbook_names_panels_that_are_there(self):
        titles = {board: {panel["title"] for name, panel in queries.panels() if name == board} for board in ("serving", "capacity", "cluster")}
        named = re.findall(r"\*(Serving|Capacity|Cluster)\* → \"([^\"]+)\"", " ".join(RUNBOOK.split()))
        self.assertGreater(len(named), 8)
        for board, title in named:
            self.assertIn(title, titles[board.lower()])
        anywhere = set(itertools.chain.from_iterable(titles.values()))
        self.assertLessEqual(set(re.findall(r'"([^"]+)"', " ".join(RUNBOOK.split()))), anywhere)


if __name__ == "__main__":
    unittest.main()
