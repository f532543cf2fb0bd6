"""Metrics equal to the official evaluators: numpy in, numbers out."""

from knet.evaluation.instance import mask_ap
from knet.evaluation.instance_cityscapes import cityscapes_instance_ap
from knet.evaluation.panoptic import PanopticQuality, panoptic_quality
from knet.evaluation.semantic import ConfusionMatrix, mean_iou
from knet.evaluation.video_instance import ytvis_ap
from knet.evaluation.video_stq import TrackingQuality, stq
from knet.evaluation.video_vpq import VideoPanopticQuality, vpq

__all__ = [
    "ConfusionMatrix",
    "PanopticQuality",
    "TrackingQuality",
    "VideoPanopticQuality",
    "cityscapes_instance_ap",
    "mask_ap",
    "mean_iou",
    "panoptic_quality",
    "stq",
    "vpq",
    "ytvis_ap",
]
