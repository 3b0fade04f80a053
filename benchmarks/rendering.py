"""Rendering of the embedded world, with masks, against a plain loop: every object by itself, over the whole picture."""

import math
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from neuronx.world.pictures.render import BODY, MARK, OUTLINES, PATTERNS, RIM, TILT, render_all, windows
from neuronx.world.pictures.scene import SHAPES, SIDE, TEXTURES, TURNS, Scenes, sample

PICTURES = 1000
ROUNDS = 5


def report() -> list[dict]:
    """Seconds for 1,000 pictures with their maps of objects, on one core; the median of five interleaved rounds."""
    torch.set_num_threads(1)
    scenes = sample(1, torch.arange(PICTURES))
    render_all(scenes[:128]), plain(scenes[:4])  # makes the backgrounds
    render_all(scenes)
    peak = _peak_mb()  # of the whole process, before the plain loop runs at length
    rounds = [(_timed(render_all, scenes), _timed(plain, scenes)) for _ in range(ROUNDS)]
    ours, reference = (tuple(statistics.median(r[side][k] for r in rounds) for k in range(2)) for side in range(2))
    pictures, ids = render_all(scenes)
    slow, slow_ids = plain(scenes)
    return [
        {
            "name": f"{PICTURES} pictures of {SIDE} pixels with masks",
            "ours_cpu_s": ours[1],
            "reference_cpu_s": reference[1],
            "ratio": reference[1] / ours[1],
            "peak_mb": peak,
            "images_per_s": round(PICTURES / ours[0]),
            "images_per_cpu_s": round(PICTURES / ours[1]),
            "reference_images_per_s": round(PICTURES / reference[0]),
            "largest_difference": int((pictures.int() - slow.int()).abs().max()),
            "differing_mask_pixels": int((ids != slow_ids).sum()),
        }
    ]


def plain(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """The same pictures, one picture and one object after the other."""
    pictures, maps = zip(*(_picture(scenes[[row]]) for row in range(len(scenes))), strict=True)
    return torch.stack(pictures), torch.stack(maps)


def _picture(scene: Scenes) -> tuple[Tensor, Tensor]:
    picture = windows(scene)[0]
    ids = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    for slot in range(int(scene.count)):
        shape, colour, texture, turn = (int(getattr(scene, k)[0, slot]) for k in ("shape", "colour", "texture", "turn"))
        radius = scene.radius[0, slot]
        angle = math.radians(TILT * (2 * turn / (TURNS - 1) - 1))

        def local(shift: int, slot: int = slot, angle: float = angle) -> tuple[Tensor, Tensor]:
            line = torch.arange(SIDE) + 0.5 - shift
            across, down = (line - scene.x[0, slot])[None], (line - scene.y[0, slot])[:, None]
            cos, sin = math.cos(angle), math.sin(angle)
            return across * cos + down * sin, across * sin - down * cos

        x, y = local(0)
        distance = OUTLINES[SHAPES[shape]](x / radius, y / radius) * radius
        fallen = OUTLINES[SHAPES[shape]](*(axis / radius for axis in local(2))) * radius
        depth = ((2.5 - fallen) * 0.2).clamp(0, 1)
        picture = picture * (1 - 0.42 * depth * depth)
        body, mark, rim = (
            (torch.tensor(part[colour]) * scene.tint[0, slot])[:, None, None] for part in (BODY, MARK, RIM)
        )
        marks = (
            PATTERNS[TEXTURES[texture]](x, y, 4.8 + 0.19 * radius) if TEXTURES[texture] in PATTERNS else torch.zeros(1)
        )
        painted = body + marks * (mark - body)
        painted = painted + (rim - painted) * (distance + 1.7).clamp(0, 1)
        picture = picture + (painted - picture) * (0.5 - distance).clamp(0, 1)
        ids[distance <= 0] = slot + 1
    return (picture * 255 + 0.5).clamp(0, 255).to(torch.uint8), ids


def _timed(work: Callable[[Scenes], object], scenes: Scenes) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work(scenes)
    return time.perf_counter() - wall, time.process_time() - cpu


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    for row in report():
        print(row)
