"""Trackers: which objects of a frame are those of the frames before."""

from knet.track.settings import EmbeddingSettings, OverlapSettings

__all__ = ["EmbeddingSettings", "OverlapSettings"]
