import json
import logging
import socket
import time

import numpy as np
import pytest
from PIL import Image

from neuronx.errors import UserError
from neuronx.report.evaluation import Evaluation
from neuronx.report.loggers import CsvLog, WandbLog, by_key, found_pictures
from neuronx.types import Score, Unit


@pytest.fixture
def evaluation():
    scores = [
        Score("net", "avg", Unit("fc", i), method, "correlation", i / 9, 0.1, 9, "ok", "dog", "judge", "a/test:9")
        for method in ("le_clip", "shuffled-le_clip")
        for i in range(9)
    ]
    scores.append(
        Score(
            "net",
            "avg",
            Unit("fc", 9),
            "le_clip",
            "correlation",
            float("nan"),
            0.1,
            9,
            "inactive",
            "",
            "judge",
            "a/test:9",
        )
    )
    return Evaluation({}, scores)


@pytest.fixture
def no_network(monkeypatch):
    """No key, and any attempt of this process to reach another machine fails."""
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    connect = socket.socket.connect

    def local_only(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise OSError("no network in this test")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


def test_the_csv_logger_writes_the_metrics_of_training(tmp_path, evaluation):
    CsvLog().log(evaluation, tmp_path)
    assert not list(tmp_path.iterdir()), "the tables of an evaluation are written whatever the loggers"
    logger = CsvLog().lightning(tmp_path)
    logger.log_metrics({"loss": 0.5}, step=1)
    logger.save()
    assert (tmp_path / "training" / "metrics.csv").read_text() == "loss,step\n0.5,1\n"


def test_an_unknown_mode_is_refused():
    with pytest.raises(UserError, match=r"no mode of logger\.wandb `onlin`.*Nearest: online"):
        WandbLog(mode="onlin")


def test_wandb_takes_tables_by_name(tmp_path, no_network):
    WandbLog().log_tables({"audit": (["network", "share"], [["a", 0.5], ["b", None]])}, tmp_path)
    (table,) = (tmp_path / "wandb").rglob("audit*.table.json")
    assert json.loads(table.read_text())["data"] == [["a", 0.5], ["b", None]]
    CsvLog().log_tables({}, tmp_path)


def test_wandb_offline_needs_no_network_and_a_few_seconds(tmp_path, evaluation, no_network):
    Image.new("RGB", (4, 4)).save(tmp_path / "sheet.png")
    start = time.monotonic()
    WandbLog().log(evaluation, tmp_path)
    assert time.monotonic() - start < 30
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    tables = {path.name.split("_")[0]: json.loads(path.read_text()) for path in run.rglob("*.table.json")}
    assert set(tables) == {"leaderboard", "units"}
    assert [row[3] for row in tables["leaderboard"]["data"]] == ["le_clip", "shuffled-le_clip"]
    assert len(tables["units"]["data"]) == 10
    assert tables["units"]["data"][9][tables["units"]["columns"].index("value")] is None
    keys = (b"score/correlation/net/fc/le_clip", b"histogram/correlation/net/fc/le_clip/judge")
    raw = next(run.glob("*.wandb"))
    while not all(key in raw.read_bytes() for key in keys):  # W&B's own process writes it a moment later
        assert time.monotonic() - start < 30
        time.sleep(0.1)
    assert not list(run.rglob("*.png")), "pictures are sent only when asked for"


def test_pictures_go_to_wandb_only_when_asked(tmp_path, evaluation, no_network):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "sheet.png")
    WandbLog(images=True).log(evaluation, tmp_path)
    assert len(list((tmp_path / "wandb").rglob("*.png"))) == 1


def test_wandb_online_without_a_key_logs_offline_and_says_so(tmp_path, evaluation, no_network, caplog, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setattr("neuronx.report.loggers._has_key", lambda: False)
    with caplog.at_level(logging.WARNING, "neuronx"):
        WandbLog(mode="online").log(evaluation, tmp_path)
    assert "W&B has no key" in caplog.text
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_whatever_is_wrong_with_wandb_a_run_goes_on(tmp_path, evaluation, caplog, monkeypatch):
    import wandb

    def broken(**options):
        if options["mode"] != "disabled":
            raise RuntimeError("no space left")
        return wandb.sdk.wandb_init.init(**options)

    monkeypatch.setattr(wandb, "init", broken)
    with caplog.at_level(logging.WARNING, "neuronx"):
        WandbLog().log(evaluation, tmp_path)
    assert "W&B cannot be used offline: no space left" in caplog.text


def test_the_lightning_logger_of_wandb_is_offline_too(tmp_path, no_network):
    import wandb

    logger = WandbLog().lightning(tmp_path)
    logger.log_metrics({"loss": 0.5}, step=1)
    wandb.finish()
    assert list((tmp_path / "wandb").glob("offline-run-*"))


class Run:
    """A run of W&B that keeps what it is given."""

    def __init__(self):
        self.summary, self.logged, self.finished = {}, [], False

    def log(self, content):
        self.logged.append(content)

    def finish(self):
        self.finished = True


@pytest.mark.parametrize(
    ("mode", "works", "tried"),
    [
        ("online", "online", ["online"]),
        ("online", "offline", ["online", "offline"]),
        ("online", "disabled", ["online", "offline", "disabled"]),
        ("offline", "disabled", ["offline", "disabled"]),
        ("disabled", "disabled", ["disabled"]),
    ],
)
def test_a_mode_that_cannot_be_had_gives_way_to_a_humbler_one(
    tmp_path, evaluation, caplog, monkeypatch, mode, works, tried
):
    modes, run = [], Run()

    def init(**options):
        modes.append(options["mode"])
        if options["mode"] != works:
            raise RuntimeError("out of order")
        return run

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setattr("neuronx.report.loggers._has_key", lambda: True)
    WandbLog(mode=mode).log(evaluation, tmp_path)
    assert modes == tried and run.finished and "left out" not in caplog.text
    assert run.summary["score/correlation/net/fc/le_clip"] == pytest.approx(4 / 9)
    assert caplog.text.count("cannot be used") == len(tried) - 1


def test_a_run_ends_well_without_any_mode(tmp_path, evaluation, caplog, monkeypatch):
    def init(**options):
        raise RuntimeError("out of order")

    monkeypatch.setattr("wandb.init", init)
    WandbLog().log(evaluation, tmp_path)
    assert "W&B was left out" in caplog.text


def test_which_pictures_are_sent_and_how_many(tmp_path, monkeypatch):
    for place in ("pictures/net/a.png", "pictures/net_a.png", "other.png", "wandb/own.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    assert list(found_pictures(tmp_path)) == ["pictures/other.png", "pictures/net_a.png", "pictures/net/a.png"]
    monkeypatch.setattr("neuronx.report.loggers.PICTURES", 2)
    assert list(found_pictures(tmp_path)) == ["pictures/other.png", "pictures/net_a.png"]


def test_only_scored_units_are_counted_in_histograms(evaluation):
    values = by_key(evaluation.scores)
    assert {key: len(of_method) for key, of_method in values.items()} == {
        "histogram/correlation/net/fc/le_clip/judge": 9,
        "histogram/correlation/net/fc/shuffled-le_clip/judge": 9,
    }
