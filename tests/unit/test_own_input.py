"""No command replaces a file that it reads."""

from pathlib import Path

import pytest

from dmoe.cli.main import main


@pytest.mark.parametrize("words", ["schema {log} --output {link}", "score --scorer s --log other.csv {log} --output {log}"])
def test_an_output_that_is_an_input_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str):
    log = tmp_path / "log.csv"
    log.write_text("click,site\n1,a\n0,b\n")
    (tmp_path / "link.csv").symlink_to(log)
    assert main(words.format(log=log, link=tmp_path / "link.csv").split()) == 2
    assert f"--output {tmp_path}" in capsys.readouterr().err
    assert log.read_text() == "click,site\n1,a\n0,b\n"
