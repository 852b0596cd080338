# /// script
# requires-python = "==3.11.*"
# dependencies = [
#     "tensorflow-cpu==2.21.0",  # The converter to TensorFlow Lite.
# ]
# ///
"""Makes the models that only tests need: what comes out is what went in, in other places or of another type.

Usage: test_models.py [ROOT]

Writes ROOT/tests/models; ROOT is the repository unless it is given. They have no manifests: the service reads all it
has to know from the model files.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}

import tensorflow as tf  # noqa: E402

# Types that TensorFlow Lite can turn round.
TYPES = ["float32", "int16", "int32", "int64", "uint8", "bool"]


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent
    files = {
        "types": convert(turned_round, {name: ([None, 3], name) for name in TYPES}),
        "wide-and-narrow": convert(changed_places, {"float16": ([None, 2], "float16"), "float64": ([None, 2], "float64")}),
        "fixed": convert(scaled, {"factor": ([], "float32"), "vector": ([3], "float32")}),
        "no-signature": convert(doubled, {"x": ([None, 2], "float32")}, has_signature=False),
        "custom-op": convert(determinant, {"x": ([None, 2, 2], "float32")}),
    }
    for name, file in files.items():
        folder = root / "tests/models" / name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.tflite").write_bytes(file)
        print(f"{name}: {len(file)} bytes")


def turned_round(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
    """Every row from its end to its beginning, to the bit."""
    return {name: tf.reverse(values, [1]) for name, values in inputs.items()}


def changed_places(float16: tf.Tensor, float64: tf.Tensor) -> dict[str, tf.Tensor]:
    """Each type as the other, by way of single precision."""
    narrow, wide = tf.cast(float16, tf.float32), tf.cast(float64, tf.float32)
    return {"float64": tf.cast(narrow, tf.float64), "float16": tf.cast(wide, tf.float16)}


def scaled(factor: tf.Tensor, vector: tf.Tensor) -> dict[str, tf.Tensor]:
    """With tensors of fixed shapes, one of them a single number."""
    product = factor * vector
    return {"product": product, "sum": tf.reduce_sum(product)}


def doubled(x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"y": x + x}


def determinant(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """An operation that TensorFlow has and TensorFlow Lite has not."""
    return {"y": tf.linalg.det(x)}


def convert(
    function: Callable, inputs: dict[str, tuple[list[int | None], str]], has_signature: bool = True
) -> bytes:
    module = tf.Module()
    specs = {name: tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in inputs.items()}
    module.function = tf.function(function, autograph=False)
    concrete = module.function.get_concrete_function(**specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module if has_signature else None)
    converter.allow_custom_ops = True
    return converter.convert()


if __name__ == "__main__":
    main()
