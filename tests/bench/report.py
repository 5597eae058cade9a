"""From the results of the comparison to a line, a table and a page with plots.

The page is one file without scripts: plots are SVG drawn here, and follow the reader's dark or
light preference.
"""

import html as escape
import math

import slowdisk

COLOURS = {
    "hekate": "#d1495b",
    "rtorrent": "#2e86ab",
    "libtorrent": "#3a7d44",
    "transmission": "#b08900",
    "limit": "#888888",
}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 300, 70, 30, 34, 44


def at(found, path):
    """A value deep in a report, or None."""
    for key in path.split("."):
        if not isinstance(found, dict) or found.get(key) is None:
            return None
        found = found[key]
    return found


def shown(value, digits=2, scale=1.0):
    """A number as text, or a dash."""
    return "–" if value is None else f"{value * scale:,.{digits}f}"


def line(seeder, scenario, found):
    """One run in one line."""
    if "failed" in found:
        return f"{seeder:13} {scenario:12} failed: {found['failed']}"
    return (
        f"{seeder:13} {scenario:12}"
        f" {shown(at(found, 'throughput.gb_per_second'))} GB/s"
        f" {shown(at(found, 'seeder.cpu_seconds_per_gb'), 3)} cpu-s/GB"
        f" p99 {shown(at(found, 'latency_us.p99'), 1, 1e-3)} ms"
        f" {shown(at(found, 'seeder.anonymous_bytes_per_peer'), 0)} B/peer"
        f" Jain {shown(at(found, 'fairness.jain'), 4)}"
    )


COLUMNS = (
    ("seeder", None),
    ("GB/s", lambda r: shown(at(r, "throughput.gb_per_second"))),
    ("cpu-s/GB", lambda r: shown(at(r, "seeder.cpu_seconds_per_gb"), 3)),
    ("core", lambda r: shown(at(r, "seeder.cpu_share"), 1, 100) + " %"),
    ("latency p50 / p99 / p99.9, ms", lambda r: times(r, "latency_us")),
    ("handshake p50 / p99, ms", lambda r: times(r, "time_to_us.handshake", 2)),
    ("unchoke p50 / p99, ms", lambda r: times(r, "time_to_us.unchoke", 2)),
    ("served", lambda r: served(r)),
    ("Jain", lambda r: shown(at(r, "fairness.jain"), 4)),
    ("B/peer", lambda r: shown(at(r, "seeder.anonymous_bytes_per_peer"), 0)),
    ("sockets, MB", lambda r: shown(at(r, "kernel.socket_bytes_most"), 0, 1e-6)),
    ("others", lambda r: shown(at(r, "others.cpu_share"), 0, 100) + " %"),
    ("verified / wrong", lambda r: f"{at(r, 'blocks.verified')} / {at(r, 'blocks.mismatched')}"),
)


def times(found, path, count=3):
    """Quantiles in milliseconds."""
    names = ("p50", "p99", "p999")[:count]
    return " / ".join(shown(at(found, f"{path}.{name}"), 1, 1e-3) for name in names)


def served(found):
    """How many of those that ask got something, or of all how many are connected."""
    wanted = at(found, "options.peers")
    if wanted:
        return f"{at(found, 'peers.served_at_end'):,} of {wanted:,}"
    everybody = at(found, "options.idle") or 0
    return f"{at(found, 'peers.connected_at_end'):,} of {everybody:,}"


def scenarios_of(results):
    """Names and meanings in the order in which they ran."""
    return list({run["scenario"]: run["shows"] for run in results["runs"]}.items())


def markdown(results):
    """The tables."""
    machine = results["machine"]
    out = [
        f"Measured {machine['date']} at `{machine['commit']}` on {machine['processors']} ×"
        f" {machine['processor']}, {machine['memory_mib']} MiB, Linux {machine['kernel']}"
        f"{', quick mode' if results['quick'] else ''}. Seeders: "
        + "; ".join(results["seeders"].values())
        + ".",
        "",
        "| limit: blocks per call | cpu-s/GB before | after | GB/s before | after |",
        "|---|---|---|---|---|",
    ]
    for before, after in zip(results["limit"], results["limit_after"]):
        out.append(
            f"| {before['batch']} | {shown(before['cpu_seconds_per_gb'], 3)}"
            f" | {shown(after['cpu_seconds_per_gb'], 3)}"
            f" | {shown(before['gb_per_second'])} | {shown(after['gb_per_second'])} |"
        )
    for name, shows in scenarios_of(results):
        out += ["", f"**{name}**: {shows}", ""]
        out.append("| " + " | ".join(title for title, _ in COLUMNS) + " |")
        out.append("|" + "---|" * len(COLUMNS))
        for run in results["runs"]:
            if run["scenario"] != name:
                continue
            found = run["report"]
            if "failed" in found:
                out.append(f"| {run['seeder']} | failed: {found['failed']} |" + " |" * (len(COLUMNS) - 2))
                continue
            cells = [cell(found) for _, cell in COLUMNS[1:]]
            out.append(f"| {run['seeder']} | " + " | ".join(cells) + " |")
    if "slow_disk" in results:
        out += ["", slowdisk.markdown(results["slow_disk"])]
    return "\n".join(out) + "\n"


def series(results, path, scale=1.0):
    """For each seeder the points (peers, value) of the scenarios that are points of an axis."""
    found = {}
    for run in results["runs"]:
        value = at(run["report"], path)
        if run["peers"] and value is not None:
            found.setdefault(run["seeder"], []).append((run["peers"], value * scale))
    return {name: sorted(points) for name, points in found.items()}


def latency(results, peers):
    """For each seeder its latency distribution: (share as nines, milliseconds)."""
    found = {}
    for run in results["runs"]:
        points = at(run["report"], "latency_us.points")
        if run["peers"] == peers and points:
            found[run["seeder"]] = [
                (nines(share), time / 1e3) for share, time in points if share < 1.0
            ]
    return found


def nines(share):
    """0.9 → 1, 0.99 → 2: the axis on which a tail is visible."""
    return -math.log10(1.0 - share)


def ticks(low, high):
    """Powers of ten from below `low` to above `high`."""
    return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def named(mark):
    """A mark of an axis as text."""
    return f"{mark:,.0f}" if mark >= 10 else f"{mark:g}"


def plot(title, label, lines, rule=None, nine_axis=False, log_y=False):
    """A line plot as SVG: x is logarithmic in peers, or in nines."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    across = (lambda x: x) if nine_axis else math.log10
    xs = [across(x) for x, _ in points]
    ys = [y for _, y in points] + ([rule[1]] if rule else [])
    x_low, x_high = min(xs), max(max(xs), min(xs) + 0.01)
    if log_y:
        marks = ticks(max(min(ys), 1e-3), max(ys))
        y_low, y_high, up = math.log10(marks[0]), math.log10(marks[-1]), math.log10
    else:
        step = 10 ** math.floor(math.log10(max(ys)))
        step = next(step * part for part in (0.1, 0.2, 0.5, 1, 2) if max(ys) / (step * part) <= 6)
        marks = [step * number for number in range(math.ceil(max(ys) / step) + 1)]
        y_low, y_high, up = 0.0, marks[-1], lambda y: y

    def place(x, y):
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        left = LEFT + (across(x) - x_low) / (x_high - x_low) * width
        top = TOP + (1 - (up(y) - y_low) / max(y_high - y_low, 1e-9)) * height
        return left, top

    out = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{title}</title>']
    out.append(f'<text x="{LEFT}" y="18" class="title">{title}</text>')
    right = WIDTH - RIGHT
    for mark in marks:
        _, top = place(points[0][0], mark)
        out.append(f'<line x1="{LEFT}" x2="{right}" y1="{top:.1f}" y2="{top:.1f}" class="grid"/>')
        out.append(f'<text x="{LEFT - 6}" y="{top + 4:.1f}" class="end">{named(mark)}</text>')
    names = {0.301: "50 %", 1: "90 %", 2: "99 %", 3: "99.9 %", 4: "99.99 %"}
    stops = names.items() if nine_axis else ((x, f"{x:,}") for x in sorted({x for x, _ in points}))
    for x, name in stops:
        if x_low - 1e-6 <= across(x) <= x_high + 1e-6:
            left, _ = place(x, points[0][1])
            out.append(f'<text x="{left:.1f}" y="{HEIGHT - BOTTOM + 16}" class="middle">{name}</text>')
    middle = (LEFT + right) / 2
    out.append(f'<text x="{middle}" y="{HEIGHT - 8}" class="middle">{label}</text>')
    if rule:
        _, top = place(points[0][0], rule[1])
        out.append(
            f'<line x1="{LEFT}" x2="{right}" y1="{top:.1f}" y2="{top:.1f}" stroke="{COLOURS["limit"]}"'
            f' stroke-dasharray="5 4"/><text x="{right}" y="{top - 5:.1f}" class="end">{rule[0]}</text>'
        )
    for name, line_points in lines.items():
        colour = COLOURS.get(name, "#666666")
        places = [place(*point) for point in line_points]
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if not nine_axis:
            out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
    return "\n".join(out) + "</svg>"


def bars(title, label, values):
    """Horizontal bars as SVG, on a logarithmic axis."""
    values = {name: value for name, value in values.items() if value and value > 0}
    if not values:
        return ""
    marks = ticks(min(min(values.values()), 100.0), max(values.values()))
    low, high = math.log10(marks[0]), math.log10(marks[-1])
    left, right = 92, WIDTH - 66
    out = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{title}</title>']
    out.append(f'<text x="{left}" y="18" class="title">{title}</text>')
    for number, (name, value) in enumerate(values.items()):
        top = 44 + number * 44
        wide = (math.log10(value) - low) / (high - low) * (right - left)
        out.append(f'<text x="{left - 8}" y="{top + 17}" class="end">{name}</text>')
        out.append(
            f'<rect x="{left}" y="{top}" width="{max(wide, 1):.1f}" height="24"'
            f' fill="{COLOURS.get(name, "#666666")}"/>'
        )
        out.append(f'<text x="{left + wide + 6:.1f}" y="{top + 17}">{shown(value, 0)}</text>')
    out.append(f'<text x="{(left + right) / 2}" y="{HEIGHT - 8}" class="middle">{label}</text></svg>')
    return "\n".join(out)


STYLE = """
:root { color-scheme: light dark; --ink: #222; --grid: #ddd; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --grid: #444; --paper: #1b1b1b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1000px; margin: 2em auto; padding: 0 1em; }
svg { width: 470px; max-width: 100%; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .grid { stroke: var(--grid); } svg .title { font-weight: 600; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
td, th { border-bottom: 1px solid var(--grid); padding: 3px 8px; text-align: left; white-space: nowrap; }
.key span { margin-right: 1.2em; } .key i { display: inline-block; width: 12px; height: 12px;
  margin-right: 5px; }
"""


def tables(text):
    """The tables of `markdown` as HTML; it knows no more of Markdown than is used there."""
    out, rows = [], []
    for text_line in [*text.splitlines(), ""]:
        if text_line.startswith("|---"):
            continue
        if text_line.startswith("|"):
            cells = [escape.escape(cell.strip()) for cell in text_line.strip("|").split("|")]
            tag = "td" if rows else "th"
            rows.append("<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>")
            continue
        if rows:
            out.append('<div class="table"><table>' + "".join(rows) + "</table></div>")
            rows = []
        if text_line:
            words = escape.escape(text_line).split("**")
            words = "".join(f"<b>{w}</b>" if odd % 2 else w for odd, w in enumerate(words))
            out.append(f"<p>{words.replace('`', '')}</p>")
    return "\n".join(out)


def html(results):
    """The page."""
    ceiling = min(
        (entry for entry in results["limit"] + results["limit_after"]),
        key=lambda entry: entry["cpu_seconds_per_gb"],
    )
    idle = {
        run["seeder"]: at(run["report"], "seeder.anonymous_bytes_per_peer")
        for run in results["runs"]
        if run["scenario"].startswith("idle")
    }
    key = "".join(
        f'<span><i style="background:{COLOURS.get(name, "#666")}"></i>{escape.escape(version)}</span>'
        for name, version in results["seeders"].items()
    )
    rule = ("limit", ceiling["cpu_seconds_per_gb"])
    plots = [
        plot("Processor time, seconds per GB", "leechers", series(results, "seeder.cpu_seconds_per_gb"), rule),
        plot("Throughput, GB/s", "leechers", series(results, "throughput.gb_per_second")),
        bars("User memory for each idle connection, bytes", "bytes, logarithmic", idle),
        plot(
            "User memory for each leecher, bytes",
            "leechers",
            series(results, "seeder.anonymous_bytes_per_peer"),
            log_y=True,
        ),
    ]
    for peers in sorted({run["peers"] for run in results["runs"] if run["peers"]}):
        title = f"Latency of a block, ms, {peers:,} leechers"
        plots.append(plot(title, "share of requests", latency(results, peers), None, True, True))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Hekate: comparison</title><style>{STYLE}</style>"
        "<h1>Seeders compared</h1>"
        f'<p class="key">{key}</p>{"".join(plots)}{tables(markdown(results))}</html>\n'
    )
