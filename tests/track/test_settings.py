"""Settings of the trackers: what is refused, and that they cost no torch."""

import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from knet.errors import ConfigError
from knet.track import EmbeddingSettings, OverlapSettings


@pytest.mark.parametrize("kind", [EmbeddingSettings, OverlapSettings])
def test_values_out_of_range_are_refused(kind: Any) -> None:
    names = [name for name in kind.__dataclass_fields__ if name != "memory"]
    assert "start" in names
    for name in names:
        for value in (-0.1, 1.5, float("nan"), "high"):
            with pytest.raises(
                ConfigError, match=rf"tracker's {name}.* must be a number between 0 and 1, not .*{value}"
            ):
                kind(**{name: value})
        assert getattr(kind(**{name: 0}), name) == 0 and getattr(kind(**{name: 1}), name) == 1
    for memory in (0, -3, 2.5, "5", None):
        with pytest.raises(ConfigError, match=r"tracker's memory \(--track-memory\) .* at least 1, not"):
            kind(memory=memory)
    assert kind(memory=1).memory == 1


def test_settings_begin_as_they_are_documented_and_cannot_be_changed() -> None:
    assert EmbeddingSettings() == EmbeddingSettings(start=0.35, follow=0.3, likeness=0.5, memory=5)
    assert OverlapSettings() == OverlapSettings(start=None, overlap=0.1, memory=10)
    for settings in (EmbeddingSettings(), OverlapSettings()):  # which functions share as their default
        with pytest.raises(FrozenInstanceError):
            settings.memory = 7  # type: ignore[misc]


def test_the_option_of_the_command_line_is_named_where_there_is_one() -> None:
    for kind in (EmbeddingSettings, OverlapSettings):
        with pytest.raises(ConfigError, match=r"tracker's start \(--track-start\) must"):
            kind(start=2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="tracker's overlap must"):
        OverlapSettings(overlap=2)


def test_the_room_can_be_imported_without_torch() -> None:
    code = "import sys, knet.track; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
