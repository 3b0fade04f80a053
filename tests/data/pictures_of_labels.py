"""A small Broden and other pictures of labels, made on the spot, with the numbers kept to compare with."""

from pathlib import Path

import numpy as np
from pictures import picture
from PIL import Image

LABELS = {  # number: name
    0: "-",
    1: "cat",
    2: "dog",
    3: "head",
    4: "street-s",
    5: "black-c",
    6: "bar",
    7: "bar-s",
    8: "striped",
    300: "wine_bar-counter",
    9: "grass",
}
COVERAGE = {
    "color": {5: 9.0},
    "object": {1: 4.0, 2: 3.0, 6: 1.0, 300: 2.0, 9: 0.5},
    "part": {3: 2.0, 2: 1.0},
    "material": {9: 0.5},
    "scene": {4: 5.0, 7: 1.0},
    "texture": {8: 1.0},
}
HEADER = "image,split,ih,iw,sh,sw,color,object,part,material,scene,texture"


def write_labels(path: Path, numbers: np.ndarray) -> None:
    """A label is red + 256 green; blue means nothing."""
    channels = [numbers % 256, numbers // 256, np.full_like(numbers, 7)]
    Image.fromarray(np.stack(channels, 2).astype(np.uint8)).save(path)


def small_broden(root: Path, side: int = 16) -> dict[str, dict[str, object]]:
    """Writes a Broden of seven images in two folders, of which five have labels; returns those by name.

    Each has the planes of its pixels, by category, and the numbers of its whole-image labels.
    """
    random = np.random.default_rng(0)
    half = side // 2
    images = {
        "ade20k/one.jpg": {"color": [[5]], "object": [[1, 2, 0]], "part": [[3, 0], [0, 2, 3]], "scene": [4]},
        "ade20k/two.jpg": {"object": [[300, 1, 9]], "material": [[9, 0]], "scene": [0, 7], "texture": [8]},
        "dtd/three.jpg": {"texture": [8, 0]},
        "dtd/four.jpg": {"scene": [0]},
        "pascal/five.jpg": {"part": [[3]], "object": [[6, 0]]},
        "pascal/six.jpg": {},
        "pascal/seven.jpg": {"color": [[0]]},
    }
    rows, known = [HEADER], {}
    for seed, (name, kinds) in enumerate(images.items()):
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed, side).save(path)
        cells, planes, whole = [], {}, []
        for kind in COVERAGE:
            items = []
            for position, what in enumerate(kinds.get(kind, [])):
                if isinstance(what, int):
                    whole.append(what)
                    items.append(str(what))
                    continue
                numbers = random.choice(what, (half, half))
                items.append(f"{name[:-4]}_{kind}_{position + 1}.png")
                write_labels(root / "images" / items[-1], numbers)
                planes.setdefault(kind, []).append(numbers)
            cells.append(";".join(items))
        split = "train" if seed % 2 == 0 else "val"
        rows.append(f"{name},{split},{side},{side},{half},{half}," + ",".join(cells))
        known[name] = {"planes": planes, "whole": whole}
    (root / "index.csv").write_text("\n".join(rows) + "\n")
    (root / "category.csv").write_text(
        "name,first,last,count,frequency\n" + "".join(f"{kind},0,0,1,1\n" for kind in COVERAGE)
    )
    (root / "label.csv").write_text(
        "number,name,category,frequency,coverage,syns\n"
        + "".join(f"{number},{name},object(1),1,0.5,\n" for number, name in LABELS.items())
    )
    for kind, covers in COVERAGE.items():
        lines = [f"{code},{number},{LABELS[number]},1,{c}" for code, (number, c) in enumerate(covers.items(), 1)]
        (root / f"c_{kind}.csv").write_text("\n".join(["code,number,name,frequency,coverage", *lines]) + "\n")
    return {name: one for name, one in known.items() if name not in ("dtd/four.jpg", "pascal/six.jpg")}
