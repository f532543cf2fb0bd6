"""The networks, and the zoo that builds them by name. `knet.models("*coco*")` lists the names: see `zoo.models`."""
