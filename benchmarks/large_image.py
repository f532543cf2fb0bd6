"""Memory of a 4000x6000 image from the file to its segments on a CPU, and of the merge alone.

    python benchmarks/large_image.py                    # rtknet-cityscapes, random weights, about 100 masks kept
    python benchmarks/large_image.py --model rtknet-lite-street --size model
    python benchmarks/large_image.py --quick            # 400x600

With --size image the network sees all 24 million pixels, else it sees the published size and its result is taken to the
image's own. The merge is measured alone, too, on masks of a drawn scene: at the size that the network sees, which is
where RT-K-Net's takes place, and at all 24 million pixels. Peaks are those of one process above the loaded model.
"masks" is what holding --kept masks in float32 at the image's size takes, which the original does more than once.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from original import keep_about, scene, settle
from PIL import Image

from knet.inference.bench import PeakMemory, machine, photo
from knet.inference.engines.network import TorchEngine
from knet.inference.load import describe_official, read_model, segmenter_for
from knet.inference.sources.images import load_image
from knet.merge.panoptic import best_class, merge_panoptic
from knet.models.zoo import create, entry
from knet.preprocess import network_size, normalize_and_pad


def main() -> None:
    """Two figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="rtknet-cityscapes")
    parser.add_argument("--size", choices=["image", "model"], default="model")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--kept", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size = (400, 600) if args.quick else (4000, 6000)
    cpu = torch.device("cpu")
    row = entry(args.model)
    if row.bundled:
        net, card = read_model(args.model)
    else:
        torch.manual_seed(0)
        net, card = create(args.model), describe_official(args.model)
        settle(net)
        x = torch.from_numpy(photo((64, 96) if args.quick else (1024, 1536))).permute(2, 0, 1)
        keep_about(net, normalize_and_pad([x], row.preprocessing), args.kept, row.score)
    segmenter = segmenter_for(TorchEngine(net, cpu, args.precision, frozen=True), card)
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "large.jpg"
        Image.fromarray(photo(size)).save(file, quality=92)
        segmenter(photo((64, 96)), size="image")  # compiles, and loads what is loaded late
        memory = PeakMemory(cpu)
        load_image(file)
        loading = memory.above() or 0.0
        memory = PeakMemory(cpu)
        result = segmenter(file, size=args.size)
        whole = memory.above() or 0.0
    resized = network_size(size, args.size, segmenter.preprocessing)
    merges = [memory_of_merge(pixels, min(args.kept, 100)) for pixels in (resized, size)]
    figures = {
        "model": args.model,
        "size": size,
        "network sees": resized,
        "precision": args.precision,
        "segments": len(result.segments),
        "reading the file, MB": loading,
        "file to segments, MB": whole,
        "merge at what it sees, MB": merges[0],
        "merge at all pixels, MB": merges[1],
        "masks in float32, MB": 4e-6 * args.kept * float(np.prod(size)),
    }
    print(machine(cpu))
    for name, value in figures.items():
        print(f"{name:<24} {value if not isinstance(value, float) else round(value)}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


def memory_of_merge(size: tuple[int, int], kept: int) -> float:
    """The peak in MB above the masks on their grid of 1/8, from which a map of this size is made."""
    logits, classes = scene(size, kept)
    scores, labels = best_class(classes)
    memory = PeakMemory(torch.device("cpu"))
    with torch.inference_mode():
        merge_panoptic(logits, scores, labels, size, 0.3, 0.6)
    return memory.above() or 0.0


if __name__ == "__main__":
    main()
