"""Data sets as people have them: what their items may be, what is taken from them, and what is refused."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split

import neuronx
from neuronx.concepts.labels import LabelConcepts
from neuronx.data.concat import ConcatProbe
from neuronx.data.in_memory import InMemoryProbe, probe_of
from neuronx.errors import UserError

N = 120
GREY = np.arange(N, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(6, 2)
COLOUR = np.stack([GREY, GREY + 1, GREY + 2], 3)


class Items(Dataset):
    """Items as they are given, with names of classes."""

    def __init__(self, items, classes=None, **more):
        self.items = items
        if classes is not None:
            self.classes = classes
        vars(self).update(more)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def pixels(probe):
    """(3, H, W) of picture 5."""
    loaded = probe.load([5, 7])
    return loaded[0] if isinstance(loaded, torch.Tensor) else torch.tensor(np.asarray(loaded[0])).permute(2, 0, 1)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


PICTURES = {
    "PIL": [Image.fromarray(one) for one in COLOUR],
    "arrays": list(COLOUR),
    "arrays with channels first": list(COLOUR.transpose(0, 3, 1, 2)),
    "tensors": [torch.from_numpy(one).permute(2, 0, 1) for one in COLOUR],
    "tensors with channels last": [torch.from_numpy(one) for one in COLOUR],
    "encoded": [{"bytes": png(one), "path": None} for one in COLOUR],
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_of_any_kind_in_items_of_any_kind(kind):
    whole = probe_of(COLOUR)
    expected = torch.from_numpy(COLOUR[5]).permute(2, 0, 1)
    assert torch.equal(pixels(whole), expected)
    pictures, labels = PICTURES[kind], [i % 3 for i in range(N)]
    for items in (
        list(zip(pictures, labels, strict=True)),
        [[picture, label, {"id": 0}] for picture, label in zip(pictures, labels, strict=True)],
        [{"image": picture, "label": torch.tensor(label)} for picture, label in zip(pictures, labels, strict=True)],
        [{"id": 1, "img": picture, "fine_label": label} for picture, label in zip(pictures, labels, strict=True)],
        [{"pixel_values": picture, "labels": np.int64(label)} for picture, label in zip(pictures, labels, strict=True)],
        [(picture, np.array([label])) for picture, label in zip(pictures, labels, strict=True)],
    ):
        probe = probe_of(Items(items, ["a", "b", "c"]))
        assert torch.equal(pixels(probe), expected) and probe.labels.tolist() == labels
        assert probe.class_names == ("a", "b", "c")


@pytest.mark.parametrize("grey", [GREY, GREY[..., None], GREY[:, None], torch.from_numpy(GREY)[:, None]])
def test_grey_pictures_are_in_colour(grey):
    expected = torch.from_numpy(GREY[5]).expand(3, -1, -1)
    assert torch.equal(pixels(probe_of(grey)), expected)
    assert torch.equal(pixels(probe_of(list(grey))), expected)


def test_floats_are_fed_as_they_are_with_any_number_of_channels():
    for values in (np.random.default_rng(0).random((N, 8, 6, 3)), torch.rand(N, 13, 8, 6), torch.rand(N, 1, 8, 6)):
        probe = probe_of(values)
        first = torch.as_tensor(values[5]).float()
        assert torch.equal(probe.load([5])[0], first.permute(2, 0, 1) if isinstance(values, np.ndarray) else first)


def test_names_of_classes_come_through_parts_of_data_sets():
    whole = Items([(one, i % 2) for i, one in enumerate(COLOUR)], ["cat", "dog"])
    half, rest = random_split(whole, [60, 60])
    for data in (Subset(Subset(whole, range(100)), range(50)), half, ConcatDataset([rest, ConcatDataset([half])])):
        assert probe_of(data).class_names == ("cat", "dog")
    assert probe_of(whole, class_names=["x", "y"]).class_names == ("x", "y")
    other = Items(whole.items, ["car", "bus"])
    with pytest.raises(UserError, match="joins have different classes"):
        probe_of(ConcatDataset([whole, other]))
    synonyms = Items(whole.items, [("tench", "Tinca tinca"), ("crane",)])
    assert probe_of(synonyms).class_names == ("tench, Tinca tinca", "crane")
    feature = type("ClassLabel", (), {"names": ["a", "b"]})()
    assert probe_of(Items(whole.items, features={"image": None, "label": feature})).class_names == ("a", "b")


def test_names_as_targets_are_classes():
    items = [(one, "dog" if i % 3 else "cat") for i, one in enumerate(COLOUR)]
    probe = probe_of(items)
    assert probe.class_names == ("cat", "dog") and probe.labels[:4].tolist() == [0, 1, 1, 0]
    assert probe_of(Items(items, ["dog", "cow", "cat"])).labels[:3].tolist() == [2, 0, 0]
    given = probe_of(COLOUR, labels=[target for _, target in items])
    assert given.class_names == ("cat", "dog") and torch.equal(given.labels, probe.labels)
    with pytest.raises(UserError, match="class `cat`, which is none of its 1 classes"):
        probe_of(Items(items, ["dog"]))


SETS = torch.tensor([[i % 2, i % 3 == 0, i % 5 == 0, 0] for i in range(N)]).bool()


@pytest.mark.parametrize(
    "targets",
    [SETS.int(), SETS, SETS.float(), SETS.int().tolist(), SETS.int().numpy()],
    ids=lambda one: type(one).__name__,
)
def test_several_labels_a_picture(targets, trainer):
    names = ["odd", "three", "five", "never"]
    probe = probe_of(Items(list(zip(COLOUR, targets, strict=True)), names))
    assert probe.labels is None and torch.equal(probe.label_sets, SETS) and probe.class_names == tuple(names)
    assert torch.equal(probe_of(COLOUR, labels=targets, class_names=names).label_sets, SETS)
    rows = torch.tensor([3, 0])
    judged = LabelConcepts().judge(["three", "Odd", "cow"], probe, trainer)
    assert judged.known.tolist() == [True, True, False] and judged.scores(rows).tolist() == [[1, 1, 0], [1, 0, 0]]
    covered = probe_of(COLOUR, labels=targets, class_names=names, hierarchy={"any": [0, 1, 2]})
    assert torch.equal(LabelConcepts().concepts(covered, trainer).scores[:, 4], SETS.any(1).float())
    assert torch.equal(ConcatProbe([probe, probe]).label_sets, torch.cat([SETS, SETS]))


def test_lists_of_classes_are_several_labels():
    lists = [[at for at in range(3) if SETS[i, at]] for i in range(N)]
    probe = probe_of(Items(list(zip(COLOUR, lists, strict=True)), ["odd", "three", "five", "never"]))
    assert torch.equal(probe.label_sets, SETS) and probe.labels is None
    assert torch.equal(probe_of(list(zip(COLOUR, lists, strict=True))).label_sets, SETS[:, :3])
    with pytest.raises(UserError, match="2 class names but labels"):
        probe_of(Items(list(zip(COLOUR, [[7, 1], [9]] * (N // 2), strict=True)), ["a", "b"]))


def test_tags_are_several_labels_and_one_each_is_one_label():
    tags = [["odd"] * (i % 2) + ["three"] * (i % 3 == 0) for i in range(N)]
    probe = probe_of(list(zip(COLOUR, tags, strict=True)))
    assert probe.class_names == ("odd", "three") and torch.equal(probe.label_sets, SETS[:, :2])
    one_hot = torch.eye(3)[torch.arange(N) % 3]
    assert probe_of(COLOUR, labels=one_hot).labels.tolist() == [i % 3 for i in range(N)]


def test_units_are_explained_and_scored_by_several_labels(trainer):
    pictures = torch.randint(0, 60, (200, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sets = torch.rand(200, 3, generator=torch.Generator().manual_seed(1)) > 0.6
    pictures[sets] = 250
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.ReLU())
    network[0].weight.data = torch.eye(3)[:, :, None, None].clone()
    network[0].bias.data.zero_()
    study = neuronx.study(
        network,
        probe_of(pictures, labels=sets, class_names=["red", "green", "blue"]),
        layer="1",
        transform="none",
        trainer=trainer,
    )
    assert [one.terms[0][0] for one in study.explain("le_label", max_length=1)] == ["red", "green", "blue"]
    assert all(row.value > 0.95 for row in study.score() if row.method == "le_label")


BOXES = {"boxes": [[0, 0, 1, 1]], "labels": [1]}
REFUSED = {
    "numbers to regress": ([0.5 + i for i in range(N)], "are numbers such as"),
    "whole floats": ([float(i) for i in range(N)], "are numbers such as"),
    "boxes": ([BOXES] * N, "are mappings such as"),
    "annotations": ([[BOXES]] * N, "are lists such as"),
    "masks": ([np.zeros((8, 6), np.uint8)] * N, "are pictures such as"),
    "pictures": ([Image.new("L", (6, 8))] * N, "are pictures such as"),
    "two targets": ([(1, 2)] * N, "are tuples such as"),
    "shares": ([torch.tensor([0.3, 0.7])] * N, "are lists of numbers such as"),
    "a box": ([[1, 2, 30, 40]] * N, "are lists of numbers such as"),
    "captions": ([f"a picture of {i}" for i in range(N)], "captions rather than names"),
    "one without": ([None if i == 5 else 1 for i in range(N)], "Picture 5 of `memory` has the target None"),
    "one odd": ([0.5 if i == 9 else 1 for i in range(N)], r"Picture 9 of `memory` has the target 0\.5"),
    "unlabelled": ([-1] * N, "labels -1 to -1"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_targets_that_are_no_classes_are_refused_with_what_would_do(kind):
    targets, message = REFUSED[kind]
    items = list(zip(COLOUR, targets, strict=True))
    with pytest.raises(UserError, match=message) as caught:
        probe_of(items)
    assert kind == "unlabelled" or "labels='none'" in str(caught.value)
    plain = probe_of(items, labels="none")
    assert plain.labels is None and plain.label_sets is None
    assert probe_of(items, labels=[0, 1] * (N // 2)).labels.tolist() == [0, 1] * (N // 2)


class Stream(IterableDataset):
    def __iter__(self):
        yield from COLOUR


class Augmented(Items):
    def __getitem__(self, index):
        return torch.from_numpy(self.items[index]).permute(2, 0, 1).roll(int(torch.randint(1, 99, ())), 0), 0


class Failing(Items):
    def __getitem__(self, index):
        raise OSError(f"no file {index}.png")


WRONG = {
    "a stream": (Stream(), "no length.*itertools.islice"),
    "a generator": ((one for one in COLOUR), "no length"),
    "a loader": (DataLoader(TensorDataset(torch.zeros(12, 3, 8, 8))), "loader.dataset"),
    "several splits": ({"train": COLOUR, "test": COLOUR}, r"several things \(train, test\)"),
    "a number": (5, "none of these"),
    "no picture in a mapping": (
        [{"depth": 1, "name": "a"}] * N,
        "has depth, name; call the picture among them `image`",
    ),
    "paths": (["a.png"] * N, "Picture 0 of `memory` is 'a.png'"),
    "bytes": ([b"nothing"] * N, "no picture, but 7 bytes"),
    "twelve bits": (COLOUR.astype(np.uint16), "array of uint16"),
    "four channels": (
        np.zeros((N, 8, 6, 4), np.uint8),
        r"must be an array \(N, H, W, 3\).*, not \(120, 8, 6, 4\); floats",
    ),
    "channels last": (torch.from_numpy(COLOUR), r"permute\(0, 3, 1, 2\)"),
    "NaN": ([np.full((8, 6, 3), np.nan)] * N, "NaN"),
    "two kinds": ([COLOUR[0], COLOUR[1] / 255.0] * 60, "differ in kind"),
    "random": (Augmented(COLOUR), "another each time"),
    "failing": (Failing(COLOUR), "Picture 0 of `memory` cannot be read: no file 0.png"),
    "one name twice": (
        Items([(one, i % 2) for i, one in enumerate(COLOUR)], ["cat", "cat"]),
        "two classes called `cat`",
    ),
    "no labels at all": ([(one, [0, 0]) for one in COLOUR], "No picture of `memory` has a label"),
    "fewer names": (Items([(one, [0, 1, 1]) for one in COLOUR], ["cat", "dog"]), "2 class names"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_data_set_of_pictures_is_refused(kind):
    images, message = WRONG[kind]
    with pytest.raises(UserError, match=message) as caught:
        probe_of(images)
    assert "\n" not in str(caught.value) and "Error" not in str(caught.value)


def test_the_probe_itself_refuses_the_same():
    with pytest.raises(UserError, match="two classes called `a`"):
        InMemoryProbe(torch.zeros(4, 3, 8, 8), labels=[0, 1, 0, 1], class_names=["a", "a"])


def test_deep_pictures_keep_their_grey_values():
    deep = [Image.fromarray((np.arange(48, dtype=np.uint16) * 1300).reshape(8, 6)) for _ in range(N)]
    shown = pixels(probe_of(deep))
    assert int(shown.min()) == 0 and len(shown.unique()) > 40
