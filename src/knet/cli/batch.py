"""knet batch: predict on many images by Ray, on the cores and GPUs of a machine or of a cluster."""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from knet.cli.many import list_failures, result_options, tell_failures
from knet.cli.options import add_model_options, add_verb, model_options, refuse_absent


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    parser = add_verb(
        verbs,
        "batch",
        "segment many images by several workers, on one machine or on a Ray cluster",
        "knet batch photos results --workers 4 --formats json,panoptic\n"
        "  knet batch s3://bucket/photos results --model rtknet-lite-street --to parquet --gpus 1",
    )
    source = "a folder, a pattern in quotes, an address such as s3://bucket/photos, or .parquet files with the images"
    parser.add_argument("source", metavar="SOURCE", help=source)
    parser.add_argument("output", metavar="OUTPUT", help="folder for the results, which all workers can write to")
    parser.add_argument("--model", default="rtknet-lite-street", help="as in `knet predict` (default: %(default)s)")
    formats = "any of overlay,panoptic,instances,semantic,json,polygons (default: json)"
    parser.add_argument("--formats", default="json", metavar="LIST", help=formats)
    to = "the files that `knet predict` writes, or Parquet tables with a column for each format (default: files)"
    parser.add_argument("--to", choices=["files", "parquet"], default="files", help=to)
    column = "of .parquet files, the column with the bytes of images (default: image)"
    parser.add_argument("--column", default="image", metavar="NAME", help=column)
    names = "of .parquet files, the column with the names of images (default: they are named by file and row)"
    parser.add_argument("--names", metavar="NAME", help=names)
    workers = "how many, each with the model in its memory (default: 1)"
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help=workers)
    parser.add_argument("--cpus", type=_share, default=1.0, metavar="X", help="cores of each worker (default: 1)")
    gpus = "GPUs of each worker; 0.5 lets two share one (default: 0)"
    parser.add_argument("--gpus", type=_share, default=0.0, metavar="X", help=gpus)
    address = "of a Ray cluster that runs already (default: one is started on this machine, for this run alone)"
    parser.add_argument("--address", metavar="ADDRESS", help=address)
    chunk = "images that a worker gets at a time, and that a Parquet table has (default: 16)"
    parser.add_argument("--chunk", type=_count, default=16, metavar="N", help=chunk)
    retries = "how often reading from a store is tried again (default: 2)"
    parser.add_argument("--retries", type=int, default=2, metavar="N", help=retries)
    resume = "images that an earlier run with the same options finished in the output folder are not done again"
    parser.add_argument("--resume", action="store_true", help=resume)
    add_model_options(parser)
    parser.set_defaults(run=run, only=None, region=None)


def run(args: argparse.Namespace) -> int:
    """Segments every image. Those that cannot be read are listed at the end; the others are done all the same."""
    from knet.errors import ConfigError, counted

    if find_spec("ray") is None:
        raise ConfigError("`knet batch` needs Ray, which is not installed: pip install 'knet[cluster]'.")
    refuse_absent(args.model, args.weights)
    from knet.apps.batch_images import find_source

    source = find_source(args.source, args.column, args.names)
    from knet.apps.batch import Job, Workers, run_batch
    from knet.inference.load import load
    from knet.inference.results.formats import check_formats

    loading = model_options(args) | {"threads": args.threads or max(int(args.cpus), 1)}
    segmenter = load(args.model, **(loading | {"device": "cpu"}))  # here for its classes, and for what is wrong
    formats = check_formats([name.strip() for name in args.formats.split(",") if name.strip()], segmenter.categories)
    if segmenter.task == "clip" or "video" in formats:
        raise ConfigError("`knet batch` is for single images; give videos, and models for clips, to `knet predict`.")
    workers = Workers(args.workers, args.cpus, args.gpus, args.address, args.chunk)
    job = Job(source, args.model, args.output, formats, segmenter.categories, loading, {}, args.to == "parquet")
    job = replace(job, retries=max(args.retries, 0), home=str(Path.cwd()))
    options = result_options(args, formats) | {"precision": args.precision, "to": args.to}
    options |= {"chunk": args.chunk} if job.tables else {}
    del segmenter
    done, failed = run_batch(job, workers, options, args.resume)
    listed = list_failures(Path(args.output) / "failed_images.txt", source.plan, failed)
    tell_failures(list(failed.values()), listed)
    saved = f"{', '.join(formats)} saved to {args.output}/ as {args.to}"
    print(f"{counted(done, 'image')}, {saved}; {len(failed)} failed{listed}")
    return 2 if failed else 0


def _count(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) < 10**6:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 on")


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if 0 <= share < 10**4:
        return share
    raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 on, such as 0.5 or 2")
