"""The dashboards as Grafana's own library reads them: whole, with units and descriptions, and nothing on top of another.

Needs PyPI's grafana-foundation-sdk (tools/check.sh monitoring installs it into build/); skipped without.
"""

import itertools
import json
import sys
import unittest

from tests.monitoring import queries

try:
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import dashboard, prometheus
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

# Of https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts; others are shown as they are.
UNITS = {"none", "short", "percentunit", "bool_yes_no", "bytes", "binBps", "s", "dtdurations", "dateTimeFromNow", "cpm", "ops", "reqps",
         "tokens/s"}
KINDS = {"timeseries", "stat", "gauge", "bargauge", "heatmap", "table"}
COLUMNS = 24


def overlap(one, other):
    return (one.x < other.x + other.w and other.x < one.x + one.w and one.y < other.y + other.h and other.y < one.y + one.h)


def differences(written, read, where=""):
    """What of `written` is missing or other in `read`, by its path."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            if key in read:
                yield from differences(value, read[key], f"{where}.{key}")
            elif value not in (None, False, [], {}, ""):
                yield f"{where}.{key}"
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for i, (one, other) in enumerate(zip(written, read)):
            yield from differences(one, other, f"{where}[{i}]")
    elif written != read:
        yield f"{where}: {written!r} became {read!r}"


class Dashboards(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        plugins.register_default_plugins()
        cls.written = queries.boards()
        cls.boards = {name: dashboard.Dashboard.from_json(board) for name, board in cls.written.items()}

    def panels(self):
        for name, board in self.boards.items():
            for panel in board.panels:
                if isinstance(panel, dashboard.Panel):
                    yield f"{name}: {panel.title}", panel

    def test_nothing_is_lost_in_reading(self):
        """A misspelt field would be dropped by Grafana without a word."""
        for name, board in self.boards.items():
            read = json.loads(json.dumps(board, cls=JSONEncoder))
            self.assertEqual(list(differences(self.written[name], read, name)), [])

    def test_ids_and_titles_are_given_once(self):
        for name, board in self.boards.items():
            for values in ([panel.id_val for panel in board.panels], [panel.title for panel in board.panels]):
                self.assertEqual(len(values), len(set(values)), name)
        uids = [board.uid for board in self.boards.values()]
        self.assertEqual(len(uids), len(set(uids)))
        self.assertTrue(all(uid and len(uid) <= 40 for uid in uids))

    def test_every_panel_has_unit_description_and_queries(self):
        count = 0
        for where, panel in self.panels():
            count += 1
            self.assertIn(panel.type_val, KINDS, where)
            self.assertIn(panel.field_config.defaults.unit, UNITS, where)
            self.assertGreater(len(panel.description), 10, where)
            self.assertTrue(panel.targets, where)
            for target in panel.targets:
                self.assertIsInstance(target, prometheus.Dataquery, where)
                self.assertEqual((target.datasource.type_val, target.datasource.uid), ("prometheus", "${datasource}"), where)
                self.assertTrue(target.legend_format or len(panel.targets) == 1, f"{where}: lines without a name")
            references = [target.ref_id for target in panel.targets]
            self.assertEqual(len(references), len(set(references)), where)
        self.assertGreater(count, 50)

    def test_panels_do_not_overlap(self):
        for name, board in self.boards.items():
            for panel in board.panels:
                place = panel.grid_pos
                self.assertTrue(place.x >= 0 and place.w > 0 and place.h > 0 and place.x + place.w <= COLUMNS, panel.title)
            for one, other in itertools.combinations(board.panels, 2):
                self.assertFalse(overlap(one.grid_pos, other.grid_pos), f"{name}: {one.title} and {other.title}")

    def test_variables(self):
        for name, board in self.boards.items():
            names = [variable.name for variable in board.templating.list_val]
            self.assertEqual(names, ["datasource", "job", "instance", "model"], name)
            asked = " ".join(target.expr for where, panel in self.panels() if where.startswith(name) for target in panel.targets)
            for variable in names[1:]:
                self.assertIn(f"${variable}", asked, name)


if __name__ == "__main__":
    unittest.main()
