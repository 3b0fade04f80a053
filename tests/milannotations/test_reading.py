"""Folders of models are read as their authors meant them."""

import pickle
import subprocess
import sys

import numpy as np
import oracles_milannotations as oracle
import pytest
import torch
from model_folders import SIDE, K, make_holes, make_layer, make_model, make_table

from neuronx.errors import UserError
from neuronx.milannotations import join, read, read_descriptions
from neuronx.milannotations.write import write_all
from neuronx.types import Unit


def test_a_unit_has_its_pictures_masks_and_descriptions(tmp_path):
    images, masks = make_layer(tmp_path / "alexnet" / "imagenet" / "conv1")
    make_table(tmp_path / "alexnet" / "imagenet", [("conv1", 2, 'wool, "stairs"'), ("conv1", 2, "dots")])
    found = read(tmp_path / "alexnet" / "imagenet")
    sample = found.lookup("conv1", 2)
    assert (sample.model, sample.layer, sample.unit) == ("alexnet/imagenet", "conv1", 2)
    assert sample.annotations == ('wool, "stairs"', "dots")
    assert torch.equal(sample.images, torch.from_numpy(images[2])) and sample.images.dtype == torch.uint8
    assert torch.equal(sample.masks, torch.from_numpy(masks[2])) and sample.masks.shape == (K, 1, SIDE, SIDE)
    assert len(found) == 4 and found.k == K and found.layers == ("conv1",) and found.models == ("alexnet/imagenet",)
    assert [one.unit for one in found] == [0, 1, 2, 3] and found[-1].unit == 3 and found[0].annotations == ()
    with pytest.raises(IndexError):
        found[4]


def test_units_have_the_numbers_of_units_npy(tmp_path):
    images, _ = make_layer(tmp_path / "fc1", 2, units=(7, 5))
    make_table(tmp_path, [("fc1", 5, "five"), ("fc1", 7, "seven")])
    for count, order in ((None, [7, 5]), (1, [5, 7])):
        found = read(tmp_path, annotation_count=count)
        assert [one.unit for one in found] == order
        sample = found.lookup("fc1", 5)
        assert sample.unit == 5 and sample.annotations == ("five",)
        assert np.array_equal(sample.images.numpy(), images[1])
        with pytest.raises(UserError, match=r"Layer `fc1` of .* has no unit 1 here. It has 2 units, 5 to 7"):
            found.lookup("fc1", 1)


def test_layers_called_by_numbers_are_text_and_sorted_as_text(tmp_path):
    make_model(tmp_path, {"0": 2, "4": 2, "10": 2})
    for count in (None, 3):
        found = read(tmp_path, annotation_count=count)
        assert found.layers == ("0", "10", "4")
        assert found.lookup("4", 1).annotations == ("4 1, word 0", "4 1, word 1", "4 1, word 2")
        assert found.lookup(4, 1).layer == "4" and found.unit(found.index("10", 0)) == Unit("10", 0)
    assert read(tmp_path, layers=[4]).layers == ("4",)


def test_without_a_count_every_unit_is_there_in_the_order_of_the_folder(tmp_path):
    make_layer(tmp_path / "b", 2)
    make_layer(tmp_path / "a", 2)
    make_table(tmp_path, [("b", 1, "x"), ("a", 0, "y"), ("b", 1, "z")])
    found = read(tmp_path)
    assert [str(found.unit(i)) for i in range(4)] == ["a:0", "a:1", "b:0", "b:1"]
    assert found.annotations == (("y",), (), (), ("x", "z"))


def test_a_count_takes_the_order_of_the_table_and_the_first_of_each(tmp_path):
    make_layer(tmp_path / "b", 2)
    make_layer(tmp_path / "a", 2)
    rows = [("b", 1, "x"), ("a", 0, "y"), ("b", 1, "z"), ("a", 0, "w"), ("b", 1, "v"), ("a", 1, "once")]
    make_table(tmp_path, rows)
    found = read(tmp_path, annotation_count=2)
    assert [str(found.unit(i)) for i in range(len(found))] == ["b:1", "a:0"]
    assert found.annotations == (("x", "z"), ("y", "w"))
    with pytest.raises(UserError, match=r"annotations.csv has no unit with 4 descriptions"):
        read(tmp_path, annotation_count=4)
    with pytest.raises(UserError, match="give at least 1"):
        read(tmp_path, annotation_count=0)


def test_without_descriptions(tmp_path):
    make_model(tmp_path, {"a": 3})
    assert read(tmp_path, annotations=False, annotation_count=3).annotations == ((), (), ())
    (tmp_path / "annotations.csv").rename(tmp_path / "other.csv")
    assert read(tmp_path, annotation_count=3).annotations == ((), (), ())
    assert len(read(tmp_path, annotations=tmp_path / "other.csv")[0].annotations) == 3
    with pytest.raises(UserError, match=r"Cannot read .*none.csv"):
        read(tmp_path, annotations=tmp_path / "none.csv")


def test_columns_may_have_other_names_and_stand_anywhere(tmp_path):
    make_layer(tmp_path / "a", 1)
    make_table(tmp_path, [("w1", "dots", 0, "a")], ("worker", "text", "neuron", "where"))
    columns = {"layer_column": "where", "unit_column": "neuron", "column": "text"}
    assert read(tmp_path, **columns)[0].annotations == ("dots",)
    with pytest.raises(UserError, match=r"annotations.csv has no column `layer`, only worker, text, neuron, where"):
        read(tmp_path)


def test_folders_that_are_no_layers_do_not_matter(tmp_path):
    make_model(tmp_path, {"a": 1})
    (tmp_path / "viz" / "unit_0").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("of ours")
    assert read(tmp_path).layers == ("a",)


def test_what_is_written_is_read_back(trainer, tmp_path):
    target, probe = oracle.network(), oracle.pictures()
    found = {layer: oracle.exemplars(maps, layer) for layer, maps in oracle.outputs(target, probe).items()}
    folders = write_all(tmp_path / "small" / "noise", found, target, probe, trainer)
    back = read(tmp_path / "small" / "noise")
    assert back.models == ("small/noise",) and back.layers == ("1", "3", "5") and len(back) == 12 and back.k == 3
    for folder, layer in zip(folders, back.folders, strict=True):
        assert np.array_equal(layer.ids, found[layer.name].rows.numpy())
        for unit in range(len(layer.units)):
            sample = back.lookup(layer.name, unit)
            assert np.array_equal(sample.images.numpy(), np.load(folder / "images.npy")[unit])
            assert np.array_equal(sample.masks.numpy(), np.load(folder / "masks.npy")[unit])
    some = target.select(layers="3", units=[1, 3])
    write_all(tmp_path / "some", {"3": found["3"]}, some, probe, trainer)
    part = read(tmp_path / "some")
    assert [one.unit for one in part] == [1, 3]
    assert torch.equal(part.lookup("3", 3).images, back.lookup("3", 3).images)


def test_models_are_joined_and_told_apart(tmp_path):
    parts = [read(make_model(tmp_path / name / "imagenet", {"a": 2, name: 1}, seed=i)) for i, name in enumerate("xy")]
    both = join(parts)
    assert len(both) == 6 and both.models == ("x/imagenet", "y/imagenet") and both.layers == ("a", "x", "y")
    assert [both.model(i)[0] for i in range(6)] == list("xxxyyy")
    assert torch.equal(both.lookup("a", 1, "y/imagenet").images, parts[1].lookup("a", 1).images)
    assert both.lookup("y", 0).model == "y/imagenet"
    with pytest.raises(UserError, match="2 models have unit 1 of layer `a`; say which with model=: x/imagenet, y/"):
        both.lookup("a", 1)
    with pytest.raises(UserError, match=r"There is no model `z/imagenet`. Nearest: "):
        both.lookup("a", 1, "z/imagenet")
    with pytest.raises(UserError, match=r"There is no layer `b`. Nearest: a"):
        both.lookup("b", 1)
    with pytest.raises(UserError, match="A model is there twice"):
        join([parts[0], parts[0]])
    other = read(make_model(tmp_path / "z" / "imagenet", {"a": 2}, k=2))
    with pytest.raises(UserError, match=r"different numbers of exemplars \(.*2 in z/imagenet/a"):
        join([parts[0], other])


def test_some_of_the_units(tmp_path):
    found = read(make_model(tmp_path / "m", {"a": 3, "b": 3}))
    some = found.subset(np.array([5, 0]))
    assert [str(some.unit(i)) for i in range(2)] == ["b:2", "a:0"]
    assert some[0].annotations[0] == "b 2, word 0" and len(found) == 6
    with pytest.raises(UserError, match=r"has no unit 0 here. It has 1 units, 2 to 2"):
        some.lookup("b", 0)


def test_it_travels_to_other_processes_without_its_pixels(tmp_path):
    found = read(make_model(tmp_path / "m", {"a": 3}, side=64))
    found.lookup("a", 1)
    sent = pickle.dumps(found)
    assert len(sent) < 3000
    assert torch.equal(pickle.loads(sent)[1].images, found[1].images)


def test_rows_of_layers_that_were_not_asked_for_do_not_matter(tmp_path):
    make_model(tmp_path, {"a": 2, "b": 2})
    assert read(tmp_path, layers=["b"], annotation_count=3).annotations[1][0] == "b 1, word 0"


def test_the_published_descriptions(shared):
    path = shared / "data" / "published" / "milannotations" / "resnet152_imagenet.csv"
    said = read_descriptions(path)
    assert len(said) == 3904 and {len(texts) for texts in said.values()} == {3}
    assert next(iter(said)) == ("layer3", 226)
    assert said["layer3", 226][1] == "wool, stairs and other patterned objects"
    layers = {layer: sum(name == layer for name, _ in said) for layer in ("conv1", "layer1", "layer4")}
    assert layers == {"conv1": 64, "layer1": 256, "layer4": 2048}


MEASURE = """
import sys
from pathlib import Path

def own():
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024

import torch
from neuronx.milannotations import read
torch.set_num_threads(1)
before = own()
found = read(sys.argv[1], annotation_count=3)
most = own() - before
for index in range(0, len(found), 2000):
    sample = found[index]
    most = max(most, own() - before)
assert sample.images.shape == (15, 3, 224, 224) and len(sample.annotations) == 3
assert found.lookup("layer1", 77).unit == 77
print(len(found), max(most, own() - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for the memory")
def test_twenty_thousand_units_take_little_memory(tmp_path):
    """Of published size, 60 GB, in files of holes."""
    layers = {f"layer{i}": 5000 for i in range(4)}
    for name, units in layers.items():
        make_holes(tmp_path / name, units)
    rows = [
        (n, u, f"people and objects with edges {u} {i}") for n, c in layers.items() for u in range(c) for i in "abc"
    ]
    make_table(tmp_path, rows)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    units, megabytes = done.stdout.split()
    assert int(units) == 20_000 and float(megabytes) < 200, done.stdout
