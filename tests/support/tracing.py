"""Runs a program under strace and lists what it did outside of itself: names, addresses and files."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

HAS_STRACE = shutil.which("strace") is not None

_NETWORK = "connect,sendto,sendmsg,sendmmsg"
_OPENING = "open,openat,openat2"
_MAKING = "creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mknod,mknodat,truncate"
_CALL = re.compile(r"^\d+ +(\w+)\((.*)")
_ADDRESS = re.compile(r'inet_(?:addr|pton)\((?:AF_INET6, )?"([^"]+)"')
_PORT = re.compile(r"sin6?_port=htons\((\d+)\)")
_SOCKET_FILE = re.compile(r'sun_path="([^"]+)"')
#: A path, and the open folder that it is relative to where strace says so.
_PATH = re.compile(r'(?:\w+<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_DNS_PORT = "53"
#: A resolver reads them before it asks anybody.
_RESOLVER_FILES = {"/etc/hosts", "/etc/resolv.conf", "/etc/gai.conf"}
_RESOLVER_SOCKETS = ("/var/run/nscd", "/run/nscd", "/run/systemd/resolve")


@dataclass
class Deeds:
    """What a program and its children did, whether it worked or not.

    Attributes:
        lookups: services that were asked for a name.
        resolver_files: files that a resolver reads before it asks; gRPC does even for a numeric address.
        addresses: addresses of others than this machine.
        written: files that were made or opened for writing, as absolute paths.
    """

    lookups: set[str] = field(default_factory=set)
    resolver_files: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)


def traced(command: list[str], log: Path) -> list[str]:
    """A command under strace, which writes to `log`; the process is the program itself, not strace."""
    what = f"trace={_NETWORK},{_OPENING},{_MAKING}"
    return ["strace", "-D", "-f", "--seccomp-bpf", "-y", "-s", "512", "-e", what, "-o", str(log), *command]


def has_ended(log: Path, pid: int) -> bool:
    """Whether strace has written the program's end."""
    return re.search(rf"^{pid} +\+\+\+ ", log.read_text(errors="replace"), re.MULTILINE) is not None


def deeds_in(log: Path, folder: Path) -> Deeds:
    """Read a log of strace.

    Args:
        log: what `traced` has written.
        folder: the program's working directory.
    """
    deeds = Deeds()
    for line in log.read_text(errors="replace").splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        name, arguments = call.groups()
        if name in _NETWORK.split(","):
            _note_traffic(deeds, arguments)
        else:
            _note_files(deeds, name, arguments, folder)
    return deeds


def _note_traffic(deeds: Deeds, arguments: str) -> None:
    # What is sent may hold such a text too, but comes before the address.
    addresses = _ADDRESS.findall(arguments)
    port = _PORT.search(arguments)
    if port and port[1] == _DNS_PORT:
        deeds.lookups.add(f"DNS at {addresses}")
    deeds.addresses.update(address for address in addresses if not _is_loopback(address))
    deeds.lookups.update(path for path in _SOCKET_FILE.findall(arguments) if path.startswith(_RESOLVER_SOCKETS))


def _is_loopback(address: str) -> bool:
    # A socket for both families has an address of the older one behind this prefix.
    return ip_address(address.removeprefix("::ffff:")).is_loopback


def _note_files(deeds: Deeds, name: str, arguments: str, folder: Path) -> None:
    paths = list(_paths_in(arguments, folder))
    if name in _OPENING.split(","):
        deeds.resolver_files.update(path for path in paths if path in _RESOLVER_FILES)
        if not re.search(r"O_WRONLY|O_RDWR|O_CREAT", arguments):
            return
    deeds.written.update(paths)


def _paths_in(arguments: str, folder: Path) -> Iterator[str]:
    for base, path in _PATH.findall(arguments):
        yield os.path.normpath(folder / base / path)
