"""What the package reports while it works, as the command line shows it."""

import logging

import pytest

from knet.cli.main import lines_shown

logger = logging.getLogger("knet")


def test_information_is_plain_and_warnings_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    before = logger.level, list(logger.handlers)
    with lines_shown(json=False):
        logger.info("iteration 1/2  loss 3.000 of 100%")
        logger.warning("Triton does not work here")
        logger.debug("nobody asked")
    assert capsys.readouterr() == ("iteration 1/2  loss 3.000 of 100%\n", "knet: Triton does not work here\n")
    assert (logger.level, list(logger.handlers)) == before


def test_standard_output_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    with lines_shown(json=True):
        logger.info("tracing tiny")
    assert capsys.readouterr() == ("", "tracing tiny\n")


def test_a_library_says_nothing_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    logger.info("tracing tiny")
    assert capsys.readouterr() == ("", "")
