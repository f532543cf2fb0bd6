"""knet: dense segmentation with learned kernels."""

__version__ = "0.1.0"
