"""Every table published by others is read; numbers are from the specs, counted on the files themselves."""

from collections import Counter

import pytest

from neuronx.errors import UserError
from neuronx.store.cache import write_atomic
from neuronx.tables.explanations import read_explanations, read_files
from neuronx.tables.schemas import broden_label, broden_label_as_published
from neuronx.types import Unit

UNITS = {
    "amt_units/imagenet-alexnet.csv": 1376,
    "amt_units/places205-alexnet.csv": 1376,
    "clip_dissect/CLIP_Dissect_results/resnet50_imagenet_broden.csv": 3904,
    "clip_dissect/MILAN_results/m_base_resnet50_imagenet.csv": 4904,
    "clip_dissect/MILAN_results/m_places365_resnet50_imagenet.csv": 3904,
    "clip_dissect/NetDissect_results/resnet50_imagenet_fc.csv": 1000,
    "clip_dissect/NetDissect_results/resnet50_imagenet_layer1.csv": 256,
    "clip_dissect/NetDissect_results/resnet50_imagenet_layer2.csv": 512,
    "clip_dissect/NetDissect_results/resnet50_imagenet_layer3.csv": 1024,
    "clip_dissect/NetDissect_results/resnet50_imagenet_layer4.csv": 2048,
    "cosy/CLIP-Dissect/resnet18-fc.csv": 1000,
    "cosy/CLIP-Dissect/resnet18-layer1.csv": 64,
    "cosy/CLIP-Dissect/resnet18-layer4.csv": 512,
    "cosy/FALCON/resnet18-layer4.csv": 50,
    "cosy/FALCON/resnet18-layer4_original.csv": 15,
    "cosy/INVERT/resnet18-fc.csv": 1000,
    "cosy/INVERT/resnet18-layer1.csv": 64,
    "cosy/INVERT/resnet18-layer4.csv": 512,
    "cosy/MILAN/resnet18-fc.csv": 1000,
    "cosy/MILAN/resnet18-layer1.csv": 64,
    "cosy/MILAN/resnet18-layer4.csv": 512,
    "describe_and_dissect/resnet50_imagenet_layer4.csv": 50,
    "linear_explanations/CLIP_Dissect/resnet18_places365_layer4.csv": 512,
    "linear_explanations/CLIP_Dissect/resnet50_imagenet_layer1.csv": 256,
    "linear_explanations/CLIP_Dissect/resnet50_imagenet_layer4.csv": 2048,
    "linear_explanations/CLIP_Dissect/vgg16_bn_cifar100_classifier[4].csv": 512,
    "linear_explanations/LE_label/resnet18_places365_layer4.csv": 512,
    "linear_explanations/LE_label/resnet50_imagenet_layer1.csv": 256,
    "linear_explanations/LE_label/resnet50_imagenet_layer4.csv": 2048,
    "linear_explanations/LE_label/vgg16_bn_cifar100_classifier[4].csv": 512,
    "linear_explanations/LE_siglip/resnet18_places365_layer4.csv": 512,
    "linear_explanations/LE_siglip/resnet50_imagenet_layer1.csv": 256,
    "linear_explanations/LE_siglip/resnet50_imagenet_layer4.csv": 2048,
    "linear_explanations/LE_siglip/vgg16_bn_cifar100_classifier[4].csv": 512,
    "linear_explanations/MILAN/resnet18_places365_layer4.csv": 512,
    "linear_explanations/MILAN/resnet50_imagenet_layer1.csv": 256,
    "linear_explanations/MILAN/resnet50_imagenet_layer4.csv": 2048,
    "linear_explanations/NetDissect/resnet18_places365_layer4.csv": 512,
    "linear_explanations/NetDissect/resnet50_imagenet_layer1.csv": 256,
    "linear_explanations/NetDissect/resnet50_imagenet_layer4.csv": 2048,
    "linear_explanations/baselines_as_published/CLIP_Dissect/resnet18_places365.csv": 1024,
    "linear_explanations/baselines_as_published/MILAN/m_base_resnet18_places365.csv": 1024,
    "linear_explanations/baselines_as_published/NetDissect/resnet18_places365_fc.csv": 365,
    "linear_explanations/baselines_as_published/NetDissect/resnet18_places365_layer1.csv": 64,
    "linear_explanations/baselines_as_published/NetDissect/resnet18_places365_layer2.csv": 128,
    "linear_explanations/baselines_as_published/NetDissect/resnet18_places365_layer3.csv": 256,
    "linear_explanations/baselines_as_published/NetDissect/resnet18_places365_layer4.csv": 512,
    "milannotations/resnet152_imagenet.csv": 3904,
}


@pytest.fixture(scope="module")
def published(shared):
    return shared / "data" / "published"


@pytest.mark.parametrize("name", UNITS)
def test_every_published_table_is_read_whole(published, name):
    if not (published / name).is_file():
        pytest.skip(f"{name} is not on this machine")
    found = read_explanations(published / name)
    assert len(found) == len({one.unit for one in found}) == UNITS[name]
    assert all(one.terms for one in found)
    per_layer = Counter(one.unit.layer for one in found)
    if "FALCON" not in name and "describe" not in name and "amt" not in name and "milannotations" not in name:
        for layer, count in per_layer.items():
            assert {one.unit.index for one in found if one.unit.layer == layer} == set(range(count))


def test_no_published_table_is_forgotten(published):
    there = {path.relative_to(published).as_posix() for path in published.rglob("*.csv")}
    assert there - set(UNITS) <= {"describe_and_dissect/human_ratings_rn50.csv"}


def test_ratings_are_not_explanations(published):
    with pytest.raises(UserError, match="people's ratings"):
        read_explanations(published / "describe_and_dissect/human_ratings_rn50.csv")


def test_reference_rows_of_linear_explanations(published):
    found = {one.unit.index: one for one in read_explanations(published / "linear_explanations/LE_label" / RN50)}
    ski = found[136]
    assert ski.unit == Unit("layer4", 136)
    assert [concept for concept, _ in ski.terms] == [
        "snowmobile", "ski", "sled", "balaclava ski mask", "hound", "canine",
    ]  # fmt: skip
    weights = [weight for _, weight in ski.terms]
    assert weights == pytest.approx([2.779183, 2.595141, 1.966639, 1.803099, 0.362337, 0.250517], abs=1e-6)
    assert ski.bias == pytest.approx(0.319304, abs=1e-6)
    notes = dict(ski.notes)
    assert notes["val correlation"] == pytest.approx(0.432823, abs=1e-6)
    assert notes["sim correlation"] == pytest.approx(0.507314, abs=1e-6)
    assert notes["sim ablation(optim)"] == pytest.approx(0.11198, abs=1e-5)
    assert notes["sim ablation(norm)"] == pytest.approx(0.094677, abs=1e-6)
    bird = {one.unit.index: one for one in read_explanations(published / "linear_explanations/LE_siglip" / RN50)}[140]
    assert str(bird) == "6.56 bird of prey + 5.21 african grey parrot + 4.91 poultry + 2.06 bird + 0.40"


RN50 = "resnet50_imagenet_layer4.csv"
LENGTHS = {
    "LE_label": {1: 26, 2: 106, 3: 333, 4: 640, 5: 590, 6: 281, 7: 69, 8: 3},
    "LE_siglip": {1: 5, 2: 51, 3: 248, 4: 566, 5: 706, 6: 376, 7: 93, 8: 2, 9: 1},
}


@pytest.mark.parametrize("method", LENGTHS)
def test_lengths_of_linear_explanations(published, method):
    found = read_explanations(published / "linear_explanations" / method / RN50)
    assert Counter(len(one.terms) for one in found) == LENGTHS[method]
    assert all(one.is_linear and list(one.terms) == sorted(one.terms, key=lambda term: -term[1]) for one in found)


RAW = "linear_explanations/baselines_as_published"
STANDARDISED = [
    (f"{RAW}/NetDissect/resnet18_places365_layer4.csv", "NetDissect/resnet18_places365_layer4.csv", None),
    ("clip_dissect/NetDissect_results/resnet50_imagenet_layer1.csv", "NetDissect/resnet50_imagenet_layer1.csv", None),
    ("clip_dissect/NetDissect_results/resnet50_imagenet_layer4.csv", f"NetDissect/{RN50}", None),
    (f"{RAW}/MILAN/m_base_resnet18_places365.csv", "MILAN/resnet18_places365_layer4.csv", "layer4"),
    ("clip_dissect/MILAN_results/m_base_resnet50_imagenet.csv", "MILAN/resnet50_imagenet_layer1.csv", "layer1"),
    ("clip_dissect/MILAN_results/m_base_resnet50_imagenet.csv", f"MILAN/{RN50}", "layer4"),
    (f"{RAW}/CLIP_Dissect/resnet18_places365.csv", "CLIP_Dissect/resnet18_places365_layer4.csv", "layer4"),
    (
        "clip_dissect/CLIP_Dissect_results/resnet50_imagenet_broden.csv",
        "CLIP_Dissect/resnet50_imagenet_layer1.csv",
        "layer1",
    ),
]


@pytest.mark.parametrize(("raw", "standard", "layer"), STANDARDISED)
def test_published_baselines_come_out_exactly_as_standardised(published, raw, standard, layer):
    ours = read_explanations(published / raw, layer, published_labels=True)
    theirs = read_explanations(published / "linear_explanations" / standard)
    assert {one.unit: str(one) for one in ours} == {one.unit: str(one) for one in theirs}


@pytest.mark.parametrize(
    ("label", "right", "as_published"),
    [
        ("purple-c", "purple color", "purple color"),
        ("car_interior-backseat-s", "car interior, backseat", "car interior, backseat"),
        ("plastic-clear", "plastic, clear", "plastic colorlear"),
        ("bakery-shop-s", "bakery, shop", "bakeryhop"),
        ("bus station", "bus station", "bus station"),
        ("((street-s OR sky) AND (NOT blue-c))", "((street OR sky) AND (NOT blue color))", None),
    ],
)
def test_labels_of_broden_lose_their_mark_at_the_end_only(label, right, as_published):
    assert broden_label(label) == right
    if as_published is not None:
        assert broden_label_as_published(label) == as_published


def test_network_dissection_counts_units_from_one(published):
    first = read_explanations(published / "clip_dissect/NetDissect_results/resnet50_imagenet_layer4.csv")[0]
    assert (first.unit, str(first), dict(first.notes)) == (Unit("layer4", 0), "body", {"iou": 0.042096571})


def test_of_several_people_the_first_counts_and_their_number_is_noted(published):
    found = {one.unit: one for one in read_explanations(published / "milannotations/resnet152_imagenet.csv", "layer3")}
    one = found[Unit("layer3", 226)]
    assert (str(one), dict(one.notes)) == ("a person wearing a facemask", {"annotators": 3.0})
    amt = read_explanations(published / "amt_units/imagenet-alexnet.csv", "pool1")[0]
    assert (str(amt), dict(amt.notes)) == ("striped pattern", {"precision": 22 / 57, "annotators": 3.0})


def test_copies_of_cosy(published):
    falcon = read_explanations(published / "cosy/FALCON/resnet18-layer4.csv")[1]
    assert (falcon.unit, str(falcon)) == (Unit("layer4", 25), "chiquita brands")
    invert = read_explanations(published / "cosy/INVERT/resnet18-layer1.csv")[1]
    assert (str(invert), dict(invert.notes)) == ("proboscis monkey", {"auc": 0.8228})
    clip = read_explanations(published / "cosy/CLIP-Dissect/resnet18-layer4.csv")[1]
    assert (str(clip), dict(clip.notes)) == ("bookshop, bookstore, bookstall", {"similarity": 0.58755493})
    files = read_files(published / "cosy")
    assert {(file.target, file.method) for file in files} == {
        ("resnet18", method) for method in ("CLIP-Dissect", "FALCON", "original", "INVERT", "MILAN")
    }


LINEAR = "unit,val correlation,weight0,concept0,weight1,concept1,bias\n"
BAD = [
    ("a,b\n1,2\n", "no table of explanations that we know.*linear: unit, weight0"),
    ("unit,text\n0,dog\n", "has no column `description`, which a plain table needs; it has unit, text"),
    ("unit,weight0,concept0\n0,1,dog\n", "has no column `bias`, which a linear table needs"),
    ("description\ndog\n", "has no column `unit`"),
    ("unit,weight0,concept0,weight1,bias\n0,1,dog,0,0\n", "has a column `weight1` but no column `concept1`"),
    (LINEAR + "0,.5,1.0,dog,0,0,.1\n1,.5,heavy,cat,0,0,.1\n", "line 3, column `weight0`: expected a number.*`heavy`"),
    (LINEAR + "0,.5,inf,dog,0,0,.1\n", "line 2, column `weight0`: expected a finite number, found `inf`"),
    (LINEAR + "0,.5,1,dog,2,,.1\n", "line 2, column `concept1`: there is a weight but no concept"),
    (LINEAR + "0,.5,1,dog,,cat,.1\n", "line 2, column `weight1`: expected a finite number"),
    (LINEAR + "0,high,1,dog,0,0,.1\n", "line 2, column `val correlation`: expected a number, found `high`"),
    (LINEAR + "0,.5,1,dog,0,0,\n", "line 2, column `bias`"),
    ("unit,weight0,concept0,weight2,concept2,bias\n0,1,a,2,b,0\n", "line 1: there are no columns `weight1` and `conc"),
    (LINEAR + "0,.5,0,0,1,dog,.1\n", "line 2, column `weight0`: slot 0 is empty, but slot 1 after it is not"),
    (
        "unit,description,part\n0,dog,-1\n",
        "line 2, column `part`: found -1, but the parts of a unit are counted from 0",
    ),
    ("unit,description\nsix,dog\n", "line 2, column `unit`: expected a number, found `six`"),
    ("unit,description\n-1,dog\n", "line 2, column `unit`: found -1, but plain tables count units from 0"),
    ("unit,category,label,score\n0,part,arm,.1\n", "Network Dissection tables count units from 1"),
    ("unit,description\n3,dog\n4,cat\n3,cow\n", "line 4, column `unit`: layer4:3 stands a second time.* line 2"),
    ("unit,description,similarity\n0,dog,very\n", "line 2, column `similarity`: expected a number, found `very`"),
    ("unit,description,sim correlation\n0,dog,x\n", "line 2, column `sim correlation`"),
    ("unit,description,evidence\n0,dog,1;a\n", "line 2, column `evidence`: expected image numbers"),
    ("unit,description,part\n0,dog,a\n", "line 2, column `part`"),
    ("group,concept_set_noun_phrases\n0,dogs\n", "line 2, column `concept_set_noun_phrases`: expected a list"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_bad_tables_are_refused_with_file_line_and_column(tmp_path, content, message):
    path = write_atomic(tmp_path / "net_layer4.csv", content.encode())
    with pytest.raises(UserError, match=rf"(?s)net_layer4\.csv.*{message}"):
        read_explanations(path, "layer4")


def test_words_that_pandas_takes_for_missing_are_words(tmp_path):
    path = write_atomic(tmp_path / "a.csv", b"unit,description\n0,null\n1,nan\n2,0\n3,NA\n4,\n")
    assert [str(one) for one in read_explanations(path, "x")] == ["null", "nan", "0", "NA", "inactive"]


def test_columns_of_numbers_are_kept_and_others_are_not(tmp_path):
    path = write_atomic(
        tmp_path / "a.csv", b",unit,description,margin,remark,sim correlation\n0,0,dog,.5,good,-\n1,1,cat,,1,.25\n"
    )
    assert [one.notes for one in read_explanations(path, "x")] == [(("margin", 0.5),), (("sim correlation", 0.25),)]


def test_unused_slots_in_every_published_spelling_end_an_explanation(tmp_path):
    rows = ["0,.5,2.5,dog,0,0,.1", "1,.5,2.5,dog,0.0,0,.1", "2,.5,2.5,dog,0.0,0.0,.1", "3,.5,2.5,dog,,,.1"]
    path = write_atomic(tmp_path / "a.csv", (LINEAR + "\n".join(rows)).encode())
    assert {one.terms for one in read_explanations(path, "x")} == {(("dog", 2.5),)}


def test_columns_in_capitals_are_those_of_the_layout(tmp_path):
    linear = b"Layer,UNIT,Val Correlation,Weight0,Concept0,BIAS,Evidence,Sim Correlation\nfc,0,.5,2,Dog,.1,3;4,.25\n"
    (found,) = read_explanations(write_atomic(tmp_path / "a.csv", linear))
    assert (found.unit, found.terms, found.bias, found.evidence) == (Unit("fc", 0), (("Dog", 2.0),), 0.1, (3, 4))
    assert dict(found.notes) == {"val correlation": 0.5, "sim correlation": 0.25}
    dnd = b"neuron id,label 1\n7,dog\n"
    assert read_explanations(write_atomic(tmp_path / "b.csv", dnd), "fc")[0].unit == Unit("fc", 7)
