"""The certificate from a shell: files that are not there."""

from pathlib import Path

from click.testing import CliRunner

from chat.cli import main


def test_importing_a_certificate_that_is_not_there_names_the_file(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.pem")
    done = CliRunner().invoke(main, ["cert", "import", missing, missing, "--data-dir", str(tmp_path)])
    assert (done.exit_code, done.output) == (1, f"chat: {missing}: No such file or directory\n")
