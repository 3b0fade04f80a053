"""Small files of many pictures each, as other programs write them."""

import io
import json
import tarfile
import zipfile

from pictures import picture


def encoded(index, kind="png"):
    """The file of picture `index`."""
    file = io.BytesIO()
    picture(index).save(file, kind)
    return file.getvalue()


def write_zip(path, folder, top=""):
    """A zip of all files in a folder, under a folder of its own where `top` is its name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{top}{file.relative_to(folder)}")
    return path


def write_tar(path, count, first=0, target=lambda index: ("cls", str(index % 3).encode()), folder=""):
    """A shard of `count` samples: a picture and, where there is one, its target as (ending, bytes)."""
    with tarfile.open(path, "w") as archive:
        for index in range(first, first + count):
            files = [("png", encoded(index)), *([target(index)] if target(index) else [])]
            for ending, data in files:
                member = tarfile.TarInfo(f"{folder}{index:06d}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


def write_parquet(path, count, names=("cat", "dog", "cow"), column="image"):
    """A table as Hugging Face writes it, the classes' names in its head."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": encoded(index), "path": f"{index}.png"} for index in range(count)]
    table = pa.table({column: images, "label": [index % 3 for index in range(count)]})
    features = {column: {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    head = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(head), path)
    return path


def write_saved(path, count, names=("cat", "dog", "cow")):
    """A data set of the library `datasets`, saved."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
    columns = {"image": [picture(index) for index in range(count)], "label": [index % 3 for index in range(count)]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(path))
    return path
