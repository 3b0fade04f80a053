"""The two commands: what users type is composed into a configuration; what it names is built and run."""

import ctypes
import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from neuronx.command.callables import check_names
from neuronx.command.mistakes import mistakes_end_in_one_line
from neuronx.command.registry import CONFIGS, build, check_own
from neuronx.command.results_folder import claim, leave
from neuronx.command.typed import MARK, meant, readable
from neuronx.errors import UserError
from neuronx.options import Natural, Seed, check
from neuronx.types import Method, RunLogger, Task, TrainerFactory, as_found

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.methods.linear.method import LinearExplanations
    from neuronx.methods.sae.task import SaeTask
    from neuronx.report.evaluation import Evaluation
    from neuronx.targets.target import Target

TASKS = ("le", "milan", "classifier", "contrastive", "generator", "sae")
KEYS = {
    "seed": Seed,
    "ship": bool,
    "ckpt_path": str | None,
    "show": str | None,
    "pool": str | None,
    "units": str | Natural | Sequence[Natural] | None,
}
"""Plain keys of the commands, and what they may be; the others are checked where they are read."""
LISTS = ("target", "explain", "sim", "logger")
SINGLES = ("data", "concepts", "clip", "judge", "describe", "annotations", "experiment", "trainer", "recipe", *TASKS)


def rewrite(argument: str) -> list[str]:
    """Turns one argument of ours into Hydra's grammar; applying it twice changes nothing.

    `trainer.x=y` may name any Trainer argument; `judge=[a,b]` becomes the first judge and the list of all; a group set
    to null, which Hydra cannot do, is refused with what to type instead.
    """
    argument = readable(argument, (*LISTS, *SINGLES), bool({"-m", "--multirun"} & set(sys.argv)))
    if re.match(r"trainer\.\w", argument):
        return [f"++{argument}"]
    if several := re.fullmatch(rf"({'|'.join((*LISTS, 'judge'))})=\[(.+)\]", argument):
        names = [name.strip() for name in several[2].split(",")]
        if twice := next((name for name in names if names.count(name) > 1), None):
            own = (
                f" Put the second into a YAML of yours, DIR/{several[1]}/my_{twice}.yaml, "
                f"under `my_{twice}:`, and type --config-dir DIR '{several[1]}=[{twice},my_{twice}]'; or run twice."
            )
            raise UserError(f"`{argument}` names {twice} twice.{own if several[1] in LISTS else ''}")
    if several and several[1] == "judge":
        return [f"judge={names[0]}", f"++judges=[{','.join(names)}]"]
    if option := re.fullmatch(rf"exemplars(\.\w+=.*|=(?:{MARK})?\d+)", argument):  # a number and options go together
        return [f"++exemplars{option[1] if option[1][0] == '.' else '.k' + option[1]}"]
    if re.match(r"experiment=\[", argument):
        raise UserError(f"`{argument}` is a list; a run has one experiment, as in experiment=editing.")
    if null := re.fullmatch(r"(\w+)=(null|None|)", argument):
        if null[1] in LISTS:
            raise UserError(f"`{argument}` is not a choice; for none, type '{null[1]}=[]'.")
        if null[1] in SINGLES:
            raise UserError(f"`{argument}` is not a choice; leave `{null[1]}=` out, or see --help for the choices.")
    return [argument]


def evaluate(cfg: DictConfig) -> "Evaluation | str":
    """Explains the units of every target with every method, scores the explanations and writes the run's files.

    Returns what was found, or the text that `show=` or `experiment=` asked for.
    """
    check_keys(cfg)
    if cfg.get("experiment"):
        return experiment(cfg)
    files_only = set(cfg.get("sim") or {}) == {"stored"}
    needed = not files_only and cfg.show in (None, "layers", "units", "importance")
    with without_garbage_collection():
        seed(cfg.seed)
        networks = targets(cfg) if needed else {}  # first, since a wrong layer is the commonest mistake
    from neuronx.command import exemplars, pipeline
    from neuronx.command.attempts import Attempts
    from neuronx.data.latents import images_of
    from neuronx.scoring.accuracy import accuracies

    wanted = exemplars.read(plain(cfg.exemplars))
    if cfg.show is not None:
        text = pipeline.show(cfg.show, lambda: probe(cfg), networks, words(cfg), build(cfg.trainer), patterns(cfg))
        print(text)
        return text
    # All that is chosen is made before the first image is looked at, and the folder last: a mistake leaves none behind.
    given = pipeline.read_given(plain(cfg.explanations), layers(cfg), list(cfg.target))
    sims, how, chosen = build(cfg.get("sim") or {}), methods(cfg), loggers(cfg)
    facts, attempts = {"seed": cfg.seed}, Attempts()
    if files_only and wanted is not None:
        raise UserError("`exemplars=` looks at images, and sim=stored at none: leave one of them out.")
    scoring = [name for name in sims if name not in ("purity", "stored")]  # these two need no explanations
    if scoring and not how and not given:
        raise UserError(
            f"There is nothing that sim={scoring[0]} could score: choose methods with explain=, give "
            "explanations=FILE, or type 'sim=[]' for no scores."
        )
    if files_only:
        folder = run_folder(cfg)
        evaluation = pipeline.stored(given, sims["stored"])
    else:
        judging, listed, trainer = judges(cfg) if sims else [], words(cfg), checked_trainer(cfg)
        images = probe(cfg)
        if wanted is not None:
            for target in networks.values():
                wanted.rows(images_of(target, images))
        folder = run_folder(cfg)
        evaluation = pipeline.evaluate(
            targets=networks,
            probe=images,
            methods=how,
            given=given,
            sims=sims,
            judges=judging,
            words=listed,
            trainer=trainer,
            seed=cfg.seed,
            optional=not typed("explain"),
            attempts=attempts,
        )
        if wanted is not None:
            draw = partial(exemplars.draw, networks, images, wanted, trainer, folder, evaluation.explanations)
            attempts.run("exemplars", draw)
        known = accuracies(networks.values(), images, trainer)
        evaluation = replace(evaluation, accuracies=known)
        facts["accuracy"] = {found.target: found.value for found in known}
        facts["fingerprints"] = pipeline.fingerprints(images, networks)
    pipeline.finish(evaluation, folder, config_text(cfg), chosen, **facts)
    attempts.close(folder)
    return evaluation


def experiment(cfg: DictConfig) -> str:
    """Runs the experiment that was chosen, on the networks, images and methods of the run; returns what it printed."""
    from neuronx.experiments.given import Given, run
    from neuronx.scoring.accuracy import accuracies
    from neuronx.store.processes import is_first

    refused = [key for key in ("show", "explanations", "exemplars") if cfg.get(key) is not None]
    refused += ["sim"] if typed("sim") and cfg.sim else []
    if refused:
        raise UserError(f"`experiment=` and `{refused[0]}=` do not go together: leave one of them out.")
    seed(cfg.seed)
    networks, made, how, chosen = targets(cfg), build(cfg.experiment), methods(cfg), loggers(cfg)
    given = Given(checked_trainer(cfg), run_folder(cfg), networks, probe(cfg), how)
    text = run(made, given, config_text(cfg), chosen, seed=cfg.seed)
    known = accuracies(given.targets.values(), given.probe, given.trainer) if given.probe is not None else []
    if is_first():
        print("".join(f"{found}\n" for found in known), end="")
    return text


def train(cfg: DictConfig) -> Path:
    """Trains the one task that was chosen and returns the folder of its result."""
    from neuronx.callbacks.caption_samples import CaptionSamples
    from neuronx.callbacks.exemplar_grid import ExemplarGrid
    from neuronx.callbacks.explanation_table import ExplanationTable
    from neuronx.callbacks.run_record import RunRecord

    check_keys(cfg)
    task = chosen_task(cfg)
    if task == "le" and (cfg.ckpt_path or cfg.ship):
        raise UserError("`ckpt_path` and `ship` mean nothing for le=: it is one pass over recorded activations.")
    seed(cfg.seed)
    part, chosen = build(cfg[task]), loggers(cfg)
    checked_trainer(cfg)
    folder = run_folder(cfg)
    images = any(logger.images for logger in chosen)
    shown = [ExplanationTable(), CaptionSamples(images), ExemplarGrid(folder, images)]
    callbacks = [RunRecord(folder, config_text(cfg), seed=cfg.seed), *shown]
    lightning = [logger.lightning(folder) for logger in chosen]
    trainer = partial(build(cfg.trainer), callbacks=callbacks, logger=lightning or False)
    if task == "le":
        name = f"le_{HydraConfig.get().runtime.choices['le']}" if HydraConfig.initialized() else "le"
        return fit_linear(name, part, targets(cfg), probe(cfg), trainer, folder)
    if task == "sae":
        pictures = probe(cfg) if typed("data") or part.pictures is None else part.pictures()
        return train_autoencoders(part, targets(cfg), pictures, trainer, folder, cfg.ckpt_path, cfg.ship)
    return train_part(part, trainer, folder, cfg.ckpt_path, cfg.ship)


def fit_linear(
    name: str,
    method: "LinearExplanations",
    targets: "Mapping[str, Target]",
    probe: "Probe",
    trainer: TrainerFactory,
    folder: Path,
) -> Path:
    """Fits the heads of linear explanations, called `name`, for every target; writes them and their formulas.

    Returns the folder, with `<target>.safetensors` (`LinearHeads.load` reads it) and `explanations/` in it.
    """
    from neuronx.progress import where_to_look
    from neuronx.report.evaluation import Evaluation, write
    from neuronx.store.processes import is_first

    explained = {}
    for network, target in targets.items():
        heads = method.fit(target, probe, trainer)
        explained[network, name] = as_found(heads.explanations(), name).explanations
        if is_first():
            heads.save(folder / f"{network}.safetensors")
    if is_first():
        write(Evaluation(explanations=explained), folder)
        for (network, _), explanations in explained.items():
            for explanation in explanations[:10]:
                print(f"{network} {explanation.unit}: {explanation}")
        print(where_to_look(folder))
    return folder


def train_autoencoders(
    task: "SaeTask",
    targets: "Mapping[str, Target]",
    probe: "Probe",
    trainer: TrainerFactory,
    folder: Path,
    ckpt_path: str | None,
    ship: bool,
) -> Path:
    """Trains an autoencoder for every layer of every target, and prints their cards; returns the folder.

    Raises:
        UserError: A checkpoint to go on from, and several layers.
    """
    from neuronx.data.latents import images_of
    from neuronx.store import checkpoints
    from neuronx.store.processes import is_first

    wanted = [(target, layer) for target in targets.values() for layer in target.layers]
    if ckpt_path is not None and len(wanted) > 1:
        raise UserError("`ckpt_path` is of one autoencoder: name one target and one layer, as layers=layer4.")
    for target, layer in wanted:
        place = folder if len(wanted) == 1 else folder / f"{target.name}_{layer}"
        weights = task.run(target, layer, images_of(target, probe), trainer, place, ckpt_path)
        if is_first():
            print(weights.with_suffix(".md").read_text())
            print(f"Files: {checkpoints.ship(weights).parent if ship else place}")
    return folder


def train_part(task: Task, trainer: TrainerFactory, folder: Path, ckpt_path: str | None, ship: bool) -> Path:
    """Trains one shipped part, prints its card's figures and, if asked, copies it into `checkpoints/`."""
    from neuronx.store import checkpoints
    from neuronx.store.processes import is_first

    weights = task.run(trainer, folder, ckpt_path)
    if is_first():
        print(weights.with_suffix(".md").read_text())
        print(f"Files: {checkpoints.ship(weights).parent if ship else folder}")
    return weights


def plain(node: Any, resolve: bool = True) -> Any:
    """A part of the configuration as plain lists, dicts, numbers and strings."""
    return OmegaConf.to_container(node, resolve=resolve) if OmegaConf.is_config(node) else node


def probe(cfg: DictConfig) -> "Probe":
    """The images of the run, checked to be enough."""
    made = build(cfg.data)
    made.check()
    return made


def checked_trainer(cfg: DictConfig) -> TrainerFactory:
    """What makes trainers; it has made one, so that a device that is not there is found before any work."""
    trainer: TrainerFactory = build(cfg.trainer)
    trainer()
    return trainer


def targets(cfg: DictConfig) -> "dict[str, Target]":
    """The networks of the run by name, with the layers, pooling and units that were asked for, tried once."""
    chosen = {}
    for node in (cfg.get("target") or {}).values():
        named = None if patterns(cfg) else layers(cfg)
        asked = {"layers": named, "pool": cfg.pool, "units": units(cfg), "masks": cfg.get("masks")}
        target = build(node).select(**asked, seed=cfg.seed)
        if target.name in chosen:
            raise UserError(f"Two targets are called {target.name}; tell them apart with target.<choice>.name=...")
        chosen[target.name] = target
    if cfg.get("show") != "layers":
        from neuronx.recording.forward_pass import try_layers

        for target in chosen.values():
            try_layers(target)
    return chosen


def methods(cfg: DictConfig) -> dict[str, Method]:
    """The methods of the run by name; none when files are scored, unless `explain=` was typed too.

    A recipe sets options of methods that a later `explain=` may have dropped; those have no `_target_`.
    """
    if cfg.explanations is not None and not typed("explain"):
        return {}
    return {name: build(node) for name, node in (cfg.get("explain") or {}).items() if "_target_" in node}


def loggers(cfg: DictConfig) -> list[RunLogger]:
    """Where the run is logged."""
    return list(build(cfg.get("logger") or {}).values())


def layers(cfg: DictConfig) -> list[str] | None:
    """The layers typed by the user, or None for each target's own."""
    if cfg.layers is None:
        return None
    return [cfg.layers] if isinstance(cfg.layers, str) else [str(layer) for layer in cfg.layers]


def patterns(cfg: DictConfig) -> list[str]:
    """What `show=layers` is to show, where `*` or `?` stands in `layers`; nothing where names do."""
    named = layers(cfg) or [] if cfg.get("show") == "layers" else []
    return named if any(re.search(r"[*?]", layer) for layer in named) else []


def units(cfg: DictConfig) -> "str | list[int] | None":
    """The units typed by the user: a list, a range or `random:n`."""
    if cfg.units is None or isinstance(cfg.units, str):
        return cfg.units
    return [cfg.units] if isinstance(cfg.units, int) else list(cfg.units)


def words(cfg: DictConfig) -> Any:
    """The word list of the run; it reads nothing until asked."""
    return build(cfg.concepts)


def judges(cfg: DictConfig) -> list[Any]:
    """The judges of the run, several where `judge=[a,b]` was typed."""
    names = cfg.get("judges")
    if not names:
        return [build(cfg.judge)]
    rest = [item for item in HydraConfig.get().overrides.task if not re.match(r"(\+\+)?judges?=", item)]
    return [build(hydra.compose("evaluate", overrides=[*rest, f"judge={name}"]).judge) for name in names]


def chosen_task(cfg: DictConfig) -> str:
    """The one task of train.py. Raises UserError for none or several."""
    chosen = [task for task in TASKS if cfg.get(task)]
    if len(chosen) != 1:
        what = "No task was chosen" if not chosen else f"Several tasks were chosen ({', '.join(chosen)})"
        raise UserError(f"{what}; choose exactly one of {', '.join(TASKS)}, as in: python train.py le=label")
    return chosen[0]


def typed(key: str) -> bool:
    """Whether the user typed `key=...` on the command line."""
    return HydraConfig.initialized() and any(item.startswith(f"{key}=") for item in HydraConfig.get().overrides.task)


def run_folder(cfg: DictConfig) -> Path:
    """The run's own folder, checked: Hydra's, or `results/python` when called as a function without Hydra."""
    from neuronx.store.processes import is_first

    folder = Path(HydraConfig.get().runtime.output_dir) if HydraConfig.initialized() else Path("results/python")
    if is_first() and HydraConfig.initialized():
        claim(folder, config_text(cfg))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_keys(cfg: DictConfig) -> None:
    """Raises UserError for a plain key that is not of its kind."""
    for key, kind in KEYS.items():
        if key in cfg:
            check(key, plain(cfg[key]), kind)


def config_text(cfg: DictConfig) -> str:
    """The composed configuration as YAML: the record of the run."""
    return OmegaConf.to_yaml(cfg)


def seed(value: int) -> None:
    """Seeds every random number generator, as `lightning.seed_everything(value, workers=True)` does.

    Lightning itself takes seconds to import, and a mistake in a layer's name should not wait for it.
    """
    import random

    import numpy as np
    import torch

    os.environ |= {"PL_GLOBAL_SEED": str(value), "PL_SEED_WORKERS": "1"}
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002
    torch.manual_seed(value)


def check_parts(cfg: DictConfig) -> None:
    """Raises UserError where a plain value stands in place of a part, as with `sim.correlation=3`."""
    for group in LISTS:
        for name, part in (cfg.get(group) or {}).items():
            if not isinstance(part, DictConfig):
                said = "null" if part is None else part
                raise UserError(
                    f"`{group}.{name}={said}` replaces the whole part; set one of its options, as in "
                    f"`{group}.{name}.OPTION={said}`, or leave it out."
                )


def _command(name: str, run: Callable[[DictConfig], Any]) -> None:
    """Runs one command as a program: a mistake is one line and exit code 2, a termination signal ends it at once."""
    # Hydra's own handler hides where an error came from; ours prints one line for mistakes and keeps a bug's traceback.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    reuse_memory()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    typed = sys.argv[1:]

    @hydra.main(version_base="1.3", config_path=f"pkg://{CONFIGS}", config_name=name)
    def task(cfg: DictConfig) -> None:
        # Handled inside, since Hydra prints a line of its own about whatever leaves a job.
        with mistakes_end_in_one_line():
            sys.argv[1:] = typed  # for the record of the run, and for further processes
            try:
                for source in HydraConfig.get().runtime.config_sources:
                    if source.provider == "command-line":
                        check_own(source.path)
                cfg = meant(cfg, HydraConfig.get().overrides.task)
                check_names(plain(cfg, resolve=False))
                check_parts(cfg)
                run(cfg)
            finally:
                leave(Path(HydraConfig.get().runtime.output_dir))

    with mistakes_end_in_one_line():
        sys.argv[1:] = [out for argument in typed for out in rewrite(argument)]
        task()


def reuse_memory() -> None:
    """Keeps freed memory for the next batch instead of giving it back to the kernel, where the C library is glibc.

    The kernel would zero the pages again and again: on a CPU, a seventh of the time of training a small network.
    """
    with suppress(OSError, AttributeError):
        for setting in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            ctypes.CDLL("libc.so.6").mallopt(setting, 2**30)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """While libraries are imported: they make lasting objects by the million, and looking for garbage takes .6 s."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def train_main() -> None:
    """`python train.py`, or `neuronx-train` once installed."""
    _command("train", train)


def evaluate_main() -> None:
    """`python evaluate.py`, or `neuronx-evaluate` once installed."""
    _command("evaluate", evaluate)
