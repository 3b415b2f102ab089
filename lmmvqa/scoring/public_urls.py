"""URLs that strangers name: fetched by http and https from public addresses only, wherever they redirect to, so that
nobody reaches through this machine what stands around it."""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import urllib.request
from typing import IO

from processing.video_reader import VideoError

# For a connection and for each piece that comes, in seconds.
_SILENCE_S = 30.0
# Addresses that stand for an IPv4 address in their last bytes (RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def open_public(url: str) -> IO[bytes]:
    """A URL as a binary file.

    Raises:
        VideoError: its scheme is another one, or an address on the way is not public.
        OSError, ValueError, http.client.HTTPException: it can't be fetched.
    """
    if not re.match(r"https?://", url, re.IGNORECASE):
        raise VideoError(f"{url} is not fetched: its address must begin with http:// or https://.")
    # Without a proxy, which would connect in our stead, and without handlers of other schemes, for redirects.
    opener = urllib.request.OpenerDirector()
    for handler in (_Http(), _Https(), urllib.request.HTTPRedirectHandler(), urllib.request.HTTPErrorProcessor()):
        opener.add_handler(handler)
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    opener.addheaders = [("User-Agent", "lmmvqa")]
    return opener.open(url, timeout=_SILENCE_S)


def is_public(host: str) -> bool:
    """Whether an IP address is one of the internet, and not of this machine or the network around it."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        # Some stand for an IPv4 address.
        embedded = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if embedded is None and address in _NAT64:
            embedded = ipaddress.IPv4Address(address.packed[-4:])
        if embedded is not None:
            return is_public(str(embedded))
    return address.is_global and not address.is_multicast


def _connect(host: str, port: int, timeout: float) -> socket.socket:
    """The name is resolved once, so that nobody can change what it stands for after it was checked."""
    found = {place[:2]: None for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    for address, _ in found:
        if not is_public(address):
            raise VideoError(f"{host} is not a public address: nothing is fetched from there.")
    for place in list(found)[:-1]:
        try:
            return socket.create_connection(place, timeout)
        except OSError:
            continue
    return socket.create_connection(list(found)[-1], timeout)


class _HttpConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = _connect(self.host, self.port, self.timeout)


class _HttpsConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        plain = _connect(self.host, self.port, self.timeout)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpConnection, request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpsConnection, request)
