#!/usr/bin/python3
"""Downloads one torrent with libtorrent and leaves when it is complete.

    python3 libtorrent_leech.py TORRENT-or-MAGNET OUT [--peer HOST:PORT]...

Peers come from the trackers that the torrent names and from --peer; nothing is searched for
(no DHT, no local discovery). Everything else is left as libtorrent has it: uTP is tried before
TCP, encryption before plain text.

Exit code: 0 complete, 1 failed or out of time, 2 wrong arguments.
Needs Debian's python3-libtorrent; another Python than /usr/bin/python3 does not see it.
"""

import argparse
import os
import sys
import time

try:
    import libtorrent
except ImportError:
    sys.exit(f"{sys.executable} has no libtorrent: apt-get install python3-libtorrent, use /usr/bin/python3")


def peer(text):
    """HOST:PORT, with brackets around an IPv6 address."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def arguments():
    parser = argparse.ArgumentParser(description="Download one torrent with libtorrent.")
    parser.add_argument("torrent", metavar="TORRENT-or-MAGNET")
    parser.add_argument("out", metavar="OUT", help="directory for what is downloaded")
    parser.add_argument("--peer", metavar="HOST:PORT", type=peer, action="append", default=[],
                        help="a peer to connect to; may be repeated")
    parser.add_argument("--bind", metavar="ADDR", help="local address, brackets around IPv6 (default: all)")
    parser.add_argument("--encrypt", action="store_true", help="connect by RC4 only")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=600)
    return parser.parse_args()


def parameters(options):
    try:
        if options.torrent.startswith("magnet:"):
            params = libtorrent.parse_magnet_uri(options.torrent)
        else:
            params = libtorrent.add_torrent_params()
            params.ti = libtorrent.torrent_info(options.torrent)
    except RuntimeError as error:
        sys.exit(f"{options.torrent}: {error}")
    params.save_path = options.out
    # Started at once, not when a queue of torrents gets round to it.
    params.flags &= ~(libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused)
    return params


def settings(options):
    chosen = {
        "alert_mask": libtorrent.alert.category_t.error_notification
        | libtorrent.alert.category_t.status_notification
        | libtorrent.alert.category_t.connect_notification
        | libtorrent.alert.category_t.tracker_notification,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
    }
    if options.bind:
        chosen["listen_interfaces"] = f"{options.bind}:0"
        chosen["outgoing_interfaces"] = options.bind.strip("[]")
    else:
        # Any free port: the default may belong to another client of the user.
        chosen["listen_interfaces"] = "0.0.0.0:0,[::]:0"
    if options.encrypt:
        chosen["out_enc_policy"] = chosen["in_enc_policy"] = int(libtorrent.enc_policy.forced)
        chosen["allowed_enc_level"] = int(libtorrent.enc_level.rc4)
    return chosen


def main():
    options = arguments()
    os.makedirs(options.out, exist_ok=True)
    params = parameters(options)
    session = libtorrent.session(settings(options))
    started = time.monotonic()
    handle = session.add_torrent(params)
    for address in options.peer:
        handle.connect_peer(address)
    shown = 0.0
    while True:
        session.wait_for_alert(500)
        for alert in session.pop_alerts():
            print(f"{time.monotonic() - started:8.3f} {alert.what()}: {alert.message()}", flush=True)
        status = handle.status()
        elapsed = time.monotonic() - started
        if status.errc.value():
            sys.exit(f"{status.name}: {status.errc.message()}")
        if status.is_seeding:
            break
        if elapsed > options.timeout:
            sys.exit(f"{status.name}: {status.progress:.1%} after {elapsed:.0f} s, {status.num_peers} peers")
        if elapsed - shown >= 1:
            shown = elapsed
            print(f"{elapsed:8.3f} {status.state}: {status.progress:.1%}, {status.num_peers} peers, "
                  f"{status.download_rate / 1e6:.1f} MB/s", flush=True)
    print(f"{status.name}: complete, {status.total_done} bytes in {elapsed:.2f} s")


if __name__ == "__main__":
    main()
