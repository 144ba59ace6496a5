"""Grafana's JSON from a few words: what our three dashboards need, and nothing else.

A panel stands where it is listed: rows fill from left to right, 24 columns wide.
"""

import dataclasses
import re
import zlib

SCHEMA_VERSION = 39  # Grafana 11
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Kinds whose answer is the last value alone.
INSTANT = {"stat", "gauge", "bargauge", "table"}


@dataclasses.dataclass(frozen=True)
class Panel:
    title: str
    about: str  # what it says and when to worry, for whoever reads it for the first time
    unit: str  # of Grafana's list: "s", "percentunit", "reqps", ...
    queries: tuple  # of (PromQL, legend)
    kind: str = "timeseries"  # or stat, gauge, bargauge, heatmap, table
    width: int = 8
    height: int = 8
    stacked: bool = False
    least: float | None = None
    most: float | None = None
    warn: tuple = ()  # values from which it is yellow, and red
    words: tuple = ()  # of (value, text, color), instead of numbers
    columns: tuple = ()  # labels that a table shows, in their order

    def json(self, number, x, y):
        panel = {"id": number, "type": self.kind, "title": self.title, "description": self.about, "datasource": SOURCE,
                 "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
                 "fieldConfig": {"defaults": self._defaults(), "overrides": []}, "options": self._options(),
                 "targets": [self._target(i, *query) for i, query in enumerate(self.queries)]}
        if self.kind == "table":
            panel["transformations"] = [{"id": "organize", "options": {
                "includeByName": dict.fromkeys(self.columns, True),
                "indexByName": {name: i for i, name in enumerate(self.columns)}}}]
        return panel

    def _target(self, i, query, legend):
        target = {"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": query, "legendFormat": legend,
                  "instant": self.kind in INSTANT, "range": self.kind not in INSTANT}
        if self.kind == "heatmap":
            target["format"] = "heatmap"
        if self.kind == "table":
            target["format"] = "table"
        return target

    def _defaults(self):
        steps = [{"color": "green", "value": None}]
        steps += [{"color": color, "value": value} for color, value in zip(("yellow", "red"), self.warn)]
        defaults = {"unit": self.unit, "thresholds": {"mode": "absolute", "steps": steps}}
        if self.least is not None:
            defaults["min"] = self.least
        if self.most is not None:
            defaults["max"] = self.most
        if self.words:
            defaults["mappings"] = [{"type": "value", "options": {
                str(value): {"text": text, "color": color, "index": i}
                for i, (value, text, color) in enumerate(self.words)}}]
        if self.kind == "timeseries":
            defaults["custom"] = {"lineWidth": 1, "fillOpacity": 60 if self.stacked else 10, "showPoints": "never",
                                  "stacking": {"mode": "normal" if self.stacked else "none"}}
        return defaults

    def _options(self):
        last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {
            "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
            "stat": {"reduceOptions": last, "graphMode": "none", "colorMode": "value" if self.warn or self.words else "none"},
            "gauge": {"reduceOptions": last},
            "bargauge": {"reduceOptions": last, "displayMode": "basic", "orientation": "horizontal"},
            "heatmap": {"calculate": False, "yAxis": {"unit": self.unit}, "color": {"mode": "scheme", "scheme": "Oranges"},
                        "cellGap": 1, "tooltip": {"mode": "single"}},
            "table": {"showHeader": True},
        }[self.kind]


@dataclasses.dataclass(frozen=True)
class Variable:
    name: str
    label: str
    query: str  # label_values(...)
    several: bool = True

    def json(self):
        variable = {"type": "query", "name": self.name, "label": self.label, "datasource": SOURCE, "refresh": 2, "sort": 1,
                    "query": {"qryType": 1, "query": self.query, "refId": self.name},
                    "multi": self.several, "includeAll": self.several}
        if self.several:
            # One word for all, so that a query does not name each of a hundred workers.
            variable |= {"allValue": ".+", "current": {"text": "All", "value": "$__all"}}
        return variable


def number_of(title):
    """Panels keep their number when others come and go, so links to them hold."""
    return zlib.crc32(title.encode()) >> 1


def dashboard(title, about, variables, rows):
    """`rows`: (title, panels). The same uid whenever it is written, so that provisioning replaces it."""
    panels, y = [], 0
    for row, members in rows:
        panels.append({"id": number_of("row " + row), "type": "row", "title": row, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}})
        y += 1
        x, height = 0, 0
        for panel in members:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            panels.append(panel.json(number_of(panel.title), x, y))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    source = {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "refresh": 1}
    return {"uid": "bellwether-" + re.sub(r"\W+", "-", title.lower()), "title": f"Bellwether: {title}", "description": about,
            "tags": ["bellwether"], "schemaVersion": SCHEMA_VERSION, "version": 1, "editable": True, "graphTooltip": 1,
            "timezone": "browser", "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "annotations": {"list": []},
            "links": [{"type": "dashboards", "title": "Bellwether", "tags": ["bellwether"], "asDropdown": False,
                       "includeVars": True, "keepTime": True}],
            "templating": {"list": [source, *(variable.json() for variable in variables)]}, "panels": panels}
