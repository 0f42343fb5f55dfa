"""The container image runs a complete job, as its own user and on a read-only root file system."""

from __future__ import annotations

import pytest
from tools import check_image
from tools.container import NotHere, check_machine


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_job_runs_in_the_image(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        check_machine()
    except NotHere as error:
        pytest.skip(str(error))
    assert check_image.main([]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "full: doctor is content" in said
    assert "was done after" in said
