from neuronx.experiments.generalisation import Outcome, naming_of, naming_table
from neuronx.experiments.splits import Split
from neuronx.metrics.captions import score_captions
from neuronx.world.annotations.embedded import leading_factors


def test_captions_are_held_against_the_leading_factor(units):
    folder = units.folders[0].folder.parent
    table = ["layer,unit,factor,source", "conv1,0,circle,known", "conv1,1,grass,seen", "conv1,2,,", "conv2,0,red,known"]
    (folder / "truth.csv").write_text("\n".join(table) + "\n")
    wanted = leading_factors(units)
    assert wanted[0] == ("circle", "disc") and "lawn" in wanted[1] and wanted[2] == () and not any(wanted[6:])
    split = Split("within network", "alexnet/imagenet", (5,), (0, 1, 2, 3))
    said = {"pmi": ("Discs", "a lawn", "x", "red things"), "likelihood": ("red", "red", "red", "red")}
    outcomes = [
        Outcome(split, way, trial, score_captions(texts, [["red"]] * 4), texts)
        for way, texts in said.items()
        for trial in range(2)
    ]
    found = naming_of(outcomes, wanted)["within network: alexnet/imagenet"]
    assert found["pmi"].share == 1 and found["pmi"].n == 3 and round(found["likelihood"].lead, 3) == 0.667
    text = naming_table({"here": found})
    assert "100.0" in text and "+66.7" in text
    assert naming_of(outcomes, [()] * len(units)) == {}
