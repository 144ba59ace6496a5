"""Draws the main panels of the dashboards from what a live run was told, for the README: real answers, no mock-up.

    python -m monitoring.grafana.pictures ANSWERS.json DIRECTORY     ANSWERS.json: what tests/monitoring/live_test.py saves

Needs matplotlib (tests/monitoring/requirements.txt). Grafana itself draws finer; titles, units, lines and legends are the same.
"""

import json
import math
import pathlib
import re
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from monitoring.grafana.dashboards import DASHBOARDS

MAIN = {
    "serving": ("Service", "First token, 95 of 100 within", "Next token, 95 of 100 within", "Tokens generated a second", "Running", "Waiting",
                "Time to first token", "Time between tokens", "Requests", "Requests a second", "Tokens a second", "Prompt length"),
    "capacity": ("Headroom", "Full in", "Share of the hardware's limit", "Share of the plan", "Load and its limit",
                 "Tokens a second, and the ceiling", "Steps a second, and the plan", "Tokens a step"),
    "cluster": ("Workers up", "Without service", "Regroups by cause", "Share of time by part", "Computing, by rank", "Bubble, by stage",
                "Waited for, by rank", "Who waits for whom", "Sent"),
}
BACKGROUND, PANEL, TEXT, FAINT = "#111217", "#181b1f", "#ccccdc", "#3a3d44"
COLORS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#e02f44", "#b877d9", "#8ab8ff", "#c4162a")
COLUMNS, UNIT = 24, 0.6  # columns of the grid, and inches of one


def scaled(value, steps, base=1000):
    for step in steps:
        if abs(value) < base:
            return f"{value:.3g}{step}"
        value /= base
    return f"{value:.3g}{steps[-1]}"


def seconds(value):
    if value == 0:
        return "0"
    for limit, name in ((86400, " d"), (3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{name}"
    return f"{value * 1e6:.3g} µs"


FORMATS = {
    "s": seconds, "dtdurations": seconds, "percentunit": lambda value: f"{100 * value:.3g} %", "short": lambda value: scaled(value, ("", " K", " M")),
    "bool_yes_no": lambda value: "Yes" if value else "No", "binBps": lambda value: scaled(value, (" B/s", " KiB/s", " MiB/s", " GiB/s"), 1024),
    "bytes": lambda value: scaled(value, (" B", " KiB", " MiB", " GiB"), 1024), "none": lambda value: f"{value:g}",
}


def text_of(unit, value):
    form = FORMATS.get(unit)
    return form(value) if form else f"{scaled(value, ('', ' K', ' M'))} {dict(reqps='req/s', ops='/s', cpm='/min').get(unit, unit)}"


def name_of(answer, result):
    return re.sub(r"\{\{(\w+)\}\}", lambda match: result["metric"].get(match.group(1), ""), answer["legend"])


def lines_of(answers):
    """(name, times, values) of all series of a panel; NaN where there is none, as Grafana leaves a gap."""
    for answer in answers:
        for result in answer["results"]:
            points = [(float(time), float(value)) for time, value in result["values"]]
            yield name_of(answer, result), [time for time, _ in points], [value if math.isfinite(value) else math.nan for _, value in points]


def draw_timeseries(axes, panel, answers, begin):
    lines = [(name, [time - begin for time in times], values) for name, times, values in lines_of(answers)]
    stacked = panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
    if stacked:
        times = sorted({time for _, line, _ in lines for time in line})
        tables = [dict(zip(line, values)) for _, line, values in lines]
        axes.stackplot(times, [[table.get(time, 0) for time in times] for table in tables], colors=COLORS, alpha=0.7, labels=[name for name, _, _ in lines])
    else:
        for i, (name, times, values) in enumerate(lines):
            axes.plot(times, values, color=COLORS[i % len(COLORS)], linewidth=1.1, label=name)
    defaults = panel["fieldConfig"]["defaults"]
    axes.set_ylim(bottom=defaults.get("min"), top=defaults.get("max"))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} s")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=4 if len(lines) > 6 else 2 if len(lines) > 3 else 3, frameon=False, labelcolor=TEXT, fontsize=6)


def draw_heatmap(axes, panel, answers, begin):
    series = sorted((float(result["metric"]["le"]), [(float(time), float(value)) for time, value in result["values"]])
                    for result in answers[0]["results"])
    times = [time for time, _ in series[0][1]]
    table = [[value for _, value in points] for _, points in series]
    counts = [[max(0, here - below) for here, below in zip(row, [0] * len(row) if i == 0 else table[i - 1])] for i, row in enumerate(table)]
    used = [i for i, row in enumerate(counts) if any(row)]
    first, last = max(0, used[0] - 1), min(len(counts), used[-1] + 2)
    axes.pcolormesh([time - begin for time in times], range(first, last), counts[first:last], cmap="Oranges", shading="nearest")
    axes.set_yticks(range(first, last), ["more" if math.isinf(series[i][0]) else text_of("short", series[i][0]) for i in range(first, last)])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} s")
    axes.grid(False)


def draw_bars(axes, panel, answers):
    bars = [(name_of(answer, result), float(result["value"][1])) for answer in answers for result in answer["results"]]
    axes.barh([name for name, _ in bars][::-1], [value for _, value in bars][::-1], color=COLORS[0])


def draw_number(axes, panel, answers):
    shown = [(name_of(answer, result), float(result["value"][1])) for answer in answers for result in answer["results"]]
    axes.set_axis_off()
    unit = panel["fieldConfig"]["defaults"]["unit"]
    text = "\n".join(text_of(unit, value) for _, value in shown) or "No data"
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=20 if len(shown) == 1 else 12, color=COLORS[0], transform=axes.transAxes)


def draw(figure, height, place, panel, answers, begin):
    x, y, w, h = place
    left, width = x / COLUMNS, w / COLUMNS
    figure.patches.append(pyplot.Rectangle((left + 0.003, 1 - (y + h - 0.15) / height), width - 0.006, (h - 0.3) / height, transform=figure.transFigure,
                                           facecolor=PANEL, edgecolor=FAINT, linewidth=0.5, zorder=-1))
    figure.text(left + 0.01, 1 - (y + 0.75) / height, panel["title"], color=TEXT, fontsize=8, fontweight="bold")
    inside = (left + 0.055, 1 - (y + h - 2.1) / height, width - 0.075, (h - 3.3) / height)
    if panel["type"] in ("stat", "gauge"):
        inside = (left + 0.01, 1 - (y + h - 0.4) / height, width - 0.02, (h - 1.4) / height)
    if panel["type"] == "bargauge":
        inside = (left + 0.1, 1 - (y + h - 1.4) / height, width - 0.12, (h - 2.7) / height)
    axes = figure.add_axes(inside, facecolor=PANEL)
    axes.tick_params(colors=TEXT, labelsize=6, length=0)
    axes.grid(color=FAINT, linewidth=0.4)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if panel["type"] in ("stat", "gauge"):
        return draw_number(axes, panel, answers)
    {"timeseries": draw_timeseries, "heatmap": draw_heatmap, "bargauge": lambda *given: draw_bars(*given[:3])}[panel["type"]](axes, panel, answers, begin)
    unit = panel["fieldConfig"]["defaults"]["unit"]
    if panel["type"] != "heatmap":
        (axes.xaxis if panel["type"] == "bargauge" else axes.yaxis).set_major_formatter(lambda value, _: text_of(unit, value))
    return None


def places(panels):
    """From left to right, as monitoring/grafana/model.py sets them."""
    x = y = row = 0
    for panel in panels:
        w, h = panel["gridPos"]["w"], panel["gridPos"]["h"]
        if x + w > COLUMNS:
            x, y, row = 0, y + row, 0
        yield panel, (x, y, w, h)
        x, row = x + w, max(row, h)


def picture(name, answers, begin, path):
    by_title = {panel["title"]: panel for panel in DASHBOARDS[name]["panels"]}
    placed = list(places([by_title[title] for title in MAIN[name]]))
    height = max(y + h for _, (_, y, _, h) in placed)
    figure = pyplot.figure(figsize=(COLUMNS * UNIT, height * UNIT * 0.62), facecolor=BACKGROUND)
    for panel, place in placed:
        mine = [answer for answer in answers if answer["where"] == f"{name}: {panel['title']}" and answer["choice"] == "All"]
        draw(figure, height, place, panel, mine, begin)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main(source, directory):
    answers = json.loads(pathlib.Path(source).read_text())
    begin = min(float(result["values"][0][0]) for answer in answers for result in answer["results"] if result.get("values"))
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    for name in MAIN:
        picture(name, answers, begin, pathlib.Path(directory) / f"dashboard-{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
