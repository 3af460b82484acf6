"""The configuration: read, overridden, explained; and config.toml, which must not drift from the code."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat import config
from chat.config import Config, ConfigError
from chat.config.load import KEYS, SECTIONS, env_name, expectation
from chat.config.manual import explanation, manual, shown, toml, values

MANUAL = Path(__file__).parent.parent / "config.toml"


@pytest.fixture(autouse=True)
def _no_file_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "some.toml"
        path.write_text(text)
        return path

    return write


def problems(path, env=None, flags=None):
    with pytest.raises(ConfigError) as caught:
        config.load(path, env or {}, flags)
    return caught.value.problems


# ---------------------------------------------------------------- the manual


def test_config_toml_is_what_the_code_explains():
    assert MANUAL.read_text() == manual(), "regenerate it: chat config example > config.toml"


def test_config_toml_has_every_key_once_and_no_other():
    raw = tomllib.loads(MANUAL.read_text())
    found = [key for key, value in raw.items() if not isinstance(value, dict | list) or key not in SECTIONS]
    for section in SECTIONS:
        table = raw[section][0] if section == "listen" else raw[section]
        found += [f"{section}.{key}" for key in table]
    assert sorted(found) == sorted(KEYS)


def test_config_toml_runs_as_it_is_and_holds_the_defaults():
    assert config.load(MANUAL, {}) == Config()


@pytest.mark.parametrize("path", KEYS)
def test_every_key_is_explained(path):
    assert len(explanation(path)) > 15
    assert explanation(path).endswith(".")
    assert expectation(KEYS[path])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("limits.sends_burst", 10),
        ("limits.sends_per_s", 5),
        ("limits.connections_per_address", 16),
        ("limits.frame_bytes", 65536),
        ("limits.outbox_soft_bytes", 524288),
        ("limits.outbox_hard_bytes", 1048576),
        ("limits.idle_close_s", 90),
        ("passwords.memory_kib", 19 * 1024),
        ("storage.min_free_bytes", 268435456),
        ("prefix", "//"),
        ("registration", "invite"),
    ],
)
def test_defaults_are_those_of_the_contract(path, value):
    found = {path: value for _, path, value in values(Config())}
    assert found[path] == value


# ---------------------------------------------------------------- where values come from


def test_file_then_environment_then_flags(file):
    path = file('name = "file"\nprefix = "!"\n[limits]\nsends_burst = 1\njoins_per_min = 1\nlogin_s = 1\n')
    env = {"CHAT_LIMITS__JOINS_PER_MIN": "2", "CHAT_LIMITS__LOGIN_S": "2", "CHAT_NAME": "env"}
    loaded = config.read(path, env, {"limits.login_s": "3"})
    limits = loaded.config.limits
    assert (limits.sends_burst, limits.joins_per_min, limits.login_s) == (1, 2, 3)
    assert (loaded.config.name, loaded.config.prefix) == ("env", "!")
    assert loaded.sources == {
        "name": "env",
        "prefix": "file",
        "limits.sends_burst": "file",
        "limits.joins_per_min": "env",
        "limits.login_s": "flag",
    }


def test_lookup_order_of_the_file(tmp_path):
    def named(folder):
        (tmp_path / folder / "chat").mkdir(parents=True)
        path = tmp_path / folder / "chat" / "config.toml"
        path.write_text(f'name = "{folder}"')
        return path

    flag, env, xdg = named("flag"), named("env"), named("xdg")
    both = {"CHAT_CONFIG": str(env), "XDG_CONFIG_HOME": str(xdg.parent.parent)}
    assert config.load(flag, both).name == "flag"
    assert config.load(None, both).name == "env"
    assert config.load(None, {"XDG_CONFIG_HOME": str(xdg.parent.parent)}).name == "xdg"
    assert config.load(None, {"XDG_CONFIG_HOME": str(tmp_path)}).name == "chat"


def test_relative_paths(file, tmp_path, monkeypatch):
    path = file('data_dir = "here"\n[tls]\ncertificate = "c.pem"\nkey = "/k.pem"\n')
    found = config.load(path, {})
    assert (found.data_dir, found.certificate, found.key) == (tmp_path / "here", tmp_path / "c.pem", Path("/k.pem"))
    monkeypatch.chdir("/")
    assert config.load(path, {"CHAT_DATA_DIR": "there"}).data_dir == Path("/there")


def test_data_dir_is_in_the_users_folder_by_default(tmp_path):
    found = config.load(None, {})
    assert found.data_dir == tmp_path / "data" / "chat"
    assert found.database == tmp_path / "data" / "chat" / "chat.db"
    assert found.certificate == tmp_path / "data" / "chat" / "certificate.pem"


@pytest.mark.parametrize(
    ("url", "expected"), [("sqlite:x/y.db", "/d/x/y.db"), ("sqlite:/var/c.db", "/var/c.db"), ("sqlite:///var/c.db", "/var/c.db")]
)
def test_database(url, expected):
    assert config.load(None, {}, {"data_dir": "/d", "storage.url": url}).database == Path(expected)


def test_listeners(file):
    path = file('[[listen]]\naddress = "0.0.0.0:1"\nplaintext = "never"\n[[listen]]\naddress = "0.0.0.0:2"\n')
    assert [(item.address, item.plaintext) for item in config.load(path, {}).listen] == [("0.0.0.0:1", "never"), ("0.0.0.0:2", "loopback")]
    over = config.load(path, {"CHAT_LISTEN__ADDRESS": "127.0.0.1:0, [::1]:0"}).listen
    assert [(item.address, item.plaintext) for item in over] == [("127.0.0.1:0", "never"), ("[::1]:0", "never")]
    assert config.load(None, {"CHAT_LISTEN__DIALECTS": "native"}).listen[0].dialects == ("native",)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20)), st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_written_as_toml_reads_back(items, text):
    assert tomllib.loads(f"a = {toml(tuple(items))}\nb = {toml(text)}") == {"a": items, "b": text}


# ---------------------------------------------------------------- mistakes


def test_every_mistake_is_told_at_once_with_file_key_and_what_was_expected(file):
    path = file('nam = "x"\nsends_burst = 3\nlimits = 4\n[[listen]]\naddress = "7667"\ndialect = []\n[log]\nlevel = "loud"\nmessages = 1\n')
    assert problems(path, {"CHAT_LIMITS__SENDS_BURST": "many"}, {"foo": 1, "storage.min_free_byte": "1"}) == [
        "command line: foo: unknown key; the nearest known one is log",
        "command line: storage.min_free_byte: unknown key; the nearest known one is storage.min_free_bytes",
        "CHAT_LIMITS__SENDS_BURST: limits.sends_burst: expected a whole number, got 'many'",
        f"{path}: listen[0].address: expected HOST:PORT with a port from 0 to 65535, such as \"0.0.0.0:7667\", got '7667'",
        f"{path}: listen[0].dialect: unknown key; the nearest known one is listen.dialects",
        f"{path}: limits: expected a table [limits], got 4",
        f'{path}: log.level: expected one of "debug", "info", "warning", "error", got \'loud\'',
        f"{path}: log.messages: expected true or false, got 1",
        f"{path}: nam: unknown key; the nearest known one is name",
        f"{path}: sends_burst: unknown key; the nearest known one is limits.sends_burst",
    ]


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("limits.sends_burst = 0", "limits.sends_burst", "a whole number from 1 to"),
        ("limits.sends_burst = 1.5", "limits.sends_burst", "a whole number"),
        ("limits.sends_burst = true", "limits.sends_burst", "a whole number"),
        ('limits.sends_burst = "10"', "limits.sends_burst", "a whole number"),
        ("limits.login_s = nan", "limits.login_s", "a number from"),
        ("limits.login_s = inf", "limits.login_s", "a number from"),
        ("limits.exempt_loopback = 0", "limits.exempt_loopback", "true or false"),
        ("default_channels = ['#lobby']", "default_channels", "without #"),
        ("default_channels = 'lobby'", "default_channels", "a list of texts"),
        ("default_channels = [1]", "default_channels", "a list of texts"),
        ("prefix = 'x'", "prefix", "1 to 8 signs"),
        ("prefix = ''", "prefix", "1 to 8 signs"),
        ('name = "a\\u0007"', "name", "printable"),
        ("registration = 'maybe'", "registration", 'one of "'),
        ("storage.url = 'postgresql://x'", "storage.url", "sqlite:FILE"),
        ("public_address = ':7667'", "public_address", "HOST or HOST:PORT"),
        ("public_address = 'a:b:c'", "public_address", "HOST:PORT"),
        ("data_dir = 3", "data_dir", "a path"),
        ('data_dir = "a\\u0000"', "data_dir", "a path"),
        ("listen = []", "listen", "one or more tables"),
        ("listen = 3", "listen", "one or more tables"),
        ("listen = [3]", "listen[0]", "a table [listen]"),
        ("[[listen]]\norigins = ['chat.example.org']", "listen[0].origins", "https://"),
        ("[[listen]]\ndialects = []", "listen[0].dialects", '"native"'),
        ("[[listen]]\naddress = '::1:7667'", "listen[0].address", "brackets"),
        ("[[listen]]\naddress = '127.0.0.1:70000'", "listen[0].address", "0 to 65535"),
        ("[[listen]]\naddress = 'a:1'\n[[listen]]\naddress = 'a:1'", "listen", "each address once"),
        ("limits.text_bytes = 65536", "limits.text_bytes", "less than limits.frame_bytes"),
        ("limits.outbox_soft_bytes = 2000000", "limits.outbox_soft_bytes", "at most limits.outbox_hard_bytes"),
        ("limits.idle_ping_s = 90", "limits.idle_ping_s", "less than limits.idle_close_s"),
        ("tls.key = 'k.pem'", "tls", "both or none"),
    ],
)
def test_a_value_that_is_not_allowed(file, text, key, expected):
    path = file(text)
    found = problems(path)
    assert len(found) == 1
    assert found[0].startswith(f"{path}: {key}: expected "), found
    assert expected in found[0]


@pytest.mark.parametrize(
    ("content", "expected"), [(b"name = ", "not TOML"), (b'name = "\xff"', "not UTF-8 at byte 8"), (None, "cannot be read: No such file")]
)
def test_a_file_that_cannot_be_read(tmp_path, content, expected):
    path = tmp_path / "c.toml"
    if content is not None:
        path.write_bytes(content)
    assert expected in problems(path)[0]
    assert str(path) in problems(path)[0]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("CHAT_LIMITS_SENDS_BURST", "CHAT_LIMITS__SENDS_BURST"),
        ("CHAT_LIMITS__SENDS_BURTS", "CHAT_LIMITS__SENDS_BURST"),
        ("CHAT_DATADIR", "CHAT_DATA_DIR"),
        ("CHAT_LOG__LEVL", "CHAT_LOG__LEVEL"),
        ("CHAT_LIMITS__FOO", "CHAT_LIMITS__LOGIN_S"),
    ],
)
def test_an_unknown_variable_that_looks_like_a_mistake(name, nearest):
    assert problems(None, {name: "1"}) == [f"{name}: unknown; the nearest known one is {nearest}"]


def rescued(path, env=None, flags=None):
    """What `rescue` makes of what `load` refuses."""
    with pytest.raises(ConfigError) as caught:
        config.load(path, env or {}, flags)
    return config.rescue(caught.value, path, env or {}, flags)


def test_of_a_file_with_mistakes_elsewhere_the_files_of_the_server_are_known(file, tmp_path):
    path = file('nam = "x"\ndata_dir = "house"\nlisten = 3\n[limits]\ndrain_s = 3\nsends_burst = "many"\n[log]\nfile = "chat.log"\n')
    found = rescued(path)
    assert found.data_dir == tmp_path / "house"
    assert (found.limits.drain_s, found.log.file) == (3, tmp_path / "chat.log")
    assert found.limits.sends_burst == Config().limits.sends_burst
    assert rescued(path, {"CHAT_DATA_DIR": "/env", "CHAT_LIMITS__DRAIN_S": "4"}).data_dir == Path("/env")
    assert rescued(path, {"CHAT_DATA_DIR": "/env", "CHAT_LIMITS__DRAIN_S": "4"}).limits.drain_s == 4
    assert rescued(path, {"CHAT_DATA_DIR": "/env"}, {"data_dir": "/flag"}).data_dir == Path("/flag")


def test_what_is_needed_and_wrong_itself_is_as_if_it_were_not_there(file, tmp_path):
    path = file('data_dir = "house"\nlimits = 4\n[log]\nfile = 3\n')
    found = rescued(path, {"CHAT_LIMITS__DRAIN_S": "long"})
    assert (found.data_dir, found.limits, found.log) == (tmp_path / "house", Config().limits, Config().log)
    assert rescued(path, {"CHAT_LOG__FILE": "/a.log", "CHAT_LIMITS__DRAIN_S": "5"}).limits.drain_s == 5
    assert rescued(path).data_dir == tmp_path / "house"


def test_who_never_said_where_has_the_usual_folder(file):
    assert rescued(file("nam = 'x'")).data_dir == Config().data_dir
    for text in ("name = ", "name = Ours\n# data_dir = '/srv'\n[[listen]]\naddress = ':7000'\n", 'data_dir = ""  # usual\nname = \'x'):
        assert rescued(file(text)).data_dir == Config().data_dir, text


@pytest.mark.parametrize(
    "text",
    [
        "nam = 'x'\ndata_dir = 3",
        "data_dri = '/srv/chat'",
        "datadir = '/srv/chat'",
        "[log]\nlevel = 'info'\ndata_dir = '/srv/chat'",
        "[server]\ndata_dir = 'house'",
        "where = '/srv/chat'",
        "folder = 'house'",
        "[[listen]]\nplace = ['~/chat']",
        "name = \ndata_dir = 'house'",
        "name = 'x\nwhere = '/srv/chat'",
        "name = \n[log]\nfile = 'chat.log'",
        "name = '~chat",
        "data_dir = 'house",
        None,
    ],
    ids=[
        "of a wrong type",
        "misspelled",
        "written together",
        "in a table",
        "in a table of its own",
        "called otherwise",
        "elsewhere",
        "of a listener",
        "not TOML",
        "not TOML, elsewhere",
        "not TOML, the log elsewhere",
        "not TOML, of somebody",
        "not TOML itself",
        "no file",
    ],
)
def test_a_folder_is_not_guessed(file, tmp_path, text):
    """Another server may run on the usual one."""
    path = file(text) if text is not None else tmp_path / "none.toml"
    assert rescued(path) is None
    assert rescued(path, {"CHAT_DATA_DIR": "/env"}).data_dir == Path("/env")
    assert rescued(path, flags={"data_dir": "/flag"}).data_dir == Path("/flag")


def test_a_misspelled_variable_or_flag_is_not_passed_over(file):
    assert rescued(None, {"CHAT_DATADIR": "/env"}) is None
    assert rescued(None, flags={"data_di": "/flag"}) is None
    assert rescued(None, flags={"folder": "house"}) is None
    assert rescued(file("data_dir = '/file'"), {"CHAT_DATADIR": "/env"}) is None


def test_variables_of_others_are_left_alone():
    env = {"CHAT_PORT": "tcp://10.0.0.1:7667", "CHAT_SERVICE_HOST": "10.0.0.1", "CHAT_PORT_7667_TCP": "x"}
    assert config.load(None, {**env, "CHAT_CI": "1", "CHAT_CONFIG": "", "OTHER": "1"}) == Config()


@pytest.mark.parametrize("path", KEYS)
def test_every_key_can_come_from_the_environment(path):
    given = {"data_dir": "/d", "tls.certificate": "/c", "tls.key": "/k", "log.file": "/l", "public_address": "a.example:1"}
    text = given.get(path) or toml(KEYS[path].default).strip('"[]').replace('"', "")
    env = {env_name(path): text, **({"CHAT_TLS__KEY": "/k", "CHAT_TLS__CERTIFICATE": "/c"} if path.startswith("tls") else {})}
    loaded = config.read(None, env)
    assert loaded.sources[path] == "env"
    if path in given:
        assert str(next(value for _, other, value in values(loaded.config) if other == path)) == given[path]
    else:
        assert loaded.config == Config()


# ---------------------------------------------------------------- show


def test_show_tells_value_source_and_explanation(file):
    loaded = config.read(file("[limits]\nsends_burst = 3"), {"CHAT_NAME": "env"})
    keys = {item["key"]: item for item in json.loads(shown(loaded, as_json=True))["keys"]}
    assert keys["limits.sends_burst"] == {
        "key": "limits.sends_burst",
        "value": 3,
        "source": "file",
        "explanation": explanation("limits.sends_burst"),
    }
    assert keys["name"]["source"] == "env"
    assert keys["prefix"]["source"] == "default"
    assert len(keys) == len(KEYS)
    text = shown(loaded, as_json=False)
    assert "limits.sends_burst = 3    # file" in text
    assert all(label in text for label in keys)
