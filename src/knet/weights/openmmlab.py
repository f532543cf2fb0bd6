"""From the key names of the official K-Net checkpoints in the OpenMMLab form (github.com/ZwwWayne/K-Net) to ours.

Such a file is `torch.save` of {"meta": {...}, "state_dict": {key: tensor}}. Keys of the networks for panoptic and
instance segmentation start with `backbone.`, `neck.`, `rpn_head.` (initial kernels) or `roi_head.mask_head.` (stages).
"""

import re

from torch import Tensor

from knet.weights import swin
from knet.weights.names import Renames, flatten_kernels, renamed
from knet.weights.rtknet import UPDATE_RENAMES

_BACKBONE = "backbone."
_UNREAD_LEVEL = r"neck\.fpn_convs\.(?![0-3]\.)\d+\."

RESNET_RENAMES: Renames = (
    (r"^backbone\.stem\.([0-6])\.", r"backbone.conv1.\1."),
    (r"^backbone\.stem\.7\.", "backbone.bn1."),
    (r"^(backbone\..*)\.conv2\.conv_offset\.", r"\1.conv2.offset."),
)
# Of a stage whose own prefix is already ours, such as `decoder.stages.0.`.
STAGE_RENAMES: Renames = (
    (r"\.kernel_update_conv\.", ".update."),
    *UPDATE_RENAMES,
    (r"\.attention\.attn\.", ".interaction.attention."),
    (r"\.attention_norm\.", ".interaction.attention_norm."),
    (r"\.ffn\.layers\.0\.0\.", ".interaction.expand."),
    (r"\.ffn\.layers\.1\.", ".interaction.contract."),
    (r"\.ffn_norm\.", ".interaction.ffn_norm."),
    (r"\.feat_transform\.conv\.", ".transform."),
    (r"\.mask_fcs\.", ".to_mask."),
    (r"\.fc_mask\.", ".to_mask.3."),
    (r"\.cls_fcs\.", ".to_class."),
    (r"\.fc_cls\.", ".to_class.3."),
)
_IMAGE_RENAMES: Renames = (
    (r"^neck\.lateral_convs\.(\d+)\.conv\.", r"neck.laterals.\1."),
    (r"^neck\.fpn_convs\.(\d+)\.conv\.", r"neck.outputs.\1."),
    # A level's units (convolution, norm, ReLU) have the numbers 0, 2 and 4, as a resize lies between two.
    (r"^rpn_head\.localization_fpn\.", "pyramid."),
    (r"^pyramid\.convs_all_levels\.(\d)\.conv(\d)\.", lambda found: f"pyramid.levels.{found[1]}.{2 * int(found[2])}."),
    (r"^pyramid\.conv_pred\.", "pyramid.localization."),
    (r"^pyramid\.aux_convs\.0\.", "pyramid.semantic."),
    (r"^rpn_head\.loc_convs\.0\.", "to_localization."),
    (r"^rpn_head\.seg_convs\.0\.", "to_semantics."),
    (r"^rpn_head\.init_kernels\.weight$", "decoder.kernels"),
    (r"^rpn_head\.conv_seg\.", "semantic."),
    (r"^((?:pyramid|to_localization|to_semantics)\..*)\bconv\.", r"\g<1>0."),
    (r"^((?:pyramid|to_localization|to_semantics)\..*)\bgn\.", r"\g<1>1."),
    (r"^roi_head\.mask_head\.(\d+)\.", r"decoder.stages.\1."),
    (r"^tracker\.mask_head\.(\d+)\.", r"clip_stages.\1."),  # of Video K-Net for clips (knet_vis)
    *STAGE_RENAMES,
)


def rename_image(key: str) -> str:
    """The name in `KNet` of an official key that is not of a Swin backbone (see `swin.translate`)."""
    return renamed(key, RESNET_RENAMES if key.startswith(_BACKBONE) else _IMAGE_RENAMES)


def translate_image(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict under `KNet`'s names, without levels of the pyramid beyond c5, which were never read."""
    ours = {rename_image(k): tensor for k, tensor in rename_swin(state).items() if not re.match(_UNREAD_LEVEL, k)}
    return flatten_kernels(ours)


def rename_swin(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with the keys of a Swin backbone under our names and all others unchanged."""
    if not any(key.startswith(f"{_BACKBONE}patch_embed.") for key in state):
        return state
    inside = {k.removeprefix(_BACKBONE): tensor for k, tensor in state.items() if k.startswith(_BACKBONE)}
    outside = {k: tensor for k, tensor in state.items() if not k.startswith(_BACKBONE)}
    return {f"{_BACKBONE}{k}": tensor for k, tensor in swin.translate(inside).items()} | outside
