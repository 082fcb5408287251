"""Route × Origin × Host against a table of expected answers, and the guard by itself."""

import ipaddress

import pytest

from channels.webchat.guard import Asked, Guard, is_loopback

LOOPBACK = Guard("127.0.0.1")
PUBLIC = Guard("0.0.0.0", ["https://chat.example.org", "http://intranet:8000"])
PROXIED = Guard("127.0.0.1", ["https://chat.example.org"], [ipaddress.ip_network("127.0.0.1")])

GOOD_HOSTS_ON_LOOPBACK = [
    "localhost:8420",
    "localhost",
    "127.0.0.1:8420",
    "127.0.0.1",
    "[::1]:8420",
    "LOCALHOST:8420",
]
BAD_HOSTS = [
    "evil.example",
    "evil.example:8420",
    "localhost.evil.example:8420",
    "127.0.0.1.evil.example",
    "127.0.0.1@evil.example",
    "evil.example#127.0.0.1",
    "localhost:8420@evil.example",
    "localhost:notaport",
    "localhost:99999",
    "localhost:8420/ws",
    "localhost, evil.example",
    "",
    " ",
    "[::1",
    "0x7f000001.evil",
]
BAD_ORIGINS = [
    "http://evil.example",
    "https://evil.example:8420",
    "null",
    "http://localhost.evil.example:8420",
    "http://127.0.0.1:8420.evil.example",
    "https://localhost:8420",
    "http://localhost:8421",
    "http://localhost",
    "file://",
    "chrome-extension://abcdefgh",
    "",
    "http://localhost:8420/",
    "http://localhost:8420 http://evil.example",
    "ws://localhost:8420",
]


def refusal(guard, host=("localhost:8420",), origin=(), **more):
    hosts = (host,) if isinstance(host, str) else host
    origins = (origin,) if isinstance(origin, str) else origin
    return guard.refusal(Asked(hosts, origins, **more))


@pytest.mark.parametrize("host", GOOD_HOSTS_ON_LOOPBACK)
def test_loopback_names_are_answered(host):
    assert refusal(LOOPBACK, host) is None
    assert refusal(LOOPBACK, host, f"http://{host}".lower()) is None


@pytest.mark.parametrize("host", [*BAD_HOSTS, "192.168.1.5:8420", "10.0.0.1", "8.8.8.8"])
def test_dns_rebinding_gets_no_answer(host):
    assert "http.allowed_origins" in refusal(LOOPBACK, host)


@pytest.mark.parametrize("origin", BAD_ORIGINS)
def test_another_sites_page_is_refused_on_loopback_too(origin):
    assert "Another site" in refusal(LOOPBACK, "localhost:8420", origin)


def test_no_origin_is_no_browser():
    assert refusal(LOOPBACK) is None


def test_doubled_headers_are_refused():
    assert refusal(LOOPBACK, ("localhost:8420", "localhost:8420"))
    assert refusal(LOOPBACK, ())
    assert refusal(LOOPBACK, origin=("http://localhost:8420", "http://localhost:8420"))


@pytest.mark.parametrize(
    "host", ["192.168.1.5:8420", "[2001:db8::7]:8420", "chat.example.org", "intranet:8000", "8.8.8.8"]
)
def test_not_bound_to_loopback_addresses_and_allowed_names_are_answered(host):
    assert refusal(PUBLIC, host) is None


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_not_bound_to_loopback_other_names_are_not(host):
    assert refusal(PUBLIC, host)


def test_allowed_origins():
    assert refusal(PUBLIC, "chat.example.org", "https://chat.example.org") is None
    assert refusal(PUBLIC, "192.168.1.5:8420", "https://chat.example.org") is None
    assert refusal(PUBLIC, "chat.example.org", "https://chat.example.org.evil.example")
    # http on a name that is allowed for https only: the page's own origin by its Host, so no other site's.
    assert refusal(PUBLIC, "chat.example.org", "http://chat.example.org") is None


def test_the_scheme_is_believed_from_a_proxy_of_ours_only():
    asked = {"host": "chat.example.org", "origin": "https://chat.example.org"}
    plain = Guard("127.0.0.1", ["https://other.example", "http://chat.example.org"])
    assert refusal(plain, **asked, forwarded_proto=("https",), remote="127.0.0.1")
    trusting = Guard("127.0.0.1", ["http://chat.example.org"], [ipaddress.ip_network("127.0.0.0/8")])
    assert refusal(trusting, **asked, forwarded_proto=("https",), remote="127.0.0.1") is None
    assert refusal(trusting, **asked, forwarded_proto=("https",), remote="192.0.2.1")
    assert refusal(trusting, **asked, remote="127.0.0.1")


@pytest.mark.parametrize(
    ("remote", "forwarded", "client"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("198.51.100.9",), "192.0.2.1"),
        ("127.0.0.1", ("198.51.100.9",), "198.51.100.9"),
        ("127.0.0.1", ("1.1.1.1, 198.51.100.9",), "198.51.100.9"),
        ("127.0.0.1", ("1.1.1.1", "198.51.100.9"), "198.51.100.9"),
        ("127.0.0.1", ("198.51.100.9, 127.0.0.1",), "198.51.100.9"),
        ("127.0.0.1", (), "127.0.0.1"),
        (None, ("198.51.100.9",), "unknown"),
    ],
)
def test_the_address_that_counts_is_the_nearest_that_is_no_proxy_of_ours(remote, forwarded, client):
    assert PROXIED.client(Asked(("localhost",), (), forwarded, (), remote)) == client


def test_is_loopback():
    assert is_loopback("127.0.0.1")
    assert is_loopback("127.9.9.9")
    assert is_loopback("::1")
    assert is_loopback("LocalHost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("::")
    assert not is_loopback("localhost.evil.example")
