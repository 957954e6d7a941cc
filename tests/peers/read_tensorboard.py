"""Reads a run's event files with TensorBoard's own readers and compares every value with metrics.jsonl.

Run with Python 3.11, tensorboard 2.21.0, protobuf 7.36.2:

    deno task train --model MODEL --data pairs.jsonl --eval-data held_out.jsonl --eval-steps 4 --tensorboard --output RUN
    python tests/peers/read_tensorboard.py RUN

EventAccumulator reads the folder as `tensorboard --load_fast=false` does; the checksums of every record are checked by
TensorBoard's Python reader of TFRecord files. With several phases each is a folder. Prints tag, points and last value, and
ends with exit code 1 where a value, a step or a tag differs. Values are compared as f32, which event files hold.
"""

import json
import struct
import sys
from pathlib import Path

import tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def as_f32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def tag_of(name):
    return f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"


def expected_scalars(records):
    scalars = {}
    for record in records:
        for name, value in record.items():
            if name not in ("phase", "global_step"):
                scalars.setdefault(tag_of(name), []).append((record["global_step"], as_f32(value)))
    return scalars


def read_scalars(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def main(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    folder = run / "tensorboard"
    phases = sorted(path.name for path in folder.iterdir() if path.is_dir())
    places = [(folder / phase, phase) for phase in phases] or [(folder, None)]
    print(f"tensorboard {tensorboard.__version__}")
    wrong = 0
    for place, phase in places:
        expected = expected_scalars([record for record in records if phase in (None, record["phase"])])
        found = read_scalars(place)
        for tag in sorted(expected.keys() | found.keys()):
            is_same = expected.get(tag) == found.get(tag)
            wrong += not is_same
            points = found.get(tag) or []
            last = f"{points[-1][1]:.6g} at step {points[-1][0]}" if points else "nothing"
            print(f"{phase or ''} {tag}: {len(points)} points, last {last}{'' if is_same else '  DIFFERS'}".strip())
    print("all values equal those of metrics.jsonl" if wrong == 0 else f"{wrong} tags differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
