"""Content and torrents for the comparison.

Owns what is served: random bytes, so that nothing can be cheaper than it is, and a single-file
torrent of them. What exists already is kept.
"""

import hashlib
import os
from pathlib import Path

PIECE_BYTES = 256 * 1024
# Nothing listens there; rtorrent ignores a torrent that names no tracker.
ANNOUNCE = "http://127.0.0.1:9/announce"


def bencode(value):
    """The bencoding (BEP 3) of numbers, strings, bytes, lists and dictionaries."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    items = sorted((key.encode(), item) for key, item in value.items())
    return b"d" + b"".join(bencode(key) + bencode(item) for key, item in items) + b"e"


def make(directory, name, size_bytes, piece_bytes=PIECE_BYTES):
    """Makes `directory/name` and beside it `name.torrent`; returns the torrent's path."""
    content = Path(directory) / name
    torrent = Path(directory) / f"{name}.torrent"
    content.parent.mkdir(parents=True, exist_ok=True)
    if torrent.exists() and content.exists() and content.stat().st_size == size_bytes:
        return torrent
    pieces = bytearray()
    with open(content, "wb") as file:
        left = size_bytes
        while left:
            piece = os.urandom(min(piece_bytes, left))
            file.write(piece)
            pieces += hashlib.sha1(piece).digest()
            left -= len(piece)
    content.chmod(0o644)
    info = {
        "length": size_bytes,
        "name": name,
        "piece length": piece_bytes,
        "pieces": bytes(pieces),
    }
    torrent.write_bytes(bencode({"announce": ANNOUNCE, "info": info}))
    return torrent


def cache(path):
    """Reads a file, so that it is in the page cache."""
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def evict(path):
    """Drops a file from the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
