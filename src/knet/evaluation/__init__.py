"""Metrics equal to the official evaluators: numpy in, numbers out."""

from knet.evaluation.panoptic import PanopticQuality, panoptic_quality
from knet.evaluation.semantic import ConfusionMatrix, mean_iou

__all__ = ["ConfusionMatrix", "PanopticQuality", "mean_iou", "panoptic_quality"]
