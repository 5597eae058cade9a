"""Runs every seeder that is installed through the same scenarios, and reports.

usage: python3 tests/bench/compare.py [--quick] [--seeders NAME,...] [--out DIRECTORY]

The seeder has one processor and the swarm another; content is in the page cache. The limit (a bare
writev loop) is measured first and last, so that a machine whose speed changes meanwhile is seen.
Only the standard library is used. A run that fails is reported as such and does not stop the rest.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import data
import report
import scenarios
import seeders
import slowdisk

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
CONTENT_BYTES = 1 << 30
PORT = 16_881
# A run must end by itself long before.
RUN_SECONDS = 300
SWARM_CPU, SEEDER_CPU = 0, 1


def arguments():
    """The command line."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "release"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything: five minutes")
    parser.add_argument("--seeders", help="only these, by name, separated by commas")
    parser.add_argument("--scenarios", help="only these, by name, separated by commas")
    parser.add_argument("--slow-disk", action="store_true", help="with the slow disk, if quick too")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "benchmarks")
    parser.add_argument("--data", type=Path, help="where content is made and kept")
    parser.add_argument("--hekate", type=Path, default=target / "hekate")
    parser.add_argument("--swarm", type=Path, default=target / "hekate-swarm")
    options = parser.parse_args()
    if options.data is None:
        options.data = target.parent / "bench"
    return options


def machine():
    """What the figures depend on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    commit = subprocess.run(
        ["git", "-C", REPOSITORY, "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "kernel": platform.release(),
        "processor": model,
        "processors": os.cpu_count(),
        "memory_mib": memory,
        "commit": commit.stdout.strip(),
    }


def limit(options, seconds):
    """What one processor can do at best: `hekate-swarm limit`."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        content = options.data / "bench"
        command = [options.swarm, "limit", "--file", content, "--seconds", str(seconds)]
        command += ["--cpu", str(SWARM_CPU), "--sender-cpu", str(SEEDER_CPU), "--json", file.name]
        subprocess.run(command, check=True, timeout=RUN_SECONDS, stdout=subprocess.DEVNULL)
        return json.load(open(file.name, encoding="utf-8"))


def run(options, seeder, scenario, torrent):
    """One seeder through one scenario; its report, or what went wrong."""
    with tempfile.TemporaryDirectory(prefix="hekate-bench-") as directory:
        work = Path(directory)
        command = seeder.command(work, [torrent], PORT)
        file = work / "report.json"
        swarm = [options.swarm, "load", "--torrent", torrent]
        swarm += ["--content", options.data, "--address", f"{seeders.ADDRESS}:{PORT}"]
        swarm += ["--cpu", SWARM_CPU, "--seeder-cpu", SEEDER_CPU, "--seeder-log", work / "log"]
        swarm += ["--warm-up", seeder.warm_up, "--ready", 60, "--quiet", "--json", file]
        swarm += ["--label", f"{seeder.name} {scenario.name}", *scenario.options, "--", *command]
        try:
            done = subprocess.run(
                [str(word) for word in swarm],
                capture_output=True,
                text=True,
                check=False,
                timeout=RUN_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"not over after {RUN_SECONDS} s"}
        if done.returncode != 0:
            return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr else "no word"}
        return json.loads(file.read_text())


def chosen(names, found):
    """Those of `found` that are named, or all."""
    wanted = names.split(",") if names else [each.name for each in found]
    unknown = set(wanted) - {each.name for each in found}
    if unknown:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}")
    return [each for each in found if each.name in wanted]


def installed(options, results):
    """The chosen seeders that are here; notes what they are."""
    found = []
    for seeder in chosen(options.seeders, seeders.all_seeders(options.hekate)):
        version = seeder.version()
        if version is None:
            print(f"{seeder.name}: not installed, left out", flush=True)
        else:
            results["seeders"][seeder.name] = version
            found.append(seeder)
    return found


def main():
    """Measures and writes."""
    options = arguments()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    start = time.monotonic()
    torrent = data.make(options.data, "bench", CONTENT_BYTES)
    data.cache(options.data / "bench")
    seconds = 1 if options.quick else 4
    results = {"machine": machine(), "quick": options.quick, "seeders": {}, "runs": []}
    results["limit"] = limit(options, seconds)
    plan = scenarios.QUICK if options.quick else scenarios.FULL
    plan = [] if options.scenarios == "none" else chosen(options.scenarios, plan)
    found = installed(options, results)
    for seeder in found:
        for scenario in plan:
            figures = run(options, seeder, scenario, torrent)
            results["runs"].append(
                {
                    "seeder": seeder.name,
                    "scenario": scenario.name,
                    "shows": scenario.shows,
                    "peers": scenario.peers,
                    "report": figures,
                }
            )
            print(report.line(seeder.name, scenario.name, figures), flush=True)
    if options.slow_disk or not (options.quick or options.scenarios):
        results["slow_disk"] = slowdisk.problem() or slowdisk.measure_all(
            options, found, torrent, PORT, (SWARM_CPU, SEEDER_CPU), 4 if options.quick else 10
        )
    results["limit_after"] = limit(options, seconds)
    results["minutes"] = (time.monotonic() - start) / 60
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1) + "\n"
    (options.out / "report.json").write_text(text, encoding="utf-8")
    (options.out / "report.html").write_text(report.html(results), encoding="utf-8")
    (options.out / "table.md").write_text(report.markdown(results), encoding="utf-8")
    print(f"\n{report.markdown(results)}\n{options.out}/report.html")


if __name__ == "__main__":
    if shutil.which("git") is None:
        sys.exit("git is needed to name what is measured")
    main()
