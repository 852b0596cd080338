"""What the clients share: their arguments, how they say what they saw, and TensorFlow Lite itself to compare with."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

SEED = 8

# Batches as clients send them; the largest is larger than what most servers are asked for at once.
BATCHES = [1, 2, 3, 8, 17, 32]

# How far a float may be from TensorFlow Lite's, as a part of its size: two kernels add in different orders.
TOLERANCE = 1e-5

# The size of what an output is the sum of, where that is more than 1: its terms may be large and cancel each other.
SIZES = {"progression": 100.0}

# The means and deviations of the diabetes data, by input: what seeded people look like.
PEOPLE = {
    "person": ([48.5, 1.5, 26.4, 94.6], [13.1, 0.5, 4.4, 13.8]),
    "serum": ([189.1, 115.4, 49.8, 4.1, 4.6, 91.3], [34.6, 30.4, 12.9, 1.3, 0.5, 11.5]),
}


def arguments() -> tuple[str, Path]:
    """The service's address, HOST:PORT, and the folder of the models that it serves."""
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} HOST:PORT MODELS")
    return sys.argv[1], Path(sys.argv[2])


def check(holds: bool, what: str, seen: object = None) -> None:
    """Says what was checked, or ends with what was seen instead."""
    if not holds:
        sys.exit(f"FAILED: {what}" + (f"\n  seen: {seen!r}" if seen is not None else ""))
    print(f"ok: {what}")


@dataclass
class Model:
    """A model as its folder has it, run by TensorFlow Lite's own kernels."""

    name: str
    manifest: dict
    file: Path

    def __post_init__(self) -> None:
        # Without delegates: those compute with whole numbers in ways of their own.
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self._interpreter = Interpreter(str(self.file), experimental_op_resolver_type=resolver, num_threads=1)
        self._run = self._interpreter.get_signature_runner()

    @property
    def inputs(self) -> list[dict]:
        return self.manifest["inputs"]

    @property
    def outputs(self) -> list[dict]:
        return self.manifest["outputs"]

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        # What it gives is its own memory, which the next run overwrites.
        return {name: np.array(values) for name, values in self._run(**inputs).items()}

    def seeded(self, rows: int, seed: int = SEED) -> dict[str, np.ndarray]:
        """Inputs for so many rows, the same for each seed."""
        random = np.random.default_rng([seed, rows])
        return {tensor["name"]: values(random, tensor, rows) for tensor in self.inputs}

    def quantised(self, name: str, values: np.ndarray) -> np.ndarray:
        """Values as an input has them, which may be in whole numbers."""
        detail = self._run.get_input_details()[name]
        if np.issubdtype(detail["dtype"], np.floating):
            return values.astype(detail["dtype"])
        scale, zero = detail["quantization"]
        limits = np.iinfo(detail["dtype"])
        return np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(detail["dtype"])


def values(random: np.random.Generator, tensor: dict, rows: int) -> np.ndarray:
    shape = [rows, *tensor["shape"][1:]]
    if tensor["dtype"] == "INT8":
        return random.integers(-128, 128, shape, dtype=np.int8)
    if tensor["name"] in PEOPLE:
        mean, deviation = PEOPLE[tensor["name"]]
        return random.normal(mean, deviation, shape).astype(np.float32)
    return random.random(shape, dtype=np.float32)


def models(folder: Path) -> Iterator[Model]:
    """The models of a folder that have a manifest, of each the newest version."""
    for path in sorted(folder.iterdir()):
        manifests = sorted(path.glob("*/manifest.json"), key=lambda manifest: int(manifest.parent.name))
        if manifests:
            yield model(folder, path.name, manifests[-1].parent.name)


def model(folder: Path, name: str, version: str = "1") -> Model:
    place = folder / name / version
    manifest = json.loads((place / "manifest.json").read_text())
    return Model(name, manifest, place / manifest["file"])


def size(name: str, expected: np.ndarray) -> np.ndarray:
    """What an output's distance is measured against."""
    return np.maximum(SIZES.get(name, 1.0), np.abs(expected.astype(np.float64)))


def agrees(name: str, seen: np.ndarray, expected: np.ndarray) -> bool:
    """Whether an output is as expected: floats nearly, others exactly."""
    if seen.shape != expected.shape:
        return False
    if np.issubdtype(expected.dtype, np.floating):
        distance = np.abs(seen.astype(np.float64) - expected)
        return bool(np.all(distance <= TOLERANCE * size(name, expected)))
    return bool(np.array_equal(seen, expected))


def check_outputs(seen: dict[str, np.ndarray], expected: dict[str, np.ndarray], what: str) -> None:
    check(seen.keys() == expected.keys(), f"{what}: the outputs are those of the model", list(seen))
    for name, values in expected.items():
        check(agrees(name, seen[name], values), f"{what}: {name} is TensorFlow Lite's", (seen[name], values))
