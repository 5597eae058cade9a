"""The libtorrent session of a host in the swarm: its own settings, but for uTP, encryption and what
looks for peers elsewhere."""

import libtorrent as lt

PORT = 6881


def start(address, **more):
    """Starts a session that listens at an address, with more settings."""
    return lt.session({
        "listen_interfaces": f"{address}:{PORT}",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_natpmp": False,
        "enable_upnp": False,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "in_enc_policy": int(lt.enc_policy.pe_disabled),
        "out_enc_policy": int(lt.enc_policy.pe_disabled),
        **more,
    })
