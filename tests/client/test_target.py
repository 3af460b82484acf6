"""Join lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.client.target import BadTarget, Target, parse_target

PIN = "Y1EEeAB3FAWEREn8YT0IqwcR_STahRRHx0sDQIOA9o0"


@pytest.mark.parametrize(
    ("line", "host", "port", "fingerprint", "invite", "key"),
    [
        ("example.org", "example.org", 7667, None, None, "example.org:7667"),
        ("Example.org:1234", "example.org", 1234, None, None, "example.org:1234"),
        (f"10.0.0.1:7667#{PIN}/a-b_c", "10.0.0.1", 7667, PIN, "a-b_c", "10.0.0.1:7667"),
        (f"[::1]:7667#{PIN}", "::1", 7667, PIN, None, "[::1]:7667"),
        ("[fe80::1%eth0]", "fe80::1%eth0", 7667, None, None, "[fe80::1%eth0]:7667"),
        ("localhost/invite", "localhost", 7667, None, "invite", "localhost:7667"),
        (f" host#{PIN}/i\n", "host", 7667, PIN, "i", "host:7667"),
    ],
)
def test_good_lines(line, host, port, fingerprint, invite, key):
    target = parse_target(line)
    assert target == Target(host=host, port=port, fingerprint=fingerprint, invite=invite)
    assert target.key == key


BAD = ["", "::1", "host:0", "host:99999", "host:x", "a b", "host#short", f"host#{PIN}/in vite", "[nothing]:1", "#", "u@h"]


@pytest.mark.parametrize("line", BAD)
def test_bad_lines(line):
    with pytest.raises(BadTarget):
        parse_target(line)


@pytest.mark.parametrize(
    ("link", "instead"),
    [
        ("https://example.org:7667/#invite=a-b_c", "example.org:7667/a-b_c"),
        (" HTTPS://[::1]:1234/#invite=abc\n", "[::1]:1234/abc"),
        ("https://example.org:7667/", "example.org:7667"),
        ("http://example.org", "example.org"),
    ],
)
def test_a_link_for_browsers_is_told_so_with_what_to_paste_instead(link, instead):
    with pytest.raises(BadTarget, match="for browsers") as refused:
        parse_target(link)
    assert str(refused.value).endswith(f"or {instead}, which asks you whether the key is right")
    assert parse_target(instead)


@given(st.text())
def test_any_text_is_a_target_or_refused(line):
    try:
        target = parse_target(line)
    except BadTarget:
        return
    assert parse_target(target.key).key == target.key


@pytest.mark.parametrize(
    ("host", "loopback"), [("localhost", True), ("127.8.0.1", True), ("::1", True), ("10.0.0.1", False), ("a.b", False)]
)
def test_loopback(host, loopback):
    assert Target(host=host).loopback is loopback
