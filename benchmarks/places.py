"""Where masks lie: maps laid over pictures by the centres of receptive fields, against the same maps as equal cells.

On the embedded world, whose objects are known. Of each layer, both ways: the share of the exemplar masks' pixels that
lie on an object of the picture, mean over the units; Network Dissection's mean IoU; and the mean correlation of its
explanations with the units on test pictures, as the embedded judge sees these. Seconds are of the dissection; what
both ways have in common is in the store before.
"""

import dataclasses
import os
import tempfile
import time
from statistics import fmean
from unittest import mock

import torch

import neuronx
from neuronx.methods.net_dissect.method import thresholds
from neuronx.recording.exemplars import find_exemplars, gather
from neuronx.recording.maps import masks
from neuronx.recording.trainer import make
from neuronx.targets.target import MASKS, Target
from neuronx.world import networks
from neuronx.world.pictures.probe import SIDE, ShapesProbe
from neuronx.world.pictures.render import render_masks

LAYERS = {
    "shapes_resnet": {"layer4": "avg", "layer3": "avg"},
    "shapes_vit": {"blocks.2.mlp.act": "avg", "blocks.3": "patch"},
    "shapes_alexnet": {"conv5": "avg"},
}


def report(images: int = 5000) -> list[dict]:
    """One row for each layer."""
    probe, rows = ShapesProbe(images), []
    with tempfile.TemporaryDirectory() as store, mock.patch.dict(os.environ, {"NEURONX_CACHE": store}):
        for network, layers in LAYERS.items():
            for layer, pool in layers.items():
                target = networks.load(network, layers={layer: pool})
                thresholds(dataclasses.replace(target, masks="published"), probe, make)
                ours, cells = (seen(dataclasses.replace(target, masks=how), probe) for how in MASKS)
                row = {"name": f"{network} {layer}", "ours_cpu_s": ours.pop("s"), "reference_cpu_s": cells.pop("s")}
                row["ratio"] = row["reference_cpu_s"] / row["ours_cpu_s"]
                rows.append(row | {name: f"{ours[name]:.3f} (equal cells {cells[name]:.3f})" for name in ours})
                print(rows[-1], flush=True)
    return rows


def seen(target: Target, probe: ShapesProbe) -> dict[str, float]:
    """What is measured of a network with one layer, and the CPU seconds of its dissection."""
    start = time.process_time()
    study = neuronx.study(target, probe)
    iou = fmean(dict(explanation.notes).get("iou", 0.0) for explanation in study.explain("net_dissect"))
    seconds = time.process_time() - start
    scores = [row.value for row in study.score(judge="shapes_judge", floors=False, ceiling=False)]
    return {"on objects": on_objects(target, probe), "IoU": iou, "correlation": fmean(scores), "s": seconds}


def on_objects(target: Target, probe: ShapesProbe) -> float:
    """The share of the exemplar masks' pixels that lie on an object, mean over the units that fire."""
    ((layer, found),) = find_exemplars(target, probe, make).items()
    units = torch.arange(len(found.units))
    maps = gather({layer: found}, {layer: units}, target, probe, make)[0][layer]
    fires = masks(maps.transpose(0, 1), found.thresholds, (SIDE, SIDE), found.centres).transpose(0, 1)
    objects = (render_masks(probe.scenes[found.rows.flatten()]) > 0).view_as(fires)
    lit, inside = fires.sum((1, 2, 3)), (fires & objects).sum((1, 2, 3))
    return float((inside / lit)[lit > 0].mean())
