"""What a shell asks the running daemon about itself."""

import pytest
import trio

from chat.admin import client
from chat.config import Config
from tests.e2e.guests import shared


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    for server in shared(tmp_path_factory.mktemp("seeing")):
        yield Config(data_dir=server.data_dir)


async def ask(config, do, **arguments):
    return await trio.to_thread.run_sync(lambda: client.run(config, do, **arguments))


async def test_figures(config):
    found = await ask(config, "figures")
    assert found["ready"]
    assert found["problems"] == []
    assert found["connections"] == {"tcp": 0, "tls": 0, "web": 0}
    assert found["commit_s"]["count"] >= 1
    assert found["queue"] == {"inbox": 0, "batches": 0}


async def test_the_level_of_the_log(config):
    assert await ask(config, "log-level") == {"level": "info", "before": "info"}
    assert await ask(config, "log-level", level="debug") == {"level": "debug", "before": "info"}
    assert (await ask(config, "log-level"))["level"] == "debug"
    with pytest.raises(client.Refused, match="level"):
        await ask(config, "log-level", level="loud")


async def test_a_stopped_server_has_neither(tmp_path):
    for do in ("figures", "log-level"):
        with pytest.raises(client.Refused, match="not running"):
            await ask(Config(data_dir=tmp_path), do)
