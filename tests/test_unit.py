"""The unit files for systemd; checked by systemd itself where it is installed."""

import shutil
import subprocess
from pathlib import Path

import attrs

from chat import unit
from chat.config import read


def loaded(tmp_path, text="", **flags):
    file = tmp_path / "config.toml"
    file.write_text(text)
    return read(file, {}, flags)


def settings(text):
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def test_the_service_runs_this_installation_with_this_configuration(tmp_path):
    found = settings(unit.service(loaded(tmp_path, 'name = "100% home"\n[limits]\ndrain_s = 3\nconnections = 5000\n')))
    assert found["ExecStart"] == f"{unit.executable()} serve --config {tmp_path}/config.toml --data-dir /var/lib/chat"
    assert Path(found["ExecStart"].split()[0]).exists()
    assert (found["DynamicUser"], found["StateDirectory"], found["Type"], found["NotifyAccess"]) == ("yes", "chat", "notify", "main")
    assert (found["TimeoutStopSec"], found["LimitNOFILE"], found["CapabilityBoundingSet"]) == ("8s", "5512", "")
    assert found["Description"] == "chat (100%% home)"


def test_another_data_folder_and_a_low_port(tmp_path):
    text = f'data_dir = "{tmp_path}/my data"\n[[listen]]\naddress = "0.0.0.0:443"\n'
    found = settings(unit.service(loaded(tmp_path, text)))
    assert found["ReadWritePaths"] == f'"{tmp_path}/my data"'
    assert found["ExecStart"].endswith(f'--data-dir "{tmp_path}/my data"')
    assert found["AmbientCapabilities"] == found["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
    assert "DynamicUser" not in found
    assert settings(unit.service(loaded(tmp_path, text), user="chatter"))["User"] == "chatter"


def fake(file, **flags):
    """As if *file*, which need not be on this machine, were the configuration."""
    return attrs.evolve(read(None, {"XDG_CONFIG_HOME": "/nowhere"}, flags), file=Path(file))


def test_a_configuration_at_home_is_not_hidden(monkeypatch):
    monkeypatch.setattr(unit, "executable", lambda: Path("/opt/chat/bin/chat"))
    assert settings(unit.service(fake("/etc/chat/config.toml")))["ProtectHome"] == "yes"
    assert unit.objections(fake("/etc/chat/config.toml")) == []
    for file in ("/home/zed/.config/chat/config.toml", "/root/config.toml"):
        assert settings(unit.service(fake(file)))["ProtectHome"] == "no"
    assert settings(unit.service(fake("/etc/c.toml", **{"tls.certificate": "/home/z/c.pem", "tls.key": "/k.pem"})))["ProtectHome"] == "no"


def test_what_is_in_tmp_is_seen_or_objected_to(monkeypatch):
    monkeypatch.setattr(unit, "executable", lambda: Path("/tmp/clone/.venv/bin/chat"))
    found = fake("/etc/c.toml", data_dir="/srv/chat")
    assert settings(unit.service(found, user="zed"))["PrivateTmp"] == "no"
    (said,) = unit.objections(found, user="zed")
    assert said.startswith("/tmp/clone/.venv/bin/chat: /tmp is emptied")
    found = fake("/etc/c.toml")  # systemd gives a user that it makes up a /tmp of his own, whatever the unit says
    assert settings(unit.service(found))["PrivateTmp"] == "yes"
    (said,) = unit.objections(found)
    assert said.startswith("/tmp/clone/.venv/bin/chat: this unit has a /tmp of its own")


def test_a_file_that_the_units_user_cannot_read_is_objected_to(tmp_path, monkeypatch):
    monkeypatch.setattr(unit, "executable", lambda: Path("/opt/chat/bin/chat"))
    monkeypatch.setattr(unit, "TEMPORARY", ())
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text("")
    found = fake(home / "config.toml")
    assert any(f"only {home.owner()} may look into" in line for line in unit.objections(found))
    assert unit.objections(found, user=home.owner()) == []


def test_the_sockets_are_those_of_the_configuration(tmp_path):
    text = "".join(f'[[listen]]\naddress = "{address}"\n' for address in ("127.0.0.1:1", "[::1]:2", ":3"))
    lines = unit.sockets(loaded(tmp_path, text).config).splitlines()
    found = [line.partition("=")[2] for line in lines if line.startswith("ListenStream")]
    assert found == ["127.0.0.1:1", "[::1]:2", "0.0.0.0:3", "[::]:3"]


def test_systemd_finds_no_fault(tmp_path):
    (tmp_path / "chat.service").write_text(unit.service(loaded(tmp_path)))
    (tmp_path / "chat.socket").write_text(unit.sockets(loaded(tmp_path).config))
    command = ["systemd-analyze", "verify", "chat.service", "chat.socket"]
    if shutil.which(command[0]) is not None:  # else nobody is there who could find one
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert [line for line in done.stderr.splitlines() if "chat." in line] == []
