"""One libtorrent leecher of the swarm: says when it has which piece.

usage: swarm_leecher.py TORRENT OUT ADDRESS [--leave]

Prints `ready`, and waits for a line `go ADDRESS:PORT ...` with the peers to connect to. Then prints
`piece TIME INDEX` and `complete TIME`, with times in seconds since 1970. Ends with its standard
input; with --leave also when it is complete.
"""

import select
import sys
import time

import libtorrent as lt

import swarm_session

torrent, out, address, *options = sys.argv[1:]
session = swarm_session.start(
    address,
    alert_mask=lt.alert.category_t.piece_progress_notification
    | lt.alert.category_t.status_notification,
    alert_queue_size=100_000,
)
parameters = lt.add_torrent_params()
parameters.ti = lt.torrent_info(torrent)
parameters.save_path = out
parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
print("ready", flush=True)

command, *peers = sys.stdin.readline().split()
if command != "go":
    sys.exit(f"`go` was expected, not {command}")
handle = session.add_torrent(parameters)
for peer in peers:
    host, _, port = peer.rpartition(":")
    handle.connect_peer((host, int(port)))
while True:
    session.wait_for_alert(200)
    for alert in session.pop_alerts():
        if isinstance(alert, lt.piece_finished_alert):
            print(f"piece {time.time():.3f} {alert.piece_index}", flush=True)
        elif isinstance(alert, lt.torrent_finished_alert):
            print(f"complete {time.time():.3f}", flush=True)
            if "--leave" in options:
                sys.exit()
    if select.select([sys.stdin], [], [], 0)[0] and not sys.stdin.readline():
        break
