"""Experiments with captions of units (MILAN) and with their parts (PURE): each gives data and a table of them.

On the command line `python evaluate.py experiment=editing`. From Python, with networks and images of your own:

    from neuronx.experiments import Auditing, Given
    from neuronx.methods.milan.method import Milan

    given = Given(targets={"mine": target, "other": another}, probe=probe, methods={"milan": Milan()})
    print(Auditing(query=["face", "eye"]).run(given))  # the table; its files are in given.folder

Below the classes are functions on captions, wherever those come from: `auditing.audit`, `editing.edit`,
`feature_importance.feature_importance`, `generalisation.generalisation`, and one for each table and figure.
"""

from functools import partial

from neuronx import first_used

# Imported when first used, as in `neuronx`.
_PUBLIC = {
    "Agreement": "agreement",
    "Auditing": "auditing",
    "Baselines": "learned",
    "Editing": "editing",
    "Generalisation": "learned",
    "Given": "given",
    "Head": "explained",
    "Importance": "feature_importance",
    "Ranges": "explained",
    "Splitting": "splitting",
    "Superclasses": "superclasses",
    "Sweep": "decoding",
    "VisualUse": "visual_use",
}
__all__ = sorted(_PUBLIC)
__getattr__ = partial(first_used, __name__, _PUBLIC)
