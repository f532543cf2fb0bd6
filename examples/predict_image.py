"""Segments one of the images that come with the package and says what is on it.

python examples/predict_image.py
"""

from importlib import resources

import knet

segmenter = knet.load("rtknet-lite-street")
with resources.as_file(resources.files("knet") / "assets" / "demo" / "city_1.jpg") as path:
    segmentation = segmenter(path)

for segment in sorted(segmentation.segments, key=lambda segment: -segment.area):
    kind = "thing" if segment.thing else "stuff"
    print(f"{segment.name:<12} {kind}  score {segment.score:.2f}  {segment.area:>7} pixels  box {segment.box}")
for file in segmentation.save("results", formats=["overlay", "panoptic"]):
    print("wrote", file)
