"""The unit files for systemd; checked by systemd itself where it is installed."""

import shutil
import subprocess
from pathlib import Path

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
