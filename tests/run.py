#!/usr/bin/env python3
"""Run the test binaries side by side and print one line for each, and the output of those that fail.

Cargo runs them one after another, and most of them wait most of the time. They are built before
anything runs, so that no test competes with the compiler.
"""

import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CARGO = os.environ.get("CARGO", "cargo")
# The longest come first, so that none is left alone at the end.
LONGEST = ["packaging", "clients", "hekate (lib)", "trackers", "changing", "starting"]


def build(arguments):
    """Build the tests; return the name and the path of each binary."""
    command = [CARGO, "test", "--locked", "--no-run", "--message-format=json-render-diagnostics"]
    output = subprocess.run(
        command + arguments, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True
    ).stdout
    binaries = []
    for message in map(json.loads, output.splitlines()):
        if message.get("executable") and message["profile"]["test"]:
            target = message["target"]
            kind = target["kind"][0]
            name = target["name"] if kind == "test" else f"{target['name']} ({kind})"
            binaries.append((name, [message["executable"]]))
    return binaries


def run(name, command):
    """Run one of them to its end."""
    start = time.monotonic()
    ended = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"CARGO_MANIFEST_DIR": str(ROOT)},
    )
    return name, ended.returncode, ended.stdout.decode(errors="replace"), time.monotonic() - start


def counts(output):
    """How many tests passed and failed, as the harness says it."""
    results = re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed;", output, re.MULTILINE)
    return (sum(int(count) for count in column) for column in zip(*results, (0, 0)))


def main():
    """Build, run, and exit with 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-j", "--jobs", type=int, default=2, help="binaries at a time (default: 2)")
    parser.add_argument("arguments", nargs="*", help="for `cargo test`, such as `--test loopback`")
    options = parser.parse_args()

    binaries = build(options.arguments)
    if not options.arguments:
        binaries.append(("documentation", [CARGO, "test", "--locked", "--doc"]))
    order = {name: place for place, name in enumerate(LONGEST)}
    binaries.sort(key=lambda binary: order.get(binary[0], len(order)))

    failed = []
    all_passed = all_failed = 0
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = [pool.submit(run, *binary) for binary in binaries]
        for done in concurrent.futures.as_completed(runs):
            name, code, output, seconds = done.result()
            passes, failures = counts(output)
            all_passed += passes
            # A binary may fail without a count: it was killed, or has no harness.
            all_failed += max(failures, int(code != 0))
            if code:
                failed.append(name)
                print(f"---- {name} ----\n{output}---- {name} failed with code {code} ----")
            else:
                print(f"ok  {name:<22} {seconds:6.1f} s  {passes} passed", flush=True)
    print(f"{len(binaries)} test binaries in {time.monotonic() - start:.0f} s")
    print(f"{all_passed} passed, {all_failed} failed", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(sorted(failed))}")


if __name__ == "__main__":
    main()
