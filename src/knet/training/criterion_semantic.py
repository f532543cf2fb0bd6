"""The losses of K-Net for semantic segmentation: every stage classifies every pixel (K-Net, section 4.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from knet.training.criterion import Counts, Outputs, Targets, hide_classes, labels_of, pad_ids
from knet.training.losses import rank_loss


@dataclass(slots=True, kw_only=True)
class SemanticCriterion:
    """All losses of a training step of `KNetSemantic`, weighted; the loss to minimise is their plain sum.

    Keys: `s1_loss_seg` and so on for every stage (s1 = the class weights themselves), and `loss_seg` of the auxiliary
    head. Logits are resized to the padded images. The mean is over all their pixels; void and padding count as zeros.
    """

    semantic_weight: float = 0.4  # of the auxiliary head
    stride: int = 8  # image pixels to a pixel of the logits
    invalid_costs: int = 0  # always, as nothing is matched

    def __call__(
        self, outputs: Outputs, targets: Targets, noise: Tensor | None = None, counts: Counts | None = None
    ) -> dict[str, Tensor]:
        """S outputs, B targets -> weighted scalar losses in float32. Neither `noise` nor `counts` are used."""
        (height, width), device = outputs[0].mask_logits.shape[-2:], outputs[0].mask_logits.device
        size, maps = (height * self.stride, width * self.stride), []
        for b, target in enumerate(targets):
            layers = pad_ids(target.id_map.to(device, non_blocking=True), size, f"Target {b}").long()
            maps.append(labels_of(layers.reshape(-1, *size), target.labels.to(device, non_blocking=True)))
        labels = torch.stack(maps)
        unlabelled = [target.unlabelled for target in targets]
        stages = [hide_classes(output.mask_logits, unlabelled) for output in outputs]
        losses = {f"s{s}_loss_seg": _loss(logits, labels) for s, logits in enumerate(stages, start=1)}
        if outputs[0].semantic_logits is not None:
            logits = hide_classes(outputs[0].semantic_logits, unlabelled)
            losses["loss_seg"] = self.semantic_weight * _loss(logits, labels)
        return losses

    def count(self, targets: Targets, kernels: int, parts: int = 1) -> Counts:
        """Ones: means over pixels need no counts, as the parts of a batch have equal shapes."""
        return Counts(1.0, 1.0)


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,K,h,w) logits of any size, (B,H,W) int64 -> ()"""
    resized = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear", align_corners=False)
    return rank_loss(resized, labels)
