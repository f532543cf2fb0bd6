"""From an image in memory to its map of segments on a CPU: RT-K-Net's own way against the ways of this package.

    python benchmarks/image_to_id_map.py                      # base and bundled model, 512x1024 and 1024x2048; an hour
    python benchmarks/image_to_id_map.py --model base --size 512x1024 --ways torch-fp32 torch-bf16
    python benchmarks/image_to_id_map.py --quick              # 128x256, to see that it runs

"base" is rtknet-cityscapes with random weights: its batch norms get the statistics of activations, and the bias of its
classes is moved so that --kept of its 100 masks are above the published threshold of 0.3 for the photo. "bundled" is
rtknet-lite-street, trained, with all that it finds. The image is a photo of the package, stretched to the size; the
network sees it as it is. All ways use the same weights, take turns, and include normalising, network, merge, areas and
boxes (the original gives a map alone). Files for OpenVINO and ONNX Runtime are exported first, into --folder, where a
later run finds them; ways whose library is not installed are left out. Memory is the peak of a process of its own above
the loaded model. "equal" is the share of pixels whose class is that of the original's map; with random weights it says
little, since their masks are all near 0, where rounding decides: see benchmarks/precision.py for what precision costs.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from original import OriginalNetwork, keep_about, normalised, original_merge, settle, take_turns

import knet
from knet.inference.bench import PeakMemory, machine, photo
from knet.inference.load import describe_official, read_model
from knet.merge.panoptic import best_class
from knet.models.zoo import create, entry
from knet.preprocess import normalize_and_pad
from knet.weights.load import save_weights

WAYS = ("original", "torch-fp32", "torch-bf16", "onnx-fp32", "openvino-fp32", "openvino-bf16", "openvino-int8")
LIBRARY = {"onnx": "onnxruntime", "openvino": "openvino"}
NAMES = {"base": "rtknet-cityscapes", "bundled": "rtknet-lite-street"}


def main() -> None:
    """A table for each model, size and number of masks; or, in a process that measures memory, one number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--size", nargs="+", default=["512x1024", "1024x2048"], metavar="HxW")
    parser.add_argument("--kept", nargs="+", type=int, default=[20, 100], help="masks above the threshold, of base")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for weights and exported files (default: a temporary one)")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", nargs=3, metavar=("WEIGHTS", "WAY", "SIZE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory:
        print(memory_of(Path(args.memory[0]), args.memory[1], size_of(args.memory[2])))
        return
    if args.quick:
        args.size, args.kept, args.rounds = ["128x256"], [20], 1
    print(f"{machine(torch.device('cpu'))}, torch {torch.__version__}")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(exist_ok=True, parents=True)
        for model in args.model:
            for size in args.size:
                for kept in args.kept if model == "base" else [None]:
                    weights = weights_file(folder, model, size_of(size), kept)
                    rows += compare(weights, model, size, kept, args)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def compare(
    weights: Path, model: str, size: str, kept: int | None, args: argparse.Namespace
) -> list[dict[str, object]]:
    """All ways with the same weights on the same image, in turns."""
    names = [name for name in args.ways if importlib.util.find_spec(LIBRARY.get(name.split("-")[0], "torch"))]
    names = ["original", *(name for name in names if name != "original")]
    ways = {name: open_way(weights, name, size_of(size)) for name in names}
    maps = {name: way() for name, way in ways.items()}
    times = take_turns(ways, args.rounds)  # the first turn only warms up
    del ways
    print(f"\n{model} ({NAMES[model]}), {size}, {'as trained' if kept is None else f'{kept} masks kept'}")
    rows = []
    for name in names:
        command = [sys.executable, __file__, "--threads", str(args.threads), "--memory", str(weights), name, size]
        peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
        row = {"model": model, "size": size, "kept": kept, "way": name, **times[name], "memory": peak}
        row["ratio"] = times["original"]["wall"] / times[name]["wall"]
        row["equal"] = float((maps[name] == maps["original"]).mean())
        rows.append(row)
        print(
            f"{name:<14} {row['wall']:>9.1f} ms, {row['cpu']:>9.1f} ms CPU, {row['ratio']:>6.2f} times, "
            f"+{peak:>5.0f} MB, {100 * row['equal']:6.2f} % equal",
            flush=True,
        )
    return rows


def size_of(text: str) -> tuple[int, int]:
    """Height and width of "512x1024"."""
    height, _, width = text.partition("x")
    return int(height), int(width)


def weights_file(folder: Path, model: str, size: tuple[int, int], kept: int | None) -> Path:
    """The weights that all ways use."""
    if model == "bundled":
        path = folder / "bundled.safetensors"
        net, card = read_model(NAMES[model])
    else:
        path = folder / f"base-{size[0]}x{size[1]}-{kept}.safetensors"
        if path.exists():
            return path
        torch.manual_seed(0)
        net, card = create(NAMES[model]), describe_official(NAMES[model])
        settle(net)
        x = torch.from_numpy(photo(size)).permute(2, 0, 1)
        keep_about(net, normalize_and_pad([x], entry(NAMES[model]).preprocessing), int(kept or 20), card.score)
    save_weights(path, net.state_dict(), card)
    return path


def open_way(weights: Path, name: str, size: tuple[int, int]) -> Callable[[], np.ndarray]:
    """A call from the image to the classes of its pixels, as labels; -1 = void."""
    image, (backend, _, precision) = photo(size), name.partition("-")
    if name == "original":
        net, card = read_model(weights)
        network, p = OriginalNetwork(net), card.preprocessing
        things = torch.tensor([category.thing for category in card.categories])

        def original() -> np.ndarray:
            masks, classes = network(normalised(image, p.mean, p.std))
            ids = original_merge(masks, *best_class(classes), things, size, card.score, card.overlap)
            return torch.where(ids < 0, -1, ids // 1000).numpy()

        return original
    segmenter = knet.load(weights if backend == "torch" else exported(weights, name), device="cpu", precision=precision)
    label_of = {category.id: label for label, category in enumerate(segmenter.categories)}

    def ours() -> np.ndarray:
        found = segmenter.segment(image, size="image")
        table = np.full(len(found.segments) + 2, -1)
        for segment in found.segments:
            table[segment.id] = label_of[segment.category]
        return table[found.id_map]

    return ours


def exported(weights: Path, name: str) -> Path:
    """The file of `knet export` for these weights, made if it is not there yet."""
    backend, _, precision = name.partition("-")
    precision = "fp32" if precision == "bf16" else precision  # OpenVINO computes the same file in either
    path = weights.with_name(f"{weights.stem}-{precision}{'.onnx' if backend == 'onnx' else '.xml'}")
    if not path.exists():
        from knet.export.write import export

        export(weights, backend, output=path, precision=precision)  # type: ignore[arg-type]
    return path


def memory_of(weights: Path, name: str, size: tuple[int, int]) -> float:
    """MB above the loaded model at the most, in three images."""
    open_way(weights, name, (64, 128))()  # what is compiled and loaded late
    way = open_way(weights, name, size)
    memory = PeakMemory(torch.device("cpu"))
    for _ in range(3):
        way()
    return memory.above() or 0.0


if __name__ == "__main__":
    main()
