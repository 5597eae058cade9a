"""How soon a swarm has a copy: real leechers behind shaped lines, one seeder after the other.

usage: python3 tests/bench/swarm.py [--cells NAME;...] [--seeders NAME,...] [--out DIRECTORY]

Each leecher and the seeder is a host of its own on one bridge (lines.py). All leechers know each
other and the seeder, and begin at the same moment. Nobody can be faster than two bounds (Kumar and
Ross, Peer-Assisted File Distribution, 2006): the seeder must send each byte once, F/u_seed, and
everything that is received must be sent, N*F/(u_seed + sum of u_leecher).

What is said of a run, over these bounds:

- last: when the last leecher is complete, over the larger bound;
- copy: when the leechers together have every piece, over F/u_seed; from then on the swarm lives
  without the seeder;
- copies: how many times its content the seeder sent until the last leecher was complete.

With --out it writes a table, a page with plots and all figures there. Needs root, iproute2 and libtorrent
in target/python (`make bench-swarm` installs it). Nothing else should run meanwhile.
"""

import argparse
import math
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import data
import lines
import swarm_report

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
# With the libtorrent that leeches, and is one of the seeders.
PYTHON = TARGET / "python" / "bin" / "python3"
PORT = 6881
MIB = 1 << 20
KIB = 1 << 10
# A seeder that takes longer than this many times the bound has failed.
PATIENCE = 6
# Seconds until a program must have begun to listen; Transmission reads its content first.
START_SECONDS = 40


@dataclass(frozen=True)
class Cell:
    """One swarm. Rates in bytes a second."""

    name: str
    seeder_up: int
    size: int
    piece: int
    leechers: int = 20
    leecher_up: int = 2_500_000
    leecher_down: int = 10_000_000
    # The last ones do not upload.
    silent: int = 0
    # Seconds between a leecher's start and the next one's.
    stagger: float = 0
    leave: bool = False

    def copy_bound(self):
        """Seconds until everything has left the seeder once, at best."""
        return self.size / self.seeder_up

    def bound(self):
        """Seconds until the last leecher is complete, at best."""
        up = self.seeder_up + (self.leechers - self.silent) * self.leecher_up
        return max(self.copy_bound(), self.leechers * self.size / up, self.size / self.leecher_down)


CELLS = [
    Cell("20 Mbit/s, 256 KiB pieces", 2_500_000, 128 * MIB, 256 * KIB),
    Cell("20 Mbit/s, 4 MiB pieces", 2_500_000, 128 * MIB, 4 * MIB),
    Cell("80 Mbit/s, 256 KiB pieces", 10_000_000, 128 * MIB, 256 * KIB),
    Cell("80 Mbit/s, 256 MiB, 4 MiB pieces", 10_000_000, 256 * MIB, 4 * MIB),
    Cell("20 Mbit/s, half without upload", 2_500_000, 128 * MIB, 256 * KIB, silent=10),
    Cell("20 Mbit/s, one by one", 2_500_000, 128 * MIB, 256 * KIB, stagger=3),
    Cell("20 Mbit/s, leave when complete", 2_500_000, 128 * MIB, 256 * KIB, leave=True),
    Cell("20 Mbit/s, one leecher", 2_500_000, 64 * MIB, 256 * KIB, leechers=1),
]


def hekate(program, *options):
    """The command of hekate with its defaults and these options."""
    def command(_work, torrent, address):
        return [program, "seed", "--bind", address, "--port", str(PORT), *options, torrent.parent]
    return command


def libtorrent(*options):
    """The command of libtorrent as a seeder with its defaults."""
    def command(_work, torrent, address):
        return [PYTHON, HERE / "swarm_seeder.py", torrent, address, *options]
    return command


def transmission(work, torrent, address):
    """The command of Transmission with its defaults, but for what looks for peers elsewhere."""
    (work / "watch").mkdir()
    shutil.copy(torrent, work / "watch")
    settings = {
        "bind-address-ipv4": address, "peer-port": PORT, "download-dir": str(torrent.parent),
        "watch-dir": str(work / "watch"), "watch-dir-enabled": True, "rpc-enabled": False,
        "dht-enabled": False, "lpd-enabled": False, "port-forwarding-enabled": False,
        "utp-enabled": False, "encryption": 0, "preallocation": 0,
    }
    (work / "settings.json").write_text(json.dumps(settings))
    return ["transmission-daemon", "--foreground", "--config-dir", work]


def rtorrent(work, torrent, address):
    """The command of rtorrent as an initial seed (its super-seeding)."""
    (work / ".rtorrent.rc").write_text(
        f"session.path.set = {work}\nsystem.daemon.set = true\nnetwork.bind_address.set = {address}\n"
        f"network.port_range.set = {PORT}-{PORT}\nnetwork.port_random.set = no\n"
        "dht.mode.set = disable\nprotocol.pex.set = no\ntrackers.use_udp.set = no\n"
        f'load.start = {torrent}, "d.directory.set={torrent.parent}", '
        '"d.connection_seed.set=initial_seed"\n')
    return ["env", f"HOME={work}", "rtorrent"]


def all_seeders(program):
    """Every seeder by name."""
    return {
        "hekate": hekate(program),
        "hekate -N 4": hekate(program, "-N", "4"),
        "libtorrent": libtorrent(),
        "libtorrent super-seeding": libtorrent("--super-seeding"),
        "transmission": transmission,
        "rtorrent initial_seed": rtorrent,
    }


class Leecher:
    """A leecher's process, and what it has said."""

    def __init__(self, host, torrent, out, leave):
        self.host = host
        self.pieces = {}
        self.started = self.completed = None
        out.mkdir()
        arguments = [torrent, out, host.address] + (["--leave"] if leave else [])
        self.process = subprocess.Popen(
            host.command(PYTHON, HERE / "swarm_leecher.py", *arguments),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        if self.process.stdout.readline().strip() != b"ready":
            raise RuntimeError(f"the leecher at {host.address} did not start")
        os.set_blocking(self.process.stdout.fileno(), False)
        self.rest = b""

    def go(self, peers):
        """Makes it begin."""
        self.started = time.time()
        line = "go " + " ".join(f"{peer}:{PORT}" for peer in peers) + "\n"
        self.process.stdin.write(line.encode())

    def read(self):
        """Takes what it has printed."""
        *whole, self.rest = (self.rest + (self.process.stdout.read() or b"")).split(b"\n")
        for line in whole:
            kind, when, *more = line.decode().split()
            if kind == "piece":
                self.pieces.setdefault(int(more[0]), float(when))
            elif kind == "complete":
                self.completed = self.completed or float(when)


def is_listening(host):
    """Whether something listens at the port of the host."""
    shown = subprocess.run(host.command("ss", "-Hltn", f"sport = {PORT}"), check=True,
                           capture_output=True, text=True).stdout
    return bool(shown.strip())


def swarm(cell, command, torrent, work):
    """One swarm with one seeder; returns what was measured."""
    with lines.Network("hekate-swarm") as network:
        seed = network.host(cell.seeder_up, None)
        (work / "seeder").mkdir()
        log = open(work / "seeder.log", "w")
        seeder = subprocess.Popen(
            seed.command(*command(work / "seeder", torrent, seed.address)),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        leechers = []
        try:
            deadline = time.monotonic() + START_SECONDS
            while not is_listening(seed):
                if seeder.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the seeder did not start; its output:")
                time.sleep(0.1)
            for number in range(cell.leechers):
                is_silent = number >= cell.leechers - cell.silent
                # Requests and acknowledgements go out all the same.
                up = cell.leecher_up // 25 if is_silent else cell.leecher_up
                host = network.host(up, cell.leecher_down)
                out = work / f"leecher{number}"
                leechers.append(Leecher(host, torrent, out, cell.leave))
            return run(cell, seed, seeder, leechers)
        finally:
            for process in [seeder] + [leecher.process for leecher in leechers]:
                process.kill()
                process.wait()


def run(cell, seed, seeder, leechers):
    """Lets the leechers go, and waits for the last one."""
    addresses = [seed.address] + [leecher.host.address for leecher in leechers]
    sent = seed.sent_bytes()
    start = time.time()
    line = []
    while not all(leecher.completed for leecher in leechers):
        elapsed = time.time() - start
        for number, leecher in enumerate(leechers):
            if leecher.started is None and elapsed >= number * cell.stagger:
                leecher.go([peer for peer in addresses if peer != leecher.host.address])
        if elapsed > PATIENCE * cell.bound() + cell.stagger * cell.leechers:
            break
        if seeder.poll() is not None:
            raise RuntimeError("the seeder has ended")
        select.select([leecher.process.stdout for leecher in leechers], [], [], 0.2)
        time.sleep(0.05)
        for leecher in leechers:
            leecher.read()
        if elapsed >= len(line) + 1:
            line.append(seed.sent_bytes() - sent)
    sent = seed.sent_bytes() - sent
    pieces = -(-cell.size // cell.piece)
    first = {}
    for leecher in leechers:
        for piece, when in leecher.pieces.items():
            first[piece] = min(first.get(piece, math.inf), when)
    copy = max(first.values()) - start if len(first) == pieces else math.inf
    times = [(leecher.completed or math.inf) - leecher.started for leecher in leechers]
    last = max(leecher.completed or math.inf for leecher in leechers) - start
    return {
        "last_seconds": last,
        "last": last / cell.bound(),
        "median_seconds": statistics.median(times),
        "copy": copy / cell.copy_bound(),
        "copies": sent / cell.size,
        "first_pieces": sorted(round(when - start, 2) for when in first.values()),
        "sent_each_second": line,
        "completed": sorted(round(seconds, 2) for seconds in times),
    }


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", help="only those whose name contains one of these, separated by semicolons")
    parser.add_argument("--seeders", help="only these, by name, separated by commas")
    parser.add_argument("--hekate", type=Path, default=TARGET / "release" / "hekate")
    parser.add_argument("--data", type=Path, default=TARGET / "bench", help="where content is kept")
    parser.add_argument("--work", type=Path, default=Path("/dev/shm"), help="where copies go")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="the directory of swarm.json, swarm.md and swarm.html")
    return parser.parse_args()


def main():
    """Every chosen seeder in every chosen cell, in turn."""
    options = arguments()
    # So that a run that is stopped ends its processes and removes its namespaces.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    known = all_seeders(options.hekate.resolve())
    names = options.seeders.split(",") if options.seeders else list(known)
    chosen = [cell for cell in CELLS if options.cells is None
              or any(part in cell.name for part in options.cells.split(";"))]
    figures = []
    for _ in range(options.runs):
        for cell in chosen:
            name = f"{cell.size // MIB}x{cell.piece // KIB}"
            torrent = data.make((options.data / "swarm" / name).resolve(), "content", cell.size, cell.piece)
            data.cache(torrent.with_suffix(""))
            print(f"{cell.name}: bound {cell.bound():.1f} s, one copy {cell.copy_bound():.1f} s")
            for seeder in names:
                with tempfile.TemporaryDirectory(dir=options.work) as work:
                    try:
                        result = swarm(cell, known[seeder], torrent, Path(work))
                    except RuntimeError as error:
                        print(f"  {seeder:26} failed: {error}", flush=True)
                        print((Path(work) / "seeder.log").read_text(errors="replace"))
                        continue
                figures.append({"cell": cell.name, "seeder": seeder, **result})
                print(f"  {seeder:26} last {result['last']:5.2f}  copy {result['copy']:5.2f}  "
                      f"copies {result['copies']:5.2f}  median {result['median_seconds']:6.1f} s",
                      flush=True)
    if options.out:
        swarm_report.write(options.out, figures, CELLS)


if __name__ == "__main__":
    sys.exit(main())
