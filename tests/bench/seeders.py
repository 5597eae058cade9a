"""The seeders that are compared: whether they are here, and how each is set up and started.

Each is told to unchoke everybody and to admit as many peers as the descriptors allow. It gets a
work directory of its own, and is started by hekate-swarm, which binds it to a processor and looks
at its process: a command must not fork.
"""

import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
ADDRESS = "127.0.0.1"
PEERS = 19_900


class Seeder:
    """One seeder. `warm_up` is how many seconds it takes at most to unchoke everybody."""

    name = ""
    warm_up = 3
    # Whether all content must lie in one directory.
    one_directory = False

    def version(self):
        """A line about what is installed, or None if nothing is."""
        raise NotImplementedError

    def command(self, work, torrents, port):
        """Sets up the empty directory `work`; returns the command that serves the torrents, each
        of which has its content beside it."""
        raise NotImplementedError


def first_line(*command):
    """What a program says of itself, or None if there is no such program."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[0] if done.returncode in (0, 1) and lines else None


def filled(name, **values):
    """A configuration file of this directory with its words in capitals replaced."""
    text = (HERE / name).read_text()
    for word, value in values.items():
        text = re.sub(rf"\b{word}\b", str(value), text)
    return text


class Hekate(Seeder):
    name = "hekate"

    def __init__(self, program):
        self.program = program

    def version(self):
        return first_line(str(self.program), "--version")

    def command(self, work, torrents, port):
        peers = str(PEERS)
        options = ["--bind", ADDRESS, "--port", str(port), "-N", peers, "--max-peers", peers]
        directories = [str(torrent.parent) for torrent in torrents]
        return [str(self.program), "seed", *options, *directories]


class Rtorrent(Seeder):
    name = "rtorrent"

    def version(self):
        line = first_line("rtorrent", "-h")
        found = line and re.search(r"version ([0-9.]*[0-9])", line)
        return f"rtorrent {found[1]}" if found else line

    def command(self, work, torrents, port):
        text = filled("rtorrent.rc", WORK=work, PORT=port, ADDRESS=ADDRESS)
        for torrent in torrents:
            text += f'load.start = {torrent}, "d.directory.set={torrent.parent}"\n'
        (work / ".rtorrent.rc").write_text(text)
        return ["env", f"HOME={work}", "rtorrent"]


class Libtorrent(Seeder):
    name = "libtorrent"
    # Under load it takes in new connections slowly.
    warm_up = 12

    def __init__(self):
        # A Python that stands before the system's in the path does not see the system's modules.
        self.python = "/usr/bin/python3"

    def version(self):
        line = first_line(self.python, "-c", "import libtorrent; print(libtorrent.__version__)")
        return f"libtorrent {line}" if line and line[0].isdigit() else None

    def command(self, work, torrents, port):
        script = str(HERE / "libtorrent_seed.py")
        return [self.python, script, ADDRESS, str(port), *map(str, torrents)]


class Transmission(Seeder):
    name = "transmission"
    one_directory = True
    # It decides whom to unchoke every ten seconds, and reads the content before it serves it.
    warm_up = 14

    def version(self):
        line = first_line("transmission-daemon", "--version")
        return line and line.replace("transmission-daemon", "transmission").split(" (")[0]

    def command(self, work, torrents, port):
        content = torrents[0].parent
        text = filled("transmission.json", WORK=work, CONTENT=content, PORT=port, ADDRESS=ADDRESS)
        (work / "settings.json").write_text(text)
        (work / "watch").mkdir()
        shutil.copy(torrents[0], work / "watch")
        return ["transmission-daemon", "--foreground", "--config-dir", str(work)]


def all_seeders(hekate):
    """Every seeder that is known, in the order of the report."""
    return [Hekate(hekate), Rtorrent(), Libtorrent(), Transmission()]
