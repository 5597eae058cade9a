"""libtorrent as a seeder with its defaults, for the swarm.

usage: swarm_seeder.py TORRENT ADDRESS [--super-seeding]

The content lies beside the torrent.
"""

import os
import sys
import time

import libtorrent as lt

PORT = 6881

torrent, address, *options = sys.argv[1:]
session = lt.session({
    "listen_interfaces": f"{address}:{PORT}",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_natpmp": False,
    "enable_upnp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "alert_mask": 0,
})
parameters = lt.add_torrent_params()
parameters.ti = lt.torrent_info(torrent)
parameters.save_path = os.path.dirname(os.path.abspath(torrent))
parameters.flags = lt.torrent_flags.seed_mode
if "--super-seeding" in options:
    parameters.flags |= lt.torrent_flags.super_seeding
session.add_torrent(parameters)
while True:
    time.sleep(60)
