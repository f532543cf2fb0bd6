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
# Tables that depend on the window's side only, so the network makes its own.
_COMPUTED = ("relative_position_index", "attn_mask")


def is_first_swin(keys: set[str]) -> bool:
    """Whether these look like the keys of the first Swin code, not OpenMMLab's."""
    return any(key.startswith("layers.0.blocks.") for key in keys)


def rename(key: str) -> str:
    """The name of a key of either code in `Swin`."""
    return renamed(key, _RENAMES)


def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A Swin state dict of any of these code bases under our names, with patch merging in our order.

    Computed tables are left out. The classifier of ImageNet weights (`norm.*`, `head.*`) passes unchanged.
    """
    first = is_first_swin(set(state))
    if first and not any(key.startswith("layers.0.downsample.") for key in state):
        number = re.compile(r"(?<=^layers\.)\d+(?=\.downsample\.)")  # one more than in the first code
        state = {number.sub(lambda found: str(int(found[0]) - 1), key): x for key, x in state.items()}
    ours = {rename(key): tensor for key, tensor in state.items() if not key.endswith(_COMPUTED)}
    for key, tensor in ours.items():
        if first and key.startswith("merges."):
            ours[key] = by_channel(tensor)
    return ours


def by_channel(merging: Tensor) -> Tensor:
    """Reorders patch merging's inputs from position-major (the first Swin code) to channel-major. (...,4C) -> (...,4C)

    The first code concatenates the cells at (row, column) (0,0), (1,0), (0,1), (1,1); ours orders by row first.
    """
    # (column, row, C) -> (C, row, column)
    return merging.unflatten(-1, (2, 2, -1)).transpose(-1, -3).flatten(-3)
