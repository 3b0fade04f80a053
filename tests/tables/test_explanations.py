import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronx.errors import UserError
from neuronx.store.cache import write_atomic
from neuronx.tables.csv import read_csv
from neuronx.tables.explanations import by_method, dotted, read_explanations, read_files, write_explanations
from neuronx.types import Explanation, Unit

WORD = st.one_of(
    st.sampled_from(["0", "nan", "null", "NA", "0.0", "-", "a, b", 'the "x"', "inf", "1e3", "x\ny"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
EVIDENCE = st.lists(st.integers(0, 10**6), max_size=3).map(tuple)
LAYER = st.sampled_from(["layer4", "blocks.1.mlp.1", "", "a, b"])


def notes(*names):
    return st.tuples(*(st.one_of(st.none(), NUMBER.map(lambda value, name=name: (name, value))) for name in names)).map(
        lambda found: tuple(pair for pair in found if pair is not None)
    )


@st.composite
def tables(draw, linear):
    """Explanations of distinct units; all plain, or as a linear method gives them."""
    units = draw(
        st.lists(
            st.builds(Unit, LAYER, st.integers(0, 99), st.one_of(st.none(), st.integers(0, 3))),
            min_size=1,
            max_size=5,
            unique=True,
        )
    )
    terms = st.lists(st.tuples(WORD, NUMBER.filter(bool)), max_size=12 if linear else 1).map(tuple)
    plain = st.one_of(st.just(()), WORD.map(lambda word: ((word, 1.0),)))
    names = ("val correlation", "sim correlation", "shift") if linear else ("similarity", "margin")
    return [
        Explanation(
            unit=unit,
            terms=draw(terms if linear else plain),
            bias=draw(NUMBER) if linear else 0.0,
            evidence=draw(EVIDENCE),
            notes=draw(notes(*names)),
        )
        for unit in units
    ]


@settings(deadline=None)
@given(st.one_of(tables(linear=True), tables(linear=False)))
def test_what_is_written_is_read_back_exactly(tmp_path_factory, explanations):
    path = write_explanations(tmp_path_factory.mktemp("x") / "a.csv", explanations)
    back = read_explanations(path)
    assert [one.unit for one in back] == [one.unit for one in explanations]
    assert [(one.terms, one.bias, one.evidence) for one in back] == [
        (one.terms, one.bias, one.evidence) for one in explanations
    ]
    assert [dict(one.notes) for one in back] == [dict(one.notes) for one in explanations]


def linear(index, *terms, bias=0.5, **more):
    return Explanation(Unit("layer4", index), terms, bias, **more)


def test_the_linear_layout_is_the_published_one(tmp_path):
    path = write_explanations(
        tmp_path / "a.csv",
        [
            linear(0, ("dog", 2.5), ("cat", 0.25), notes=(("val correlation", 0.5),)),
            linear(1, ("0", 1.5), evidence=(7, 3)),
            Explanation(Unit("layer4", 2), ()),
        ],
    )
    columns, rows = read_csv(path)
    pairs = [f"{what}{slot}" for slot in range(10) for what in ("weight", "concept")]
    assert columns == ["layer", "unit", "val correlation", *pairs, "bias", "evidence"]
    assert list(rows[0].cells.values())[:9] == ["layer4", "0", "0.5", "2.5", "dog", "0.25", "cat", "0.0", "0"]
    assert (rows[1].cells["concept0"], rows[1].cells["evidence"]) == ("0", "7;3")
    assert {rows[2].cells[name] for name in pairs} == {"0.0", "0"}
    assert [str(one) for one in read_explanations(path)] == ["2.50 dog + 0.25 cat + 0.50", "1.50 0 + 0.50", "inactive"]


def test_the_plain_layout_is_the_published_one(tmp_path):
    explanations = [
        Explanation(Unit("layer4", 0, 1), (("a dog, lying", 1.0),), notes=(("similarity", 0.25),)),
        Explanation(Unit("layer4", 1), ()),
    ]
    path = write_explanations(tmp_path / "a.csv", explanations)
    assert path.read_text() == 'layer,unit,description,similarity,part\nlayer4,0,"a dog, lying",0.25,1\nlayer4,1,,,\n'
    assert read_explanations(path) == explanations


def test_who_made_an_explanation_stands_in_the_last_column(tmp_path):
    by_clip = Explanation(Unit("layer4", 0), (("dog", 1.0),), evidence=(3,), made_by=("le_clip", "0" * 8, "1" * 8))
    path = write_explanations(tmp_path / "a.csv", [by_clip, Explanation(Unit("layer4", 1), (("cat", 1.0),))])
    header, first, second = path.read_text().splitlines()
    assert header.endswith(",evidence,made_by") and first.endswith(",le_clip;00000000;11111111")
    assert second == "layer4,1,cat,,"
    assert [one.made_by for one in read_explanations(path)] == [by_clip.made_by, ()]


def test_the_same_explanations_are_the_same_bytes(tmp_path):
    explanations = [linear(3, ("dog", 0.1 + 0.2), notes=(("val correlation", 1 / 3),))]
    first, second = (write_explanations(tmp_path / name, explanations).read_bytes() for name in ("a.csv", "b.csv"))
    assert first == second


def test_published_files_survive_our_writing(shared, tmp_path):
    for path in sorted((shared / "data/published/linear_explanations/LE_siglip").glob("*layer1.csv")):
        explanations = read_explanations(path)
        assert read_explanations(write_explanations(tmp_path / "a.csv", explanations)) == explanations


def plain_file(path, layer=None, units=(0, 1)):
    rows = ["unit,description" if layer is None else "layer,unit,description"]
    rows += [f"{unit},dog" if layer is None else f"{layer},{unit},dog" for unit in units]
    return write_atomic(path, "\n".join(rows).encode())


@pytest.mark.parametrize(
    ("name", "layer", "told"),
    [
        ("resnet50_imagenet_layer4.csv", None, ("resnet50_imagenet", "layer4", "folder")),
        ("vgg16_bn_cifar100_classifier[4].csv", None, ("vgg16_bn_cifar100", "classifier.4", "folder")),
        (
            "vit_b_16_imagenet_encoder.layers.encoder_layer_10.mlp[1].csv",
            None,
            ("vit_b_16_imagenet", "encoder.layers.encoder_layer_10.mlp.1", "folder"),
        ),
        ("resnet18-fc.csv", None, ("resnet18", "fc", "folder")),
        ("resnet18-layer4_original.csv", None, ("resnet18", "layer4", "original")),
        ("shapes_vit_blocks.1.mlp.1_le_clip.csv", "blocks.1.mlp.1", ("shapes_vit", "blocks.1.mlp.1", "le_clip")),
        ("shapes_resnet_layer3_pure-le_clip.csv", "layer3", ("shapes_resnet", "layer3", "pure-le_clip")),
        ("net_classifier.4.csv", "classifier[4]", ("net", "classifier.4", "folder")),
        ("theirs.csv", "layer4", ("", "layer4", "theirs")),
    ],
)
def test_names_of_files_tell_target_layer_and_method(tmp_path, name, layer, told):
    path = plain_file(tmp_path / "folder" / name, layer)
    (file,) = read_files(path)
    assert (file.target, file.layers[0], file.method) == told
    assert {one.unit.layer for one in file.explanations} == {told[1]}


def test_a_file_that_does_not_tell_its_layer_needs_one(tmp_path):
    path = plain_file(tmp_path / "theirs.csv")
    with pytest.raises(
        UserError, match=r"theirs\.csv does not say which layer.*layers=layer4 or explanations=\[\{file"
    ):
        read_files(path)
    with pytest.raises(UserError, match="does not say which layer"):
        read_files(path, layers=["layer3", "layer4"])
    for told in (read_files(path, layers=["layer4"]), read_files([{"file": str(path), "layer": "layer4"}])):
        assert told[0].explanations[0].unit == Unit("layer4", 0)
    assert read_files(plain_file(tmp_path / "mynet_layer2.csv"), targets=["mynet"])[0].layers == ("layer2",)
    assert read_files(plain_file(tmp_path / "x_layer2.csv"), layers=["layer1", "layer2"])[0].layers == ("layer2",)


def test_of_a_file_of_several_layers_those_asked_for_are_read(tmp_path):
    path = write_atomic(tmp_path / "a.csv", b"layer,unit,description\nconv1,0,red\nclassifier[4],0,dog\nfc,0,cat\n")
    assert [str(one) for one in read_explanations(path, "classifier.4")] == ["dog"]
    assert [str(one) for one in read_files(path, layers=["classifier[4]", "fc"])[0].explanations] == ["dog", "cat"]
    with pytest.raises(UserError, match=r"a\.csv explains no unit of layer9; there is conv1, classifier\.4, fc"):
        read_files(path, layers=["layer9"])
    with pytest.raises(UserError, match="explains no unit of layer9"):
        read_explanations(path, "layer9")


def methods_of(given, **options):
    return by_method(read_files(given, **options))


def test_a_list_of_files_with_layers_and_methods(tmp_path):
    a, b = plain_file(tmp_path / "a.csv"), plain_file(tmp_path / "b.csv", "layer4")
    found = methods_of([{"file": str(a), "method": "dnd", "layer": "layer4"}, {"file": str(b), "method": "milan"}])
    assert {method: len(explanations) for method, explanations in found.items()} == {"dnd": 2, "milan": 2}
    with pytest.raises(UserError, match=r"layer4:0 is explained by x in .*a\.csv and in .*b\.csv"):
        methods_of([{"file": str(a), "method": "x", "layer": "layer4"}, {"file": str(b), "method": "x"}])
    with pytest.raises(UserError, match=r"no key of an entry of explanations `metod`.*Nearest: method"):
        methods_of([{"file": str(a), "metod": "dnd"}])
    with pytest.raises(UserError, match="needs `file`"):
        methods_of([{"method": "dnd"}])
    with pytest.raises(UserError, match="list of explanations is empty"):
        methods_of([])


def test_a_folder_a_pattern_and_a_run(tmp_path):
    plain_file(tmp_path / "milan" / "net_imagenet_layer3.csv")
    plain_file(tmp_path / "milan" / "net_imagenet_layer4.csv")
    plain_file(tmp_path / "other_layer4.csv", "layer4")
    found = methods_of(tmp_path, layers=["layer4"])
    assert {method: {one.unit.layer for one in of} for method, of in found.items()} == {
        "milan": {"layer4"},
        tmp_path.name: {"layer4"},
    }
    assert len(read_files(f"{tmp_path}/milan/net_*.csv")) == 2

    write_explanations(tmp_path / "run/explanations/shapes_resnet_layer4_le_clip.csv", [linear(0, ("dog", 2.0))])
    write_atomic(tmp_path / "run/scores.csv", b"target,layer\na,b\n")
    (file,) = read_files(tmp_path / "run")
    assert (file.target, file.method) == ("shapes_resnet", "le_clip")


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="There is no table"):
        read_files(tmp_path)
    with pytest.raises(UserError, match=r"Cannot read .*no\*\.csv"):
        read_files(tmp_path / "no*.csv")
    plain_file(tmp_path / "a.csv", "layer1")
    plain_file(tmp_path / "b.csv", "layer2")
    with pytest.raises(UserError, match="Of the 2 files, none explains a unit of layer9; there is layer1, layer2"):
        read_files(tmp_path, layers=["layer9"])


def test_units_of_two_networks_with_one_layer_name_are_kept_apart(shared):
    files = read_files(shared / "data/published/linear_explanations/LE_label", layers=["layer4"])
    assert sorted(file.target for file in files) == ["resnet18_places365", "resnet50_imagenet"]
    with pytest.raises(UserError, match="layer4:0 is explained by LE_label"):
        by_method(files)
    found = by_method([file for file in files if file.target == "resnet50_imagenet"])
    assert {method: len(of) for method, of in found.items()} == {"LE_label": 2048}


def test_layers_are_dotted():
    assert dotted("encoder.layers.encoder_layer_11.mlp[1]") == "encoder.layers.encoder_layer_11.mlp.1"
    assert dotted("features[43]") == "features.43"
    assert dotted("[0]") == "0"


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("sim correlation", "9", "line 2: expected a number from -1 to 1 as sim correlation, found 9"),
        ("sim correlation", "-inf", "line 2: expected a number from -1 to 1 as sim correlation, found -inf"),
        ("sim ablation(optim)", "1.5", "expected a number up to 1 as"),
        ("similarity", "inf", "expected a number as similarity, found inf"),
    ],
)
def test_scores_that_cannot_be_are_refused_with_their_line(tmp_path, column, value, message):
    path = write_atomic(tmp_path / "a.csv", f"layer,unit,description,{column}\nfc,0,red,{value}\n".encode())
    with pytest.raises(UserError, match=rf"a\.csv, {message}" if message.startswith("line") else message):
        read_files(path)


def test_scores_at_the_ends_of_their_range_are_read(tmp_path):
    rows = "layer,unit,description,sim correlation,sim ablation(norm)\nfc,0,red,-1,-30\nfc,1,red,1.00001,1\n"
    (file,) = read_files(write_atomic(tmp_path / "a.csv", rows.encode()))
    assert file.lines == (2, 3)


@pytest.mark.parametrize("parts", [["7"], ["0"], ["0", "2"], ["1", "2"]])
def test_parts_of_units_that_are_not_split_are_refused_with_their_line(tmp_path, parts):
    rows = "".join(f"fc,3,red,{part}\n" for part in parts)
    path = write_atomic(tmp_path / "a.csv", f"layer,unit,description,part\nfc,0,blue,\n{rows}".encode())
    with pytest.raises(UserError, match=rf"a\.csv, line 3, column `part`: fc:3/{parts[0]} is a part of a unit that is"):
        read_files(path)[0].check(10, {})


def test_evidence_beyond_the_images_is_refused_with_its_line(tmp_path):
    rows = "layer,unit,description,part,evidence\nfc,0,blue,1,9\nfc,0,blue,0,\nfc,1,red,,3;10\n"
    (file,) = read_files(write_atomic(tmp_path / "a.csv", rows.encode()))
    file.check(11, {})
    with pytest.raises(UserError, match=r"a\.csv, line 4, column `evidence`: there is no image 10, .* 10, 0 to 9"):
        file.check(10, {})


def test_the_support_of_terms_stands_in_the_last_column(tmp_path):
    said = [
        Explanation(Unit("fc", 0), (("dog", 2.0), ("cat", 1.0)), made_by=("le",), support=((120, 31), (8.5, 0))),
        Explanation(Unit("fc", 1), (("cat", 1.0),)),
        Explanation(Unit("fc", 2), ()),
    ]
    path = write_explanations(tmp_path / "a.csv", said)
    columns, rows = read_csv(path)
    assert columns[-2:] == ["made_by", "support"]
    assert [row.cells["support"] for row in rows] == ["120/31;8.5/0", "", ""]
    assert [one.support for one in read_explanations(path)] == [one.support for one in said]


@pytest.mark.parametrize("support", ["12", "1/2;3/4", "a/b", "1/-2", "1/2;"])
def test_support_that_is_none_is_refused(tmp_path, support):
    path = write_atomic(tmp_path / "a.csv", f"layer,unit,description,support\nfc,0,red,{support}\n".encode())
    with pytest.raises(UserError, match=r"line 2, column `support`: expected train/test images of 1 terms"):
        read_explanations(path)


def test_a_unit_beyond_its_layer_is_refused_with_its_line(tmp_path):
    (file,) = read_files(write_atomic(tmp_path / "a.csv", b"layer,unit,description\nfc,7,red\nconv,8,blue\n"))
    file.check(10, {"fc": 8})
    with pytest.raises(UserError, match=r"a\.csv, line 3: there is no unit 8, since conv has units 0 to 7"):
        file.check(10, {"fc": 8, "conv": 8})
