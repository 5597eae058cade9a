#!/usr/bin/python3
"""Makes docs/INTEROP.md of the rows that the ignored tests of tests/clients.rs have written.

    python3 tests/tools/interop.py ROWS-DIRECTORY PAGE
"""

import pathlib
import platform
import sys

HEAD = """# Clients

What unmodified clients do with Hekate at their default settings, and set to require encryption. Written by
`make interop`, which runs each client alone in a network of its own, without delay; the torrent has 5.5 MB. Times are in
seconds since the client was started: its start, its announce to the tracker and its own waiting are in them. Hekate is
built as for tests, so throughput is no subject here.

- *contact*: its first TCP connection was accepted
- *first*: it was sent its first block
- *last*: it had an identical copy

`none`: not within 75 s. Transmission 3.00 calls by uTP first, which Hekate does not speak yet; it then connects over TCP,
closes without a byte, and rests for a quarter of an hour. Without uTP (`tests/clients.rs`) it downloads at both settings.
rtorrent does not fetch metadata over an encrypted connection for it alone, and tries again after 10 s.

| client | version | settings | from | contact | first | last |
|---|---|---|---|---|---|---|
"""


def main():
    rows, page = map(pathlib.Path, sys.argv[1:])
    lines = [path.read_text().strip().split("|") for path in sorted(rows.iterdir())]
    table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    foot = f"\nLinux {platform.release().partition('-')[0]}, {platform.machine()}.\n"
    page.write_text(HEAD + table + foot)


if __name__ == "__main__":
    main()
