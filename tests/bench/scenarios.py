"""What each seeder is put through.

A scenario is a name, what it shows, and the options of `hekate-swarm load`. The window's length and
the sizes depend on whether there are five minutes or as long as it takes.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """One run of the swarm."""

    name: str
    shows: str
    options: tuple
    # Peers for the axis of the plots, where the scenario is a point of them.
    peers: int = 0


def load(peers, seconds):
    """So many leechers, whole pieces at random, one block in a hundred compared."""
    return Scenario(
        f"load-{peers}",
        f"{peers} leechers ask for whole pieces in random order",
        ("--peers", str(peers), "--seconds", str(seconds), "--verify", "0.01"),
        peers,
    )


def idle(peers, seconds):
    """Connections that only say hello: memory and processor time for each."""
    return Scenario(
        f"idle-{peers}",
        f"{peers} connections that say hello and nothing else",
        ("--peers", "0", "--idle", str(peers), "--seconds", str(seconds)),
    )


QUICK = (load(50, 4), load(1000, 4), idle(2000, 3))

FULL = (
    load(50, 6),
    load(1000, 6),
    load(5000, 6),
    load(19_000, 12),
    idle(10_000, 6),
    Scenario(
        "churn",
        "500 leechers, of which 3,000 are replaced each second",
        ("--peers", "500", "--churn", "3000", "--seconds", "6"),
    ),
    Scenario(
        "no-churn",
        "the same 500 when nobody is replaced",
        ("--peers", "500", "--seconds", "6"),
    ),
    Scenario(
        "stalled",
        "50 leechers beside 5,000 that ask for 4 MB each and stop reading",
        ("--peers", "50", "--stalled", "5000", "--stalled-buffer", "4096", "--seconds", "6"),
    ),
    Scenario(
        "flash-crowd",
        "5,000 leechers that come in the same moment",
        ("--peers", "5000", "--connect-rate", "0", "--seconds", "6"),
        0,
    ),
    Scenario(
        "blocks",
        "1,000 leechers ask for single blocks in random order",
        ("--peers", "1000", "--order", "blocks", "--seconds", "6"),
    ),
)
