"""knet export: models as files that run without torch."""

import argparse
import json
from typing import Any

from knet.cli.options import add_json, add_merge, add_verb, add_weights, height_width


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    parser = add_verb(
        verbs,
        "export",
        "write a model as an ONNX, OpenVINO or (experimental) TensorRT file, and compare it with the model in torch",
        "knet export rtknet-lite-street --format openvino\n"
        "  knet export rtknet-cityscapes --weights rtknet_cityscapes.pth --format onnx --size 1024x2048\n"
        "  knet export rtknet-lite-street --precision int8 --calibrate photos/",
    )
    parser.add_argument("model", metavar="MODEL", help="a name from `knet models`, or a .safetensors file of knet")
    form = "the file to write; tensorrt is experimental, since it was never run (default: onnx)"
    parser.add_argument("--format", choices=["onnx", "openvino", "tensorrt"], default="onnx", help=form)
    add_weights(parser)
    output = "the .onnx, .xml or .engine file to write (default: named after the model, in this folder)"
    parser.add_argument("--output", metavar="FILE", help=output)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--size", type=height_width, metavar="HxW", help="for images of this height and width only")
    filled = "with --size, for images that fill it alone: faster, as there is no padding to hide from the network"
    parser.add_argument("--filled", action="store_true", help=filled)
    sizes.add_argument("--dynamic", action="store_true", help="for images of any size (default)")
    precision = "fp16 for GPUs, int8 (convolutions only) for CPUs (default: fp32)"
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"], default="fp32", help=precision)
    like = "with --precision int8, images, folders or videos like those the model will see (default: bundled ones)"
    parser.add_argument("--calibrate", nargs="+", default=[], metavar="IMAGES", help=like)
    batch = "for N images at once; knet itself looks at one after the other (default: 1)"
    parser.add_argument("--batch", type=int, default=1, metavar="N", help=batch)
    parser.add_argument("--opset", type=int, metavar="N", help="version of ONNX's operators (default: 20)")
    add_merge(parser)
    inside = "merge in the graph, which then gives each pixel's owner; for panoptic models with the optimised merge"
    parser.add_argument("--merge-inside", action="store_true", help=inside)
    images = "images to compare with torch on; for clip models videos or folders of frames (default: bundled ones)"
    parser.add_argument("--images", nargs="+", default=[], metavar="IMAGES", help=images)
    add_json(parser, "the report")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exports, compares, and prints the report."""
    from knet.errors import ConfigError
    from knet.export.report import table
    from knet.export.write import export

    if args.calibrate and args.precision != "int8":
        raise ConfigError("--calibrate is for --precision int8; give both or neither.")
    written = args.model, args.format, args.weights, args.output, args.size, args.precision
    inside, images = args.merge_inside, (args.calibrate, args.images)
    report, parity = export(
        *written, args.merge, inside, *images, batch=args.batch, opset=args.opset, filled=args.filled
    )
    if args.json:
        print(json.dumps(report, indent=1))
        return 0
    print(f"{report['bytes'] / 1e6:.1f} MB after {report['export_seconds']} s; the file, run by {report['backend']}:")
    print(table(parity))
    print(f"use it with: knet predict {report['file']} {'CLIP' if report['task'] == 'clip' else 'IMAGE'}")
    return 0
