"""Follows the objects of the first frames of the clip that comes with the package.

python examples/track_video.py
"""

from importlib import resources
from itertools import islice

import knet

segmenter = knet.load("rtknet-lite-street")
seen: dict[tuple[str, int], list[int]] = {}
with resources.as_file(resources.files("knet") / "assets" / "demo" / "drive.mp4") as path:
    # A folder of frames, a webcam's number or an rtsp:// address would do as well.
    for number, (_frame, segmentation) in enumerate(islice(segmenter.track(path), 8)):
        for segment in segmentation.segments:
            if segment.track is not None:  # None: stuff, and objects too uncertain to begin a track
                seen.setdefault((segment.name, segment.track), []).append(number)

for (name, track), frames in seen.items():
    print(f"{name} {track}: in {len(frames)} frames, the first {frames[0]}, the last {frames[-1]}")
