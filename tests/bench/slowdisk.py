"""A slow disk, and what it does to those who do not read from it.

The disk is an ext4 image on a loop device; the seeder's control group may read from it at a hundred
requests a second. Twenty leechers ask for content in the page cache, first alone and then beside
fifty that ask for content on the slow disk. Needs root, a loop device and the blkio controller
(version 1 or 2); where one is missing, `problem` says which.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import data
import seeders

REQUESTS_PER_SECOND = 100
BLOCK_BYTES = 16_384
# More than can be read while it is measured, or the disk would become a cached one.
CONTENT_BYTES = 1 << 30
IMAGE_BYTES = CONTENT_BYTES + (128 << 20)
FAST_PEERS, SLOW_PEERS = 20, 50
# Leechers of the second swarm come from other addresses than those of the first.
OTHER_ADDRESSES = 1_000_000
NOBODY = "65534"
VERSION_1 = Path("/sys/fs/cgroup/blkio")
VERSION_2 = Path("/sys/fs/cgroup")


def problem():
    """Why there can be no slow disk here, or None."""
    if os.geteuid() != 0:
        return "no slow disk: root is needed"
    if not Path("/dev/loop-control").exists():
        return "no slow disk: there are no loop devices"
    for program in ("mkfs.ext4", "losetup", "mount", "umount", "setpriv", "taskset"):
        if shutil.which(program) is None:
            return f"no slow disk: {program} is missing"
    controllers = VERSION_2 / "cgroup.controllers"
    if (VERSION_1 / "blkio.throttle.read_iops_device").exists() or VERSION_1.is_dir():
        return None
    if controllers.exists() and "io" in controllers.read_text().split():
        return None
    return "no slow disk: the kernel has no blkio controller"


def call(*command):
    """Runs a command that must succeed; returns what it says."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return done.stdout.strip()


@contextlib.contextmanager
def mounted(directory):
    """A file system on a loop device: gives its directory and the device's name."""
    image, where = directory / "slow.img", directory / "slow"
    where.mkdir(exist_ok=True)
    with open(image, "wb") as file:
        file.truncate(IMAGE_BYTES)
    call("mkfs.ext4", "-q", "-m", "0", str(image))
    device = call("losetup", "--find", "--show", str(image))
    try:
        call("mount", device, str(where))
        try:
            yield where, Path(device).name
        finally:
            call("umount", str(where))
    finally:
        call("losetup", "--detach", device)
        image.unlink()


@contextlib.contextmanager
def throttled(device):
    """A control group that may read from the device so often a second: gives its list of processes."""
    number = Path(f"/sys/block/{device}/dev").read_text().strip()
    if VERSION_1.is_dir():
        group = VERSION_1 / "hekate-bench"
        file, rule = "blkio.throttle.read_iops_device", f"{number} {REQUESTS_PER_SECOND}"
    else:
        (VERSION_2 / "cgroup.subtree_control").write_text("+io")
        group = VERSION_2 / "hekate-bench"
        file, rule = "io.max", f"{number} riops={REQUESTS_PER_SECOND}"
    group.mkdir(exist_ok=True)
    try:
        (group / file).write_text(rule)
        yield group / "cgroup.procs"
    finally:
        # A group can be removed when the last of its processes is gone.
        for _ in range(50):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


def read_from(device):
    """Requests completed and bytes read since the device exists."""
    fields = Path(f"/sys/block/{device}/stat").read_text().split()
    return int(fields[0]), int(fields[2]) * 512


class Run:
    """One seeder with two torrents: `fast` in the page cache, `slow` on the slow disk."""

    def __init__(self, options, port, cpus, fast, slow):
        self.options, self.port, self.fast, self.slow = options, port, fast, slow
        self.swarm_cpu, self.seeder_cpu = cpus

    def swarm(self, torrent, pid, peers, seconds, *more):
        """Starts a swarm; returns the process and the file of its report."""
        file = tempfile.NamedTemporaryFile(suffix=".json")
        command = [self.options.swarm, "load", "--torrent", torrent, "--content", torrent.parent]
        command += ["--address", f"{seeders.ADDRESS}:{self.port}", "--pid", pid, "--peers", peers]
        command += ["--seconds", seconds, "--cpu", self.swarm_cpu, "--verify", "0.01"]
        command += ["--ready", 90, "--quiet", "--json", file.name, *more]
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
        return process, file

    def report(self, swarm):
        """Waits for a swarm; its report."""
        process, file = swarm
        if process.wait(timeout=180) != 0:
            raise RuntimeError("the swarm failed")
        return json.load(open(file.name, encoding="utf-8"))

    def measure(self, seeder, owner, device, processes, seconds):
        """The figures of one seeder; `owner` tells whether it runs as the content's owner."""
        with tempfile.TemporaryDirectory(prefix="hekate-bench-") as directory:
            work = Path(directory)
            command = seeder.command(work, [self.fast, self.slow], self.port)
            if not owner:
                call("chown", "-R", NOBODY, str(work))
                ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
                command = ["setpriv", *ids, *command]
            command = ["taskset", "-c", str(self.seeder_cpu), *command]
            log = open(work / "log", "wb")
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                return self.loads(seeder, process.pid, device, processes, seconds)
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def loads(self, seeder, pid, device, processes, seconds):
        """Serves both, then one alone, then both at once."""
        warm_up = ("--warm-up", seeder.warm_up)
        # Somebody who only says hello waits until it serves, and reads nothing: pages that the
        # seeder has mapped could not be evicted any more.
        self.report(self.swarm(self.slow, pid, 0, 1, "--idle", 1, "--warm-up", 0))
        processes.write_text(str(pid))
        data.evict(self.slow.parent / "slow")
        data.cache(self.fast.parent / "bench")
        alone = self.report(self.swarm(self.fast, pid, FAST_PEERS, seconds, *warm_up))
        data.evict(self.slow.parent / "slow")
        start, before = time.monotonic(), read_from(device)
        other = ("--first-address", OTHER_ADDRESSES)
        slow = self.swarm(self.slow, pid, SLOW_PEERS, seconds + 4, *warm_up, *other)
        time.sleep(2)
        beside = self.report(self.swarm(self.fast, pid, FAST_PEERS, seconds, *warm_up))
        slow = self.report(slow)
        after, elapsed = read_from(device), time.monotonic() - start
        read = after[1] - before[1]
        sent = slow["blocks"]["all"] * BLOCK_BYTES
        return {
            "alone": alone,
            "beside": beside,
            "slow": slow,
            "cached_throughput_ratio": beside["throughput"]["gb_per_second"]
            / max(alone["throughput"]["gb_per_second"], 1e-9),
            "cached_p99_ratio": (beside["latency_us"]["p99"] or 0)
            / max(alone["latency_us"]["p99"] or 1, 1),
            "slow_bytes_per_second": slow["throughput"]["gb_per_second"] * 1e9,
            "times_one_read_per_block": slow["throughput"]["gb_per_second"]
            * 1e9
            / (REQUESTS_PER_SECOND * BLOCK_BYTES),
            "read_bytes": read,
            "sent_per_read": sent / max(read, 1),
            "reads_per_second": (after[0] - before[0]) / elapsed,
        }


def measure_all(options, found, fast, port, cpus, seconds):
    """Every seeder that can serve two directories; hekate also as a user who owns nothing."""
    results = []
    with mounted(options.data) as (where, device), throttled(device) as processes:
        slow = data.make(where, "slow", CONTENT_BYTES)
        run = Run(options, port, cpus, fast, slow)
        for seeder in found:
            if seeder.one_directory:
                continue
            for owner in (True, False) if seeder.name == "hekate" else (True,):
                try:
                    figures = run.measure(seeder, owner, device, processes, seconds)
                except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                    figures = {"failed": str(error)}
                results.append({"seeder": seeder.name, "owner": owner, **figures})
                print(line(results[-1]), flush=True)
    return results


def line(result):
    """One seeder in one line."""
    name = result["seeder"] + ("" if result["owner"] else " (not the owner)")
    if "failed" in result:
        return f"{name:24} slow disk failed: {result['failed']}"
    return (
        f"{name:24} cached beside slow {result['cached_throughput_ratio']:.2f} x,"
        f" p99 {result['cached_p99_ratio']:.2f} x;"
        f" slow {result['slow_bytes_per_second'] / 1e6:.1f} MB/s,"
        f" {result['times_one_read_per_block']:.1f} x one read per block,"
        f" sent/read {result['sent_per_read']:.2f}, {result['reads_per_second']:.0f} reads/s"
    )


def markdown(results):
    """The table."""
    if isinstance(results, str):
        return f"{results}\n"
    out = [
        f"**slow-disk**: {FAST_PEERS} leechers of cached content beside {SLOW_PEERS} of content on a"
        f" disk of {REQUESTS_PER_SECOND} reads a second, whole pieces in random order",
        "",
        "| seeder | cached GB/s alone | beside | ratio | p99 ratio | slow MB/s |"
        " × one read per block | sent / read |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        name = result["seeder"] + ("" if result["owner"] else ", not the owner")
        if "failed" in result:
            out.append(f"| {name} | failed: {result['failed']} |" + " |" * 6)
            continue
        out.append(
            f"| {name} | {result['alone']['throughput']['gb_per_second']:.2f}"
            f" | {result['beside']['throughput']['gb_per_second']:.2f}"
            f" | {result['cached_throughput_ratio']:.2f} | {result['cached_p99_ratio']:.2f}"
            f" | {result['slow_bytes_per_second'] / 1e6:.1f}"
            f" | {result['times_one_read_per_block']:.1f} | {result['sent_per_read']:.2f} |"
        )
    return "\n".join(out) + "\n"
