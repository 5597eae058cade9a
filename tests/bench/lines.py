"""Hosts with lines: network namespaces on one bridge, each behind a link of a given rate.

Needs root and iproute2. A link has a token bucket (tc-tbf(8)) for each direction; its queue holds
QUEUE_MS of packets, as that of a home router does.
"""

import subprocess

QUEUE_MS = 50
# Enough for a timer's granularity at 1 Gbit/s.
BURST_BYTES = 32 * 1024
# Ethernet, IPv4 and TCP with timestamps: what a counter of the link holds beside payload.
HEADER_BYTES = 14 + 20 + 32
SUBNET = "10.77.0"


def run(*command):
    """Runs a command that must work."""
    subprocess.run(command, check=True, capture_output=True, text=True)


class Network:
    """A bridge and its hosts. Everything is removed at the end of the `with`."""

    def __init__(self, name):
        self.name = name
        self.switch = f"{name}-switch"
        self.hosts = []

    def __enter__(self):
        self.remove_old()
        run("ip", "netns", "add", self.switch)
        run("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.switch, "link", "set", "br0", "up")
        return self

    def __exit__(self, *_):
        self.remove_old()

    def remove_old(self):
        """Removes the namespaces of this name, those of a run that was killed too."""
        listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True)
        for line in listed.stdout.splitlines():
            if line.startswith(f"{self.name}-"):
                run("ip", "netns", "delete", line.split()[0])

    def host(self, up_bytes, down_bytes):
        """Adds a host that sends and receives so many bytes a second; None: without a limit."""
        host = Host(self, len(self.hosts) + 1, up_bytes, down_bytes)
        self.hosts.append(host)
        return host


class Host:
    """One namespace with one address."""

    def __init__(self, network, number, up_bytes, down_bytes):
        self.namespace = f"{network.name}-{number}"
        self.address = f"{SUBNET}.{number}"
        self.switch = network.switch
        self.port = f"port{number}"
        run("ip", "netns", "add", self.namespace)
        run("ip", "-n", self.switch, "link", "add", self.port, "type", "veth",
            "peer", "name", "line", "netns", self.namespace)
        run("ip", "-n", self.switch, "link", "set", self.port, "master", "br0", "up")
        # Small enough for the bucket, and 16 times cheaper than one packet for each frame: on a small
        # machine the processor would be the bottleneck of the swarm.
        run("ip", "-n", self.namespace, "link", "set", "line", "gso_max_segs", "16")
        run("ip", "-n", self.namespace, "address", "add", f"{self.address}/24", "dev", "line")
        run("ip", "-n", self.namespace, "link", "set", "lo", "up")
        run("ip", "-n", self.namespace, "link", "set", "line", "up")
        self.shape(up_bytes, down_bytes)

    def shape(self, up_bytes, down_bytes):
        """Sets the rates of the line in bytes a second; None: no limit."""
        shape(self.namespace, "line", up_bytes)
        shape(self.switch, self.port, down_bytes)

    def command(self, *command):
        """The command to run `command` here."""
        return ["ip", "netns", "exec", self.namespace, *map(str, command)]

    def sent_bytes(self):
        """Bytes of payload that have left this host: what the link counts, without headers."""
        def counter(name):
            path = f"/sys/class/net/line/statistics/tx_{name}"
            done = subprocess.run(self.command("cat", path), check=True, capture_output=True)
            return int(done.stdout)
        return counter("bytes") - HEADER_BYTES * counter("packets")


def shape(namespace, device, rate_bytes):
    """Replaces the bucket of a device."""
    if rate_bytes is None:
        subprocess.run(["tc", "-n", namespace, "qdisc", "delete", "dev", device, "root"],
                       check=False, capture_output=True)
        return
    run("tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", "tbf",
        "rate", f"{rate_bytes * 8}bit", "burst", str(BURST_BYTES), "latency", f"{QUEUE_MS}ms")
