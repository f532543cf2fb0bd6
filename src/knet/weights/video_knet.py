"""From the key names of the official Video K-Net checkpoints with a track head (github.com/lxtGH/Video-K-Net) to ours.

They are K-Net's in the OpenMMLab form, see `knet.weights.openmmlab`, plus the links to the frame before in every stage
and the layers of the track embedding.
"""

import re

from torch import Tensor

from knet.weights.names import Renames, renamed
from knet.weights.openmmlab import translate_image
from knet.weights.rtknet import UPDATE_RENAMES

_LINK = r"(attention_previous(?:_norm|_update)?|link_ffn(?:_norm)?)"
_RENAMES: Renames = (  # after K-Net's
    (rf"^(decoder\.stages\.\d+)\.{_LINK}_link\.", r"\1.fusion.\2."),
    (rf"^(decoder\.stages\.\d+)\.{_LINK}(?:_track)?\.", r"\1.link.\2."),
    (r"\.attention_previous\.attn\.", ".interaction.attention."),
    (r"\.attention_previous_norm\.", ".interaction.attention_norm."),
    (r"\.attention_previous_update\.", ".update."),
    (r"\.link_ffn\.layers\.0\.0\.", ".interaction.expand."),
    (r"\.link_ffn\.layers\.1\.", ".interaction.contract."),
    (r"\.link_ffn_norm\.", ".interaction.ffn_norm."),
    *UPDATE_RENAMES,
    (r"^embed_fcs\.([01])\.", r"embedding.0.\1."),
    (r"^fc_embed\.", "embedding.0.3."),
    (r"^track_head\.fcs\.0\.", "embedding.1."),
    (r"^track_head\.fcs\.1\.", "embedding.3."),
    (r"^track_head\.fc_embed\.", "embedding.5."),
)


def rename_video(key: str) -> str:
    """The name in `VideoKNet` of a key to which K-Net's renames were applied."""
    return renamed(key, _RENAMES)


def translate_video(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict under `VideoKNet`'s names, without the links that were never trained: all but the last."""
    stages = [int(match[1]) for key in state if (match := re.match(r"roi_head\.mask_head\.(\d+)\.", key))]
    unused = re.compile(rf"roi_head\.mask_head\.(?!{max(stages, default=0)}\.)\d+\.{_LINK}")
    used = {key: tensor for key, tensor in state.items() if not unused.match(key)}
    return {rename_video(key): tensor for key, tensor in translate_image(used).items()}
