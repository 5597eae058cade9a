"""From the figures of swarm.py to a table and a page with plots, as report.py does."""

import html as escape
import json

import report
from report import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

COLOURS = {
    "hekate": "#d1495b",
    "hekate -N 4": "#e9a3ac",
    "libtorrent": "#3a7d44",
    "libtorrent super-seeding": "#8fc29a",
    "transmission": "#b08900",
    "rtorrent initial_seed": "#2e86ab",
}
COLUMNS = (
    ("last", lambda run: f"{run['last']:.2f}"),
    ("copy", lambda run: f"{run['copy']:.2f}"),
    ("copies", lambda run: f"{run['copies']:.2f}"),
    ("median, s", lambda run: f"{run['median_seconds']:.1f}"),
    ("last, s", lambda run: f"{run['last_seconds']:.1f}"),
)


def write(directory, figures, cells):
    """Writes swarm.json, swarm.md and swarm.html."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "swarm.json").write_text(json.dumps(figures) + "\n")
    table = markdown(figures, cells)
    (directory / "swarm.md").write_text(table)
    (directory / "swarm.html").write_text(page(figures, cells, table))


def runs_of(figures, cell):
    """The runs of a cell, by seeder."""
    found = {}
    for run in figures:
        if run["cell"] == cell.name:
            found.setdefault(run["seeder"], []).append(run)
    return found


def markdown(figures, cells):
    """A table for each cell; of several runs of a seeder each has a row."""
    out = []
    for cell in cells:
        found = runs_of(figures, cell)
        if not found:
            continue
        out += [f"**{cell.name}**: bound {cell.bound():.1f} s, one copy {cell.copy_bound():.1f} s", ""]
        out.append("| seeder | " + " | ".join(title for title, _ in COLUMNS) + " |")
        out.append("|" + "---|" * (len(COLUMNS) + 1))
        for seeder, runs in found.items():
            for run in runs:
                out.append(f"| {seeder} | " + " | ".join(shown(run) for _, shown in COLUMNS) + " |")
        out.append("")
    return "\n".join(out)


def page(figures, cells, table):
    """The page: of each cell how the pieces came out, and when leechers were complete."""
    seeders = list({run["seeder"]: None for run in figures})
    key = "".join(
        f'<span><i style="background:{COLOURS.get(name, "#666")}"></i>{escape.escape(name)}</span>'
        for name in seeders)
    plots = []
    for cell in cells:
        found = {seeder: runs[0] for seeder, runs in runs_of(figures, cell).items()}
        if not found:
            continue
        plots.append(plot(f"{cell.name}: pieces that are out", cell.copy_bound(),
                          {name: run["first_pieces"] for name, run in found.items()}))
        plots.append(plot(f"{cell.name}: leechers complete", cell.bound(),
                          {name: run["completed"] for name, run in found.items()}))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Hekate: swarms behind a line</title><style>{report.STYLE}</style>"
        "<h1>Swarms behind a line</h1><p>The broken line is the bound: nobody can be faster.</p>"
        f'<p class="key">{key}</p>{"".join(plots)}{report.tables(table)}</html>\n'
    )


def plot(title, bound, times):
    """Shares of all that have happened, over seconds, as SVG."""
    end = max([bound] + [max(moments) for moments in times.values() if moments]) * 1.05
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(second, share):
        return LEFT + min(second / end, 1) * wide, TOP + (1 - share) * high

    out = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape.escape(title)}</title>']
    out.append(f'<text x="{LEFT}" y="18" class="title">{escape.escape(title)}</text>')
    for quarter in range(5):
        left, top = place(0, quarter / 4)
        out.append(f'<line x1="{left}" x2="{left + wide}" y1="{top:.1f}" y2="{top:.1f}" class="grid"/>')
        out.append(f'<text x="{left - 6}" y="{top + 4:.1f}" class="end">{quarter * 25} %</text>')
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if end / step <= 8)
    for second in range(0, int(end) + 1, step):
        left, _ = place(second, 0)
        out.append(f'<text x="{left:.1f}" y="{HEIGHT - BOTTOM + 16}" class="middle">{second}</text>')
    out.append(f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 8}" class="middle">seconds</text>')
    left, top = place(bound, 1)
    out.append(f'<line x1="{left:.1f}" x2="{left:.1f}" y1="{top:.1f}" y2="{TOP + high}"'
               ' stroke="#888888" stroke-dasharray="5 4"/>')
    for name, moments in times.items():
        points = [place(0, 0)]
        for number, second in enumerate(sorted(moments)):
            points.append(place(second, (number + 1) / len(moments)))
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS.get(name, "#666666")}"'
                   ' stroke-width="2"/>')
    return "\n".join(out) + "</svg>"
