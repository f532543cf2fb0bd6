"""From the key names of the official RT-K-Net checkpoints (github.com/markusschoen/RT-K-Net) to ours.

The official file is `torch.save` of {"model": {key: tensor}, ...}; keys start with `backbone.` or `sem_seg_head.`.
"""

from torch import Tensor

from knet.weights.names import Renames, flatten_kernels, renamed

# Of the adaptive kernel update, whose names are the same in all official code.
UPDATE_RENAMES: Renames = (
    (r"\.update\.dynamic_layer\.", ".update.from_group."),
    (r"\.update\.input_layer\.", ".update.from_kernel."),
    (r"\.update\.update_gate\.", ".update.group_gate."),
    (r"\.update\.input_gate\.", ".update.kernel_gate."),
    (r"\.update\.norm_in\.", ".update.group_gate_norm."),
    (r"\.update\.input_norm_in\.", ".update.kernel_gate_norm."),
    (r"\.update\.norm_out\.", ".update.group_norm."),
    (r"\.update\.input_norm_out\.", ".update.kernel_norm."),
    (r"\.update\.fc_layer\.", ".update.out."),
    (r"\.update\.fc_norm\.", ".update.out_norm."),
)

_RENAMES: Renames = (
    (r"^backbone\.conv1\.", "backbone.stem."),
    (r"^backbone\.layer([12])\.", r"backbone.stage\1."),
    (r"^backbone\.layer3\.", "backbone.stage3_low."),
    (r"^backbone\.layer3_\.0\.", "backbone.stage3_high."),
    (r"^backbone\.compression3\.", "backbone.stage3_to_high."),
    (r"^(backbone\.stage.*)\.downsample\.", r"\1.shortcut."),
    (r"^backbone\.layer([45])\.", r"backbone.stage\1."),
    (r"\.attn_shortcut_l\.", ".low_shortcut."),
    (r"\.attn_l\.k$", ".low_attention.keys"),
    (r"\.attn_l\.v$", ".low_attention.values"),
    (r"\.attn_l\.", ".low_attention."),
    (r"\.mlp_l\.", ".low_mlp."),
    (r"^(backbone\.stage[45])\.compression\.", r"\1.to_high."),
    (r"\.attn_h\.", ".high_attention."),
    (r"\.cross_kv\.", ".high_attention.memory."),
    (r"\.mlp_h\.", ".high_mlp."),
    (r"\.down\.", ".to_low."),
    (r"^sem_seg_head\.feature_map_generator\.da_ppm\.", "neck.context."),
    (r"^sem_seg_head\.feature_map_generator\.conv\.", "neck.fuse."),
    (r"^neck\.context\.scale0\.", "neck.context.scales.0."),
    (r"^neck\.context\.process(\d)\.", lambda found: f"neck.context.merges.{int(found[1]) - 1}."),
    (r"^neck\.context\.compression\.", "neck.context.compress."),
    # The official units of pooled scales have their pooling layer at index 0.
    (r"^neck\.context\.scale(\d)\.(\d)\.", lambda found: f"neck.context.scales.{found[1]}.{int(found[2]) - 1}."),
    (r"^sem_seg_head\.feat_transform\.", "feature_transform."),
    (r"^sem_seg_head\.init_kernels\.weight$", "decoder.kernels"),
    (r"^sem_seg_head\.sem_seg_head\.", "semantic."),
    (r"^sem_seg_head\.heads\.(\d+)\.", r"decoder.stages.\1."),
    (r"\.adaptive_kernel_update\.", ".update."),
    *UPDATE_RENAMES,
    (r"\.kernel_interaction\.", ".interaction."),
    (r"\.interaction\.ffn\.linear1\.", ".interaction.expand."),
    (r"\.interaction\.ffn\.linear2\.", ".interaction.contract."),
    (r"\.interaction\.ffn\.norm\.", ".interaction.ffn_norm."),
    (r"\.fc_mask\.", ".to_mask."),
    (r"\.fc_cls\.", ".to_class."),
)


def rename(key: str) -> str:
    """The name of an official key in `RTKNet`."""
    return renamed(key, _RENAMES)


def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict under `RTKNet`'s names."""
    return flatten_kernels({rename(key): tensor for key, tensor in state.items()})
