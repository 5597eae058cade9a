"""libtorrent as a seeder of the swarm.

usage: swarm_seeder.py TORRENT ADDRESS [--super-seeding]

The content lies beside the torrent.
"""

import os
import sys
import time

import libtorrent as lt

import swarm_session

torrent, address, *options = sys.argv[1:]
session = swarm_session.start(address, alert_mask=0)
parameters = lt.add_torrent_params()
parameters.ti = lt.torrent_info(torrent)
parameters.save_path = os.path.dirname(os.path.abspath(torrent))
parameters.flags = lt.torrent_flags.seed_mode
if "--super-seeding" in options:
    parameters.flags |= lt.torrent_flags.super_seeding
session.add_torrent(parameters)
while True:
    time.sleep(60)
