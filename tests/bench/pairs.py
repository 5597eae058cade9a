"""Compares two builds of Hekate in turn, so that a change of the machine's speed meets both.

usage: python3 tests/bench/pairs.py --before HEKATE [--after HEKATE] [--pairs N]

Each pair runs a scenario with one build and then with the other; the next pair begins with the
other one. The table has the median of each figure and the median of the ratios of the pairs.
"""

import argparse
import resource
import statistics
from pathlib import Path

import compare
import data
import scenarios
import seeders


def at(*keys):
    """Reads one figure of a report."""

    def read(figures):
        for key in keys:
            figures = figures[key]
        return figures

    return read


CPU = ("CPU-s/GB", at("seeder", "cpu_seconds_per_gb"))
MEMORY = ("B per peer", at("seeder", "anonymous_bytes_per_peer"))
HANDSHAKE = ("handshake p99, µs", at("time_to_us", "handshake", "p99"))
THROUGHPUT = ("GB/s", at("throughput", "active_gb_per_second"))

# Which figures of which scenario are compared.
FIGURES = {
    "load-50": (CPU, THROUGHPUT),
    "load-1000": (CPU, THROUGHPUT),
    "load-5000": (CPU, THROUGHPUT),
    "idle-10000": (MEMORY,),
    "churn": (HANDSHAKE, THROUGHPUT),
}


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    target = compare.REPOSITORY / "target"
    parser.add_argument("--before", type=Path, required=True, help="the build to compare with")
    parser.add_argument("--after", type=Path, default=target / "release" / "hekate")
    parser.add_argument("--swarm", type=Path, default=target / "release" / "hekate-swarm")
    parser.add_argument("--data", type=Path, default=target / "bench", help="where content is kept")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--scenarios", help="only these, by name, separated by commas")
    return parser.parse_args()


def main():
    """Measures and prints."""
    options = arguments()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    torrent = data.make(options.data, "bench", compare.CONTENT_BYTES)
    data.cache(options.data / "bench")
    builds = {"before": seeders.Hekate(options.before), "after": seeders.Hekate(options.after)}
    plan = [each for each in scenarios.FULL if each.name in FIGURES]
    print("| scenario | figure | before | after | after/before, each pair | median |")
    print("|---|---|---|---|---|---|")
    for scenario in compare.chosen(options.scenarios, plan):
        reports = {"before": [], "after": []}
        for pair in range(options.pairs):
            names = ("before", "after") if pair % 2 == 0 else ("after", "before")
            for name in names:
                figures = compare.run(options, builds[name], scenario, torrent)
                if "failed" in figures:
                    raise SystemExit(f"{name} {scenario.name}: {figures['failed']}")
                reports[name].append(figures)
        for label, read in FIGURES[scenario.name]:
            before, after = ([read(each) for each in reports[name]] for name in builds)
            ratios = [new / old for old, new in zip(before, after)]
            print(
                f"| {scenario.name} | {label} | {statistics.median(before):.4g}"
                f" | {statistics.median(after):.4g} | {' '.join(f'{ratio:.3f}' for ratio in ratios)}"
                f" | **{statistics.median(ratios):.3f}** |",
                flush=True,
            )


if __name__ == "__main__":
    main()
