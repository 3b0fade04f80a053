"""The command line's grammar: what users type, turned into Hydra's."""

import re

from neuronx.errors import UserError

TASKS = ("le", "milan", "classifier", "contrastive", "generator")
LISTS = ("target", "explain", "sim", "logger")
SINGLES = ("data", "concepts", "clip", "judge", "describe", "annotations", "experiment", "trainer", "recipe", *TASKS)


def rewrite(argument: str) -> list[str]:
    """Turns one argument of ours into Hydra's grammar; applying it twice changes nothing.

    `trainer.x=y` may name any Trainer argument; `judge=[a,b]` becomes the first judge and the list of all; a group set
    to null, which Hydra cannot do, is refused with what to type instead.
    """
    if re.match(r"trainer\.\w", argument):
        return [f"++{argument}"]
    if several := re.fullmatch(r"judge=\[(.+)\]", argument):
        names = [name.strip() for name in several[1].split(",")]
        return [f"judge={names[0]}", f"++judges=[{','.join(names)}]"]
    if re.match(r"experiment=\[", argument):
        raise UserError(f"`{argument}` is a list; a run has one experiment, as in experiment=editing.")
    if null := re.fullmatch(r"(\w+)=(null|None|)", argument):
        if null[1] in LISTS:
            raise UserError(f"`{argument}` is not a choice; for none, type '{null[1]}=[]'.")
        if null[1] in SINGLES:
            raise UserError(f"`{argument}` is not a choice; leave `{null[1]}=` out, or see --help for the choices.")
    return [argument]
