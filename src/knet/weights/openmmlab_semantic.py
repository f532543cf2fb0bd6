"""From the key names of the official semantic K-Nets, the same in mmsegmentation 1.x and K-Net's repository, to ours.

Keys start with `backbone.`, `decode_head.kernel_generate_head.` (initial kernels), `decode_head.kernel_update_head.`
(stages) or `auxiliary_head.`.
"""

import re

from torch import Tensor

from knet.weights.names import Renames, renamed
from knet.weights.openmmlab import RESNET_RENAMES, STAGE_RENAMES, rename_swin

_GENERATE = r"^decode_head\.kernel_generate_head\."

_UPERNET_RENAMES: Renames = (  # before all others, as UPerNet uses some of PSPNet's names for other layers
    (_GENERATE + r"psp_modules\.(\d)\.1\.", r"neck.context.scales.\1."),
    (_GENERATE + r"bottleneck\.", "neck.context.fuse."),
    (_GENERATE + r"lateral_convs\.", "neck.laterals."),
    (_GENERATE + r"fpn_convs\.", "neck.outputs."),
    (_GENERATE + r"fpn_bottleneck\.", "neck.fuse."),
)
_SEMANTIC_RENAMES: Renames = (
    (_GENERATE + r"conv_seg\.", "kernels.1."),
    (_GENERATE + r"psp_modules\.(\d)\.1\.", r"neck.scales.\1."),
    (_GENERATE + r"image_pool\.", "neck.pooled."),
    (_GENERATE + r"(?:aspp_modules|convs)\.", "neck.convs."),
    (_GENERATE + r"(?:conv_cat|bottleneck)\.", "neck.fuse."),
    (r"^auxiliary_head\.convs\.0\.", "auxiliary.0."),
    (r"^auxiliary_head\.conv_seg\.", "auxiliary.1.1."),
    (r"^((?:neck|auxiliary)\..*)\.conv\.", r"\1.0."),
    (r"^((?:neck|auxiliary)\..*)\.bn\.", r"\1.1."),
    (r"^decode_head\.kernel_update_head\.", "stages."),
)


def translate_semantic(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict under `KNetSemantic`'s names."""
    upernet = any(re.match(_GENERATE + "fpn_bottleneck", key) for key in state)
    head = (*(_UPERNET_RENAMES if upernet else ()), *_SEMANTIC_RENAMES, *STAGE_RENAMES)
    return {
        renamed(key, RESNET_RENAMES if key.startswith("backbone.") else head): tensor
        for key, tensor in rename_swin(state).items()
    }
