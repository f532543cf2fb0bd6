"""Panoptic networks of others on the same computer: time of the network alone, and from an image to its map.

    python benchmarks/peers.py                         # 512x1024, 2 threads, float32
    python benchmarks/peers.py --size 1024x2048 --precision bf16
    python benchmarks/peers.py --quick                 # 128x256, to see that it runs

Needs `pip install transformers`. Its Mask2Former and MaskFormer (ResNet-50) and EoMT (ViT-S) are built from
configurations in this file; nothing is downloaded, so all weights, ours included, are random, and the classes' biases
are as they come: little is kept by the mergings, for all alike. Times of the network do not depend on that. Each
network runs as its library runs it (eager); ours as `knet.load` does. All take turns in one process. GFLOP are counted
by torch: two for a multiplication with an addition; convolutions, matrix products and attention.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from original import settle, take_turns
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from knet.inference.bench import machine, photo
from knet.inference.engines.engine import DTYPES
from knet.inference.engines.network import TorchEngine
from knet.inference.load import describe_official, segmenter_for
from knet.models.zoo import create

CLASSES = 19
OURS = ("rtknet-cityscapes", "rtknet-slim-cityscapes", "knet-r50-cityscapes-panoptic")
Way = tuple[nn.Module, Callable[[], object], Callable[[], object]]  # network, it alone, from an image to its map


def main() -> None:
    """A line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="512x1024", metavar="HxW")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    height, _, width = ("128x256" if args.quick else args.size).partition("x")
    size = int(height), int(width)
    print(f"{size[0]}x{size[1]}, {args.precision}, {machine(torch.device('cpu'))}, torch {torch.__version__}")
    ways = {name: ours(name, size, args.precision) for name in OURS}
    for name, make in (("Mask2Former R50", mask2former), ("MaskFormer R50", maskformer), ("EoMT-S", eomt)):
        try:
            ways[name] = theirs(*make(size), size, args.precision)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    calls = {
        f"{name}, {part}": way[1 + place] for name, way in ways.items() for place, part in enumerate(("net", "map"))
    }
    times = take_turns(calls, 1 if args.quick else args.rounds)
    rows, base = [], OURS[0]
    print(
        f"{'':<30} {'parameters':>10} {'GFLOP':>7} {'network':>12} {'CPU':>12} {'ratio':>6} {'image to map':>14} ratio"
    )
    for name, (net, alone, _) in ways.items():
        with FlopCounterMode(display=False) as counted:
            alone()
        net_ms, map_ms = times[f"{name}, net"], times[f"{name}, map"]
        row = {
            "network": name,
            "parameters": sum(p.numel() for p in net.parameters()) / 1e6,
            "gflops": counted.get_total_flops() / 1e9,
            "net": net_ms,
            "map": map_ms,
            "net ratio": net_ms["cpu"] / times[f"{base}, net"]["cpu"],
            "map ratio": map_ms["cpu"] / times[f"{base}, map"]["cpu"],
        }
        rows.append(row)
        print(
            f"{name:<30} {row['parameters']:>8.1f} M {row['gflops']:>7.1f} {net_ms['wall']:>9.1f} ms "
            f"{net_ms['cpu']:>9.1f} ms {row['net ratio']:>6.2f} {map_ms['wall']:>11.1f} ms {row['map ratio']:>5.2f}"
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def ours(name: str, size: tuple[int, int], precision: str) -> Way:
    """A model of this package with random weights."""
    torch.manual_seed(0)
    net = create(name)
    if name.startswith("rtknet"):
        settle(net)
    cpu = torch.device("cpu")
    segmenter = segmenter_for(TorchEngine(net, cpu, precision, frozen=True), describe_official(name))
    image = photo(size)
    inputs, _ = segmenter.prepare(image, "image")
    return net, lambda: segmenter.engine(inputs), lambda: segmenter.segment(image, size="image")


def theirs(net: nn.Module, processor: Any, size: tuple[int, int], precision: str) -> Way:
    """A network of transformers with its own preprocessing and post-processing."""
    net, image = net.eval(), photo(size)
    fed = processor(images=image, return_tensors="pt")
    pixels = fed["pixel_values"]

    @torch.inference_mode()
    def alone(pixels: torch.Tensor = pixels) -> Any:
        with torch.autocast("cpu", DTYPES[precision], enabled=precision != "fp32"):
            return net(pixel_values=pixels)

    @torch.inference_mode()
    def to_map() -> object:
        fed = processor(images=image, return_tensors="pt")
        outputs = alone(fed["pixel_values"])
        outputs = SimpleNamespace(
            masks_queries_logits=outputs.masks_queries_logits.float(),
            class_queries_logits=outputs.class_queries_logits.float(),
            patch_offsets=getattr(outputs, "patch_offsets", None),
        )
        return processor.post_process_panoptic_segmentation(outputs, target_sizes=[size], threshold=0.3)

    return net, alone, to_map


def mask2former(size: tuple[int, int]) -> tuple[nn.Module, Any]:
    """Mask2Former on ResNet-50 as its paper has it for Cityscapes."""
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        ResNetConfig,
    )

    backbone = ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])
    config = Mask2FormerConfig(backbone_config=backbone, num_labels=CLASSES, num_queries=100)
    processor = Mask2FormerImageProcessor(do_resize=False, num_labels=CLASSES)
    return Mask2FormerForUniversalSegmentation(config), processor


def maskformer(size: tuple[int, int]) -> tuple[nn.Module, Any]:
    """MaskFormer on ResNet-50."""
    from transformers import (
        DetrConfig,
        MaskFormerConfig,
        MaskFormerForInstanceSegmentation,
        MaskFormerImageProcessor,
        ResNetConfig,
    )

    backbone = ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])
    config = MaskFormerConfig(backbone_config=backbone, decoder_config=DetrConfig(num_queries=100), num_labels=CLASSES)
    return MaskFormerForInstanceSegmentation(config), MaskFormerImageProcessor(do_resize=False, num_labels=CLASSES)


def eomt(size: tuple[int, int]) -> tuple[nn.Module, Any]:
    """EoMT on ViT-S, which takes squares alone: here one of as many pixels, rounded down to whole patches."""
    from transformers import EomtConfig, EomtForUniversalSegmentation, EomtImageProcessor

    side = int((size[0] * size[1]) ** 0.5) // 16 * 16
    config = EomtConfig(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=side,
        patch_size=16,
        num_queries=200,
        num_blocks=3,
        num_labels=CLASSES,
    )
    processor = EomtImageProcessor(size={"shortest_edge": side, "longest_edge": side}, do_pad=True, num_labels=CLASSES)
    return EomtForUniversalSegmentation(config), processor


if __name__ == "__main__":
    main()
