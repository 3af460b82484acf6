"""The certificate from a shell, and at the start: files that are missing, damaged, or replaced; no server runs."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from chat.background import StartRefused
from chat.cli import main
from chat.config import Config
from chat.daemon.bootstrap import open_certificate
from chat.transport.certificates import fingerprint, host_names, make_self_signed, server_context


def test_importing_a_certificate_that_is_not_there_names_the_file(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.pem")
    done = CliRunner().invoke(main, ["cert", "import", missing, missing, "--data-dir", str(tmp_path)])
    assert (done.exit_code, done.output) == (1, f"chat: {missing}: No such file or directory\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    make_self_signed(data / "certificate.pem", data / "key.pem")
    return data


@pytest.fixture
def cert(folder: Path):
    def run(*arguments: str):
        return CliRunner().invoke(main, ["cert", *arguments, "--data-dir", str(folder)], catch_exceptions=False)

    return run


def pins(folder: Path) -> set[str]:
    return {fingerprint(path.read_bytes()) for path in folder.glob("certificate.pem*")}


def test_a_plain_generate_keeps_the_names_and_says_which(cert, folder: Path) -> None:
    assert cert("generate", "--name", "chat.example.org", "--name", "192.0.2.7").exit_code == 0
    done = cert("generate")
    assert "\nKept from the one before: 192.0.2.7, chat.example.org\n" in done.output
    assert {"chat.example.org", "192.0.2.7"} <= set(host_names((folder / "certificate.pem").read_bytes()))
    done = cert("generate", "--name", "other.example.org")  # names that are given take the place of those
    assert "\nNot in it any more: 192.0.2.7, chat.example.org\n" in done.output
    assert not {"chat.example.org", "192.0.2.7"} & set(host_names((folder / "certificate.pem").read_bytes()))


def test_every_old_file_is_kept_also_those_of_one_second(cert, folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("chat.admin.certificate.time.strftime", lambda *form: "20261128-182107")
    old = [(folder / "certificate.pem").read_bytes()]
    for _ in range(3):
        assert cert("generate", "--new-key", "--yes").exit_code == 0
        old.append((folder / "certificate.pem").read_bytes())
    assert {path.read_bytes() for path in folder.glob("certificate.pem*")} == set(old)
    for name in (".20261128-182107", ".20261128-182107-2", ".20261128-182107-3"):  # the pairs have one name
        server_context(folder / f"certificate.pem{name}", folder / f"key.pem{name}")


@pytest.mark.parametrize("damage", [lambda key: key.write_text("junk\n"), lambda key: key.unlink()])
def test_a_key_that_cannot_be_read_is_replaced_only_when_that_is_said(cert, folder: Path, damage) -> None:
    before = pins(folder)
    damage(folder / "key.pem")
    done = cert("generate")
    assert (done.exit_code, len(done.output.splitlines())) == (1, 1)
    for said in (str(folder / "key.pem"), "backup", "--new-key", "join line"):
        assert said in done.output
    assert pins(folder) == before
    assert cert("generate", "--new-key", "--yes").exit_code == 0
    server_context(folder / "certificate.pem", folder / "key.pem")
    assert before < pins(folder)


def test_a_pair_that_does_not_belong_together_is_refused_before_anything_is_asked(cert, tmp_path: Path) -> None:
    make_self_signed(tmp_path / "c.pem", tmp_path / "k.pem")
    make_self_signed(tmp_path / "c2.pem", tmp_path / "k2.pem")
    done = cert("import", str(tmp_path / "c.pem"), str(tmp_path / "k2.pem"))
    assert done.exit_code == 1
    assert "are no certificate and its key" in done.output
    assert "another key" not in done.output


def test_a_start_makes_the_certificate_that_is_missing_for_the_key_that_is_there(folder: Path) -> None:
    before = pins(folder)
    (folder / "certificate.pem").unlink()
    config = Config(data_dir=folder)
    open_certificate(config)
    assert pins(folder) == before
    (folder / "certificate.pem").unlink()
    (folder / "key.pem").write_text("junk\n")
    with pytest.raises(StartRefused, match=f"{folder}/key.pem is no private key .* chat doctor says what helps$"):
        open_certificate(config)
    assert not (folder / "certificate.pem").exists()
