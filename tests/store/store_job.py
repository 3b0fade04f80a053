"""Works with the store as processes of its own: store_job.py WORK DEVICES FOLDER [SECONDS].

each: adds up numbers that are made block by block, in two processes of a run or in one, and prints the sum.
wait: writes its number beside a mark, and then the first process works for ever while the others wait for it; or, with
SECONDS, the others work while the first one waits.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

import torch

from neuronx.recording.trainer import make
from neuronx.store import cache
from neuronx.store.processes import is_first, on_first

if __name__ == "__main__":
    work, devices, folder, *seconds = sys.argv[1:]
    strategy = "ddp" if devices != "1" else "auto"
    runner = partial(make, accelerator="cpu", devices=int(devices), strategy=strategy, enable_progress_bar=False)()
    if work == "wait":
        (Path(folder) / f"{runner.global_rank}-{os.getpid()}").touch()
        if is_first() == (not seconds):
            time.sleep(600)
        on_first(lambda: None)
    found, drafts = cache.open_or_draft(lambda: {"numbers": cache.entry("numbers", {"of": "test"})})
    if drafts:
        draft = drafts["numbers"]
        there = on_first(lambda: [path.name.split("@")[0] for path in draft.adopt("block-")])
        for number in range(runner.global_rank, 12, runner.world_size):
            if f"block-{number:02d}" not in there:
                time.sleep(float(seconds[0]) if seconds else 0)
                draft.write(f"block-{number:02d}.bin", bytes([number]) * 1000)

        def publish() -> cache.Contents:
            blocks = {path.name.split("@")[0]: path for path in draft.blocks("block-")}
            numbers = torch.tensor([sum(path.read_bytes()) for _, path in sorted(blocks.items())])
            assert len(numbers) == 12, blocks
            return draft.publish(cache.packed({"numbers": numbers}))

        found["numbers"] = on_first(publish)
    print(int(found["numbers"].tensors()["numbers"].sum()))
