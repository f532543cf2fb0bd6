"""From the key names of Swin weights of other code bases to those of `knet.models.backbones.swin`.

There are OpenMMLab's names (K-Net, Video K-Net, mmsegmentation) and those of the first Swin code (microsoft/
Swin-Transformer: its ImageNet weights, and K-Net's own semantic training code). The latter also orders the inputs of
patch merging by position first, which `translate` undoes; so does timm, where a merging belongs to the stage after it.
No name here has a prefix such as `backbone.`.
"""

import re

from torch import Tensor

from knet.weights.names import Renames, renamed

# The first four turn the first Swin code's names into OpenMMLab's.
_RENAMES: Renames = (
    (r"^layers\.", "stages."),
    (r"\.attn\.(?!w_msa\.)", ".attn.w_msa."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    (r"^patch_embed\.proj(ection)?\.", "patches."),
    (r"^patch_embed\.norm\.", "patches_norm."),
    (r"^stages\.(\d+)\.downsample\.norm\.", r"merges.\1.norm."),
    (r"^stages\.(\d+)\.downsample\.reduction\.", r"merges.\1.reduce."),
    (r"^norm(\d)\.", r"norms.\1."),
    (r"\.norm1\.", ".attention_norm."),
    (r"\.norm2\.", ".ffn_norm."),
    (r"\.attn\.w_msa\.proj\.", ".attention.out."),
    (r"\.attn\.w_msa\.relative_position_bias_table$", ".attention.position_bias"),
    (r"\.attn\.w_msa\.", ".attention."),
    (r"\.ffn\.layers\.0\.0\.", ".expand."),
    (r"\.ffn\.layers\.1\.", ".contract."),
)
_COMPUTED = ("relative_position_index", "attn_mask")  # from the window's side alone, so the network makes its own


def rename(key: str) -> str:
    """The name in `Swin` of a key of either code."""
    return renamed(key, _RENAMES)


def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A Swin state dict of these code bases under our names: patch merging in our order, classifiers pass unchanged."""
    first = any(key.startswith("layers.0.blocks.") for key in state)
    if first and not any(key.startswith("layers.0.downsample.") for key in state):
        number = re.compile(r"(?<=^layers\.)\d+(?=\.downsample\.)")  # one more than in the first code
        state = {number.sub(lambda found: str(int(found[0]) - 1), key): x for key, x in state.items()}
    ours = {rename(key): tensor for key, tensor in state.items() if not key.endswith(_COMPUTED)}
    for key, tensor in ours.items():
        if first and key.startswith("merges."):  # its last axis: from (column, row, C) to (C, row, column)
            ours[key] = tensor.unflatten(-1, (2, 2, -1)).transpose(-1, -3).flatten(-3)
    return ours
