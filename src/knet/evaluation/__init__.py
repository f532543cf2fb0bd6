"""Metrics equal to the official evaluators: numpy in, numbers out."""

from knet.evaluation.instance import mask_ap
from knet.evaluation.instance_cityscapes import cityscapes_instance_ap
from knet.evaluation.panoptic import PanopticQuality, panoptic_quality
from knet.evaluation.semantic import ConfusionMatrix, mean_iou

__all__ = ["ConfusionMatrix", "PanopticQuality", "cityscapes_instance_ap", "mask_ap", "mean_iou", "panoptic_quality"]
