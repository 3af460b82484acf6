import contextlib

import pytest
import trio
import trio.testing

from chat.transport import http
from chat.transport.door import DoorSettings
from tests.transport.browsers import FILES, KEY, Browser, open_browser, open_socket, open_web, site, text, upgrade_request
from tests.transport.peers import descriptors

pytestmark = pytest.mark.timeout(30)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def echo(transport):
    while frames := await transport.receive():
        for frame in frames:
            transport.outbox.put_always(b"\x81" + bytes([len(frame)]) + frame)
        transport.flush_nowait()
    await transport.aclose()


# ---------------------------------------------------------------- the page


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_the_page_and_its_files(kind):
    async with open_web() as server, open_browser(server, kind, say=b"") as browser:
        for path, name, media in [
            ("/", "index.html", "text/html; charset=utf-8"),
            ("/index.html", "index.html", "text/html; charset=utf-8"),
            ("/js/main.js", "js/main.js", "text/javascript; charset=utf-8"),
            ("/style.css?v=1", "style.css", "text/css; charset=utf-8"),
            ("/big.txt", "big.txt", "text/plain; charset=utf-8"),
        ]:
            answer = await browser.ask(path)
            assert (answer.status, answer.body) == (200, FILES[name])
            assert answer.headers["content-type"] == media
            assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("chat.example.org", True),
        ("[2001:db8::7]:7667", True),
        ("x:7667", True),
        ("x; script-src *", False),
        ("*", False),
        ("x y", False),
        ("x,y", False),
        ("", False),
        ("-x", False),
        ("x:", False),
        ("x" * 300, False),
    ],
)
async def test_the_policy_names_the_socket_of_the_authority_that_was_asked_for(host, named):
    async with open_web() as server, open_browser(server, say=b"") as browser:
        policy = (await browser.ask("/", Host=host)).headers["content-security-policy"]
    wanted = f"connect-src 'self' ws://{host} wss://{host};" if named else "connect-src 'self';"
    assert wanted in policy
    assert policy.count(";") == 7


async def test_every_answer_has_the_headers_that_keep_a_page_safe():
    async with open_web() as server, open_browser(server, say=b"") as browser:
        etag = (await browser.ask("/")).headers["etag"]
        answers = [
            await browser.ask("/"),
            await browser.ask("/", "HEAD"),
            await browser.ask("/", If_None_Match=etag),
            await browser.ask("/no"),
            await browser.ask("/", "DELETE"),
            await browser.ask("/ws"),
        ]
    assert [answer.status for answer in answers] == [200, 200, 304, 404, 405, 426]
    for answer in answers:
        assert answer.headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            + ("connect-src 'self' ws://x wss://x; " if answer.status in (200, 304) else "connect-src 'self'; ")
            + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "date" in answer.headers
        assert not {"set-cookie", "server", "access-control-allow-origin"} & set(answer.headers)


async def test_head_tells_the_length_and_sends_nothing():
    async with open_web() as server, open_browser(server, say=b"") as browser:
        answer = await browser.ask("/js/main.js", "HEAD")
        assert answer.headers["content-length"] == str(len(FILES["js/main.js"]))
        assert (await browser.ask("/no", "HEAD")).status == 404
        assert (await browser.ask("/")).body == FILES["index.html"]  # nothing was in between


async def test_a_file_that_the_browser_has_is_not_sent_again():
    async with open_web() as server, open_browser(server, say=b"") as browser:
        etag = (await browser.ask("/style.css")).headers["etag"]
        for given in (etag, f'"other", W/{etag}', "*"):
            answer = await browser.ask("/style.css", If_None_Match=given)
            assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
        assert (await browser.ask("/style.css", If_None_Match='"other"')).status == 200
        assert (await browser.ask("/", If_None_Match=etag)).status == 200  # another file's


@pytest.mark.parametrize(
    "path", ["/no", "/../pyproject.toml", "/%2e%2e/x", "//", "/js", "/js/", "/.hidden", "/index.html/", "http://x/", "*"]
)
async def test_what_is_no_file_of_the_page_is_not_found(path):
    async with open_web() as server, open_browser(server, say=b"") as browser:
        assert (await browser.ask(path)).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_a_file_is_only_read(method):
    async with open_web() as server, open_browser(server, say=b"") as browser:
        answer = await browser.ask("/", method)
        assert answer.status == 405
        assert answer.headers["allow"] == "GET, HEAD"
        assert (await browser.ask("/")).status == 200


def test_files_are_read_once_and_hidden_ones_left_out(tmp_path):
    (tmp_path / "js" / "deep").mkdir(parents=True)
    (tmp_path / "js" / "__pycache__").mkdir()
    for name in ("index.html", "js/deep/a.mjs", ".secret", "js/.x.js", "js/__pycache__/a.js", "odd.xyz"):
        (tmp_path / name).write_bytes(name.encode())
    files = http.load_static(tmp_path)
    assert sorted(files) == ["/", "/index.html", "/js/deep/a.mjs", "/odd.xyz"]
    assert files["/"] is files["/index.html"]
    assert b"Content-Type: application/octet-stream\r\n" in files["/odd.xyz"].head
    assert http.load_static(tmp_path / "none") == {}


# ---------------------------------------------------------------- requests


async def test_several_requests_in_one_packet_are_answered_in_order():
    async with open_web() as server, open_browser(server, say=b"") as browser:
        await browser.send(GET + GET.replace(b" / ", b" /no ") + GET.replace(b" / ", b" /style.css ") + b"GET /js/")
        answers = [await browser.answer() for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 404, 200]
        await browser.send(b"main.js HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await browser.answer()).body == FILES["js/main.js"]


async def test_more_requests_in_one_packet_than_one_head_may_be_long():
    async with open_web() as server, open_browser(server, say=b"") as browser:
        await browser.send((GET[:-2] + b"X: " + b"x" * 1000 + b"\r\n\r\n") * 40)
        assert [(await browser.answer()).status for _ in range(40)] == [200] * 40


async def test_a_head_that_comes_byte_by_byte():
    async with open_web() as server, open_browser(server, say=b"") as browser:
        for n in range(len(GET)):
            await browser.send(GET[n : n + 1])
        assert (await browser.answer()).status == 200


@pytest.mark.parametrize("request_", [GET.replace(b"1.1", b"1.0"), GET[:-2] + b"Connection: x, Close\r\n\r\n"])
async def test_a_connection_ends_when_the_peer_wants_it(request_):
    async with open_web() as server, open_browser(server, say=request_ + GET) as browser:
        answer = await browser.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await browser.answer() is None


@pytest.mark.parametrize("length", [b"Content-Length: 200", b"Transfer-Encoding: chunked"])
async def test_a_body_is_never_read_as_requests_or_frames(length):
    body = b'{"type":"hello"}\n' + GET + upgrade_request()
    async with open_web() as server, open_browser(server, say=b"POST / HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n" + body) as browser:
        assert (await browser.answer()).status == 405
        assert await browser.answer() is None


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / \r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /<script> \r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_and_not_reflected(garbage):
    async with open_web() as server, open_browser(server, say=garbage) as browser:
        answer = await browser.answer()
        assert (answer.status, answer.body) == (400, b"400 Bad Request\n")
        assert await browser.answer() is None


@pytest.mark.parametrize("end", [b"\r\n\r\n", b""])
async def test_a_head_that_is_too_long_is_refused(end):
    async with open_web() as server:
        for n_bytes, status in ((http.HEAD_BYTES - 1000, 200), (http.HEAD_BYTES, 431), (60_000, 431)):
            if not end and status == 200:
                continue
            async with open_browser(server, say=GET[:-2] + b"X: " + b"x" * n_bytes + end) as browser:
                assert (await browser.answer()).status == status


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_a_head_has_a_deadline(kind, autojump_clock):
    async with open_web() as server, open_browser(server, kind, say=b"GET / HT") as browser:
        began = trio.current_time()
        assert (await browser.answer()).status == 408
        assert trio.current_time() - began <= http.HEAD_S + 0.1


async def test_between_two_requests_silence_ends_it(autojump_clock):
    async with open_web() as server, open_browser(server, say=GET) as browser:
        assert (await browser.answer()).status == 200
        began = trio.current_time()
        assert await browser.answer() is None
        assert trio.current_time() - began <= http.HEAD_S + 0.1


async def test_a_reader_that_stalls_is_cut(autojump_clock):
    big = GET.replace(b" / ", b" /big.txt ")
    async with open_web(send_buffer=4096) as server:
        await trio.testing.wait_all_tasks_blocked()
        before = descriptors()
        async with open_browser(server, say=big * 3, receive_buffer=4096) as browser:
            await trio.sleep(60)
            assert descriptors() == before + 1  # ours
            with contextlib.suppress(trio.BrokenResourceError):
                while await browser._more():
                    pass
            assert server.pool.total_bytes == 0


async def test_stopping_waits_for_no_more_requests(mock_clock):
    web = site(echo)
    async with open_web(web=web) as server, open_browser(server, say=GET) as browser, open_browser(server, say=b"GET /") as half:
        assert (await browser.answer()).status == 200
        async with open_socket(server) as socket:
            await trio.testing.wait_all_tasks_blocked()
            web.stop()
            assert await browser.answer() is None
            with contextlib.suppress(AssertionError):
                await half.answer()
            await socket.send(text(b"still there"))
            assert await socket.message() == b"still there"


async def over(server):
    """*Waits*, by the clock of the test, until no connection is left. *Returns* how many seconds it took."""
    began = trio.current_time()
    while server.connections.child_tasks:  # noqa: ASYNC110
        await trio.sleep(0.01)
    return trio.current_time() - began


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_who_asks_just_after_the_stop_is_not_waited_for_either(kind, autojump_clock):
    """Nor for the end of a peer that keeps its side open."""
    web = site(echo)
    async with open_web(web=web) as server, open_browser(server, kind, say=b"") as late:
        web.stop()
        began = trio.current_time()
        await late.send(b"GET /")
        assert (await late.answer()).status == 408
        assert trio.current_time() == began
        assert await over(server) < 2 * http.LAST_S


@pytest.mark.parametrize("say", [b"HTTP/1.0\r\n\r\n", b"nonsense\r\n\r\n"], ids=["answered", "refused"])
async def test_who_keeps_an_answered_connection_open_does_not_hold_up_the_end(say, autojump_clock):
    web = site(echo)
    async with open_web(web=web) as server, open_browser(server, say=b"GET / " + say) as browser:
        assert await browser.answer() is not None
        await trio.testing.wait_all_tasks_blocked()
        assert server.connections.child_tasks
        web.stop()
        assert await over(server) < 2 * http.LAST_S


async def test_an_answer_that_is_under_way_when_it_stops_arrives(mock_clock):
    """However slowly it is taken: also when all of it was put, and the connection is being closed."""
    web = site(echo)
    big, size = GET.replace(b" / ", b" /big.txt "), len(FILES["big.txt"])
    async with open_web(web=web, send_buffer=4096) as server, open_browser(server, say=big, receive_buffer=4096) as browser:
        await trio.testing.wait_all_tasks_blocked()
        web.stop()
        for enough in (0, size - http.SLICE_BYTES // 2):
            while len(browser.client.buffer) < enough:
                await browser._more()
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(2 * http.LAST_S)
        assert (await browser.answer()).body == FILES["big.txt"]
        assert await browser.answer() is None


# ---------------------------------------------------------------- the upgrade


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_an_upgrade_after_the_page_on_the_same_connection(kind):
    async with open_web(echo) as server:
        for _ in range(10):  # trio-websocket would read the early message as HTTP, or not, as the scheduler likes
            async with open_browser(server, kind, say=GET + upgrade_request() + text(b"early")) as browser:
                assert (await browser.answer()).status == 200
                assert (await browser.answer()).status == 101
                with trio.fail_after(5):
                    assert await browser.message() == b"early"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Sec_WebSocket_Protocol": None}, 400),
        ({"Sec_WebSocket_Protocol": "chat.v2, chat"}, 400),
        ({"Sec_WebSocket_Protocol": "CHAT.V1"}, 400),
        ({"Sec_WebSocket_Protocol": "x, chat.v1"}, 101),
        ({"Sec_WebSocket_Protocol": ["x", "chat.v1"]}, 101),
        ({"Sec_WebSocket_Key": None}, 400),
        ({"Sec_WebSocket_Key": "short"}, 400),
        ({"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ"}, 400),
        ({"Sec_WebSocket_Key": [KEY.decode()] * 2}, 400),
        ({"Sec_WebSocket_Key": KEY.decode() + "\u00e4"}, 400),
        ({"Sec_WebSocket_Version": None}, 426),
        ({"Sec_WebSocket_Version": "12"}, 426),
        ({"Upgrade": None}, 426),
        ({"Upgrade": "h2c"}, 426),
        ({"Upgrade": "WebSocket"}, 101),
        ({"Connection": "keep-alive"}, 426),
        ({"Connection": ["keep-alive", "upgrade"]}, 101),
        ({"Content_Length": "5"}, 400),
        ({"Content_Length": "0"}, 101),
        ({"Transfer_Encoding": "chunked"}, 400),
        ({"Host": "\u00e4\u00f6.x--.." + "a" * 300}, 101),  # on such a name trio-websocket's own reader would fail
        ({"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"}, 101),
        ({"path": "/ws?token=x"}, 101),
        ({"path": "/ws/"}, 404),
        ({"method": "POST"}, 405),
        ({"version": "HTTP/1.0"}, 400),
    ],
)
async def test_a_handshake_is_checked(changes, status):
    async with open_web(echo) as server, open_browser(server, say=upgrade_request(**changes)) as browser:
        answer = await browser.answer()
        assert answer.status == status
        if status == 426:
            assert answer.headers["sec-websocket-version"] == "13"
        if status == 101:
            await browser.send(text(b"hello"))
            assert await browser.message() == b"hello"


ADDRESS = {"local": ("192.0.2.7", 7667), "secure": True, "loopback": False}


@pytest.mark.parametrize(
    ("origin", "where", "allowed"),
    [
        ("https://chat.example.org", {}, True),  # configured
        ("HTTPS://CHAT.example.ORG:443", {}, True),
        ("https://chat.example.org:8443", {}, False),
        ("http://chat.example.org", {}, False),
        ("https://chat.example.org.evil.test", {}, False),
        ("https://evil.test/https://chat.example.org", {}, False),
        ("https://chat.example.org@evil.test", {}, False),
        ("http://plain.example.org:81", {"secure": False}, True),
        ("https://named.test:7667", {}, True),  # of the certificate
        ("https://named.test", {}, False),
        ("https://named.test", {"local": ("192.0.2.7", 443)}, True),
        ("http://named.test:7667", {}, False),
        ("http://named.test:7667", {"secure": False}, False),  # a name without TLS can be anybody's
        ("https://any.wild.test:7667", {}, True),
        ("https://two.any.wild.test:7667", {}, False),
        ("https://wild.test:7667", {}, False),
        ("https://192.0.2.7:7667", {}, True),  # the address that was connected to
        ("https://192.0.2.8:7667", {}, False),
        ("http://192.0.2.7:7667", {}, False),
        ("http://192.0.2.7:7667", {"secure": False}, True),
        ("https://[2001:DB8::7]:7667", {"local": ("2001:db8:0::7", 7667)}, True),
        ("https://localhost:7667", {}, False),
        ("https://localhost:7667", {"loopback": True}, True),
        ("http://localhost:7667", {"loopback": True, "secure": False}, True),
        ("http://127.0.0.1:7667", {"loopback": True, "secure": False}, True),
        ("http://[::1]:7667", {"loopback": True, "secure": False}, True),
        ("http://localhost:3000", {"loopback": True, "secure": False}, False),
        ("http://evil.test:7667", {"loopback": True, "secure": False}, False),  # a name that was made to lead here
        ("null", {}, False),
        ("", {}, False),
        ("file://", {}, False),
        ("https://", {}, False),
        ("https://named.test:port", {}, False),
        ("https://[named.test:7667", {}, False),
        ("moz-extension://named.test:7667", {}, False),
        ("https://named.test:7667 https://named.test:7667", {}, False),
    ],
)
def test_origins(origin, where, allowed):
    origins = http.Origins(allowed=["https://chat.example.org", "http://plain.example.org:81"], names=["Named.test", "*.wild.test"])
    assert origins.allow(origin, **{**ADDRESS, **where}) is allowed


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_a_strange_origin_is_forbidden_and_none_is_allowed(kind):
    async with open_web(echo) as server:
        scheme = "http" if kind == "tcp" else "https"
        for origin, status in (
            (None, 101),
            (f"{scheme}://127.0.0.1:{server.port}", 101),
            (f"{scheme}://localhost:{server.port}", 101),
            ("https://evil.test", 403),
            ("null", 403),
            ([f"{scheme}://127.0.0.1:{server.port}", "https://evil.test"], 403),
            (f"{scheme}://evil.test:{server.port}", 403),
        ):
            async with open_browser(server, kind, say=upgrade_request(Origin=origin, Host=f"evil.test:{server.port}")) as browser:
                answer = await browser.answer()
                assert answer.status == status, origin
                assert b"evil" not in answer.body


# ---------------------------------------------------------------- attacks


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize(
    "said", [b"GET", b"GET /ws HTTP/1.1\r\nHost", upgrade_request()[:-1], upgrade_request(), upgrade_request() + b"\x81"]
)
@pytest.mark.parametrize("how", ["end", "vanish"])
async def test_who_vanishes_during_the_handshake_leaves_nothing(kind, said, how, mock_clock):
    """At once: the clock does not move."""
    async with open_web(echo) as server:
        await trio.testing.wait_all_tasks_blocked()
        before = descriptors()
        async with open_browser(server, kind, say=said) as browser:
            await trio.testing.wait_all_tasks_blocked()
            await getattr(browser.client, how)()
            if how == "end":
                await browser.client.rest()
        with trio.fail_after(5):
            while descriptors() != before:
                await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.mark.timeout(60)
async def test_half_handshakes_disturb_nobody(autojump_clock):
    settings = DoorSettings(connections=600)
    async with open_web(echo, settings=settings) as server, open_socket(server) as other:
        await trio.testing.wait_all_tasks_blocked()
        before = descriptors()
        async with contextlib.AsyncExitStack() as stack:
            half = [
                await stack.enter_async_context(await server.connect(say=[b"GET / HTTP/1.1\r\nHost", upgrade_request()[:-2], b"G"][n % 3]))
                for n in range(500)
            ]
            await other.send(text(b"alive"))
            assert await other.message() == b"alive"
            began = trio.current_time()
            for client in half:
                await client.rest()
            assert trio.current_time() - began < 30
        await trio.testing.wait_all_tasks_blocked()
        assert descriptors() == before
        await other.send(text(b"still"))
        assert await other.message() == b"still"


async def test_the_handler_is_not_reached_by_who_was_refused():
    reached = []

    async def handler(transport):
        reached.append(transport)

    async with open_web(handler) as server, open_browser(server, say=upgrade_request(Origin="https://evil.test") + text(b"x")) as browser:
        assert (await browser.answer()).status == 403
        assert await browser.answer() is None
    assert not reached
    assert isinstance(browser, Browser)
