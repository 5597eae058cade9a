"""libtorrent as a seeder that unchokes everybody, for the comparison.

usage: libtorrent_seed.py ADDRESS PORT TORRENT...

The content lies beside each torrent.

Its own preset for the purpose, high_performance_seed, with what it lacks: room for all peers, an
upload slot for each, and none of the transports and services that the comparison does not use.
"""

import os
import sys
import time

import libtorrent as lt

address, port, *torrents = sys.argv[1:]
settings = lt.high_performance_seed()
settings.update(
    listen_interfaces=f"{address}:{port}",
    listen_queue_size=4096,
    connections_limit=19500,
    unchoke_slots_limit=-1,
    active_limit=-1,
    active_seeds=-1,
    allow_multiple_connections_per_ip=True,
    enable_dht=False,
    enable_lsd=False,
    enable_natpmp=False,
    enable_upnp=False,
    enable_incoming_utp=False,
    enable_outgoing_utp=False,
    in_enc_policy=int(lt.enc_policy.pe_disabled),
    out_enc_policy=int(lt.enc_policy.pe_disabled),
    alert_mask=0,
)
session = lt.session(settings)
for torrent in torrents:
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = os.path.dirname(os.path.abspath(torrent))
    parameters.max_connections = 19500
    parameters.max_uploads = -1
    parameters.flags = lt.torrent_flags.seed_mode
    session.add_torrent(parameters)
while True:
    time.sleep(60)
