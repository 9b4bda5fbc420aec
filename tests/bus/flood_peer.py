"""A process that calls immud as fast as the bus takes it: flood_peer.py ADDRESS

Over a bare socket, and with the call marshalled once, so that it is faster than anything
written in Python that has to read it.
"""

import socket
import struct
import sys


def call(destination: str, path: str, interface: str, member: str, flags: int) -> bytes:
    fields = b""
    values = ((1, b"o", path), (2, b"s", interface), (3, b"s", member), (6, b"s", destination))
    for code, kind, value in values:
        fields += bytes(-len(fields) % 8)
        fields += bytes([code, 1]) + kind + b"\0" + struct.pack("<I", len(value))
        fields += value.encode() + b"\0"
    header = struct.pack("<cBBBIII", b"l", 1, flags, 1, 0, 7, len(fields)) + fields
    return header + bytes(-len(header) % 8)


def main(address: str) -> None:
    bus = socket.socket(socket.AF_UNIX)
    bus.connect(address.removeprefix("unix:path="))
    bus.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
    while not bus.recv(4096).rstrip().rpartition(b"\r\n")[2].startswith(b"OK"):
        pass
    driver = "org.freedesktop.DBus"
    bus.sendall(call(driver, "/org/freedesktop/DBus", driver, "Hello", 0))
    bus.recv(4096)
    noise = call("org.immud1", "/org/immud1", "org.immud1.Manager", "ListMounts", 1) * 64
    print("ready", flush=True)
    while True:
        bus.sendall(noise)


if __name__ == "__main__":
    main(sys.argv[1])
