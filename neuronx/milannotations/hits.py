"""The table from which people are asked to describe units, and the pictures that it points to."""

import io
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from neuronx.errors import UserError
from neuronx.milannotations.dataset import Milannotations, Sample
from neuronx.progress import progress
from neuronx.store.cache import write_atomic
from neuronx.tables.csv import write_csv

TIMEOUT_SECONDS = 20.0
AT_ONCE = 16
OPACITY = 0.75
"""Outside the masks pictures are this much darker: a fourth of their brightness remains."""


def write_hits(
    path: str | Path, units: Milannotations, host: str, data: str, k: int | None = None, check: bool = False
) -> Path:
    """Writes a row `layer,unit,image_url_1..image_url_k` for each unit: a task for one person.

    Args:
        path: Of the table.
        units: Of one model.
        host: Address under which the pictures of `write_pictures` will be found.
        data: The pictures' folder there, such as the model's name.
        k: Number of url columns, by default that of the exemplars; columns beyond them are empty.
        check: Ask for every picture, and write nothing unless each is there (HTTP 200).

    Raises:
        UserError: If the units are of several models, k is below 1, or a picture is not there.
    """
    _one_model(units)
    k = units.k if k is None else k
    if k < 1:
        raise UserError(f"A task shows at least 1 image, not {k}.")
    rows: list[tuple[str | int, ...]] = []
    urls: list[str] = []
    for index in range(len(units)):
        unit = units.unit(index)
        shown = [f"{host.rstrip('/')}/{quote(_picture_path(data, unit.layer, unit.index, i))}" for i in range(units.k)]
        urls += shown[:k]
        rows.append((unit.layer, unit.index, *shown[:k], *[""] * (k - len(shown))))
    if check:
        check_urls(urls)
    return write_csv(path, ("layer", "unit", *(f"image_url_{i}" for i in range(1, k + 1))), rows)


def write_pictures(folder: str | Path, units: Milannotations, data: str, opacity: float = OPACITY) -> Path:
    """Writes the pictures of units, dimmed outside the masks, as `<folder>/<data>/<layer>/unit_<u>/image_<i>.png`.

    `u` is the unit's number, which is not always its row, and `i` counts from 0, the strongest. To be put where
    `write_hits` says that they are. Returns `<folder>/<data>`.
    """
    _one_model(units)
    for sample in progress(units, f"pictures of {data}", len(units)):
        for i, picture in enumerate(pictures(sample, opacity)):
            file = io.BytesIO()
            picture.save(file, "PNG")
            write_atomic(Path(folder) / _picture_path(data, sample.layer, sample.unit, i), file.getvalue())
    return Path(folder) / data


def pictures(sample: Sample, opacity: float = OPACITY) -> list[Image.Image]:
    """The unit's images, strongest first; outside the masks each value is multiplied by 1 - opacity.

    Raises:
        UserError: If the opacity is outside [0, 1].
    """
    if not 0 <= opacity <= 1:
        raise UserError(f"The opacity of what is outside the masks is in [0, 1], not {opacity:g}.")
    dimmed = (sample.images.float() * (1 - opacity)).byte()
    shown = sample.images.where(sample.masks.bool(), dimmed)
    return [Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())) for image in shown]


def check_urls(urls: Sequence[str]) -> None:
    """Raises UserError, with the first, unless every address answers with 200."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(progress(pool.map(_answer, urls), "asking for pictures", len(urls)))
    wrong = [(url, answer) for url, answer in zip(urls, answers, strict=True) if answer != "200"]
    if wrong:
        raise UserError(f"{len(wrong)} of {len(urls)} pictures are not there; the first, {wrong[0][0]}: {wrong[0][1]}.")


def _answer(url: str) -> str:
    try:
        request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "neuronx"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return str(response.status)
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def _picture_path(data: str, layer: str, unit: int, i: int) -> str:
    return f"{data}/{layer}/unit_{unit}/image_{i}.png"


def _one_model(units: Milannotations) -> None:
    if len(units.models) > 1:
        raise UserError(f"Tasks are made for the units of one model, not of {', '.join(units.models)}.")
