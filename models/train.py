# /// script
# requires-python = "==3.11.*"
# dependencies = [
#     "keras==3.15.1",           # The networks and their training.
#     "numpy==2.4.6",            # Arrays.
#     "pillow==13.0.0",          # The pictures for the tests.
#     "scikit-learn==1.9.1",     # Carries the data sets, and splits them.
#     "tensorflow-cpu==2.21.0",  # What Keras runs on, and the converter to TensorFlow Lite.
# ]
# ///
"""Trains the models beside this file and makes the test data that belongs to them.

Usage: train.py [ROOT]

Writes ROOT/models, ROOT/tests/images and ROOT/tests/data; ROOT is the repository unless it is given. Run again with
the same versions on the same kind of processor it writes the same bytes. README.md says how to run it.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Sums must be made in one order: no second thread, and no kernels that are chosen by the processor. The libraries
# read this when they are loaded.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}
os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from PIL import Image  # noqa: E402
from sklearn.datasets import load_diabetes, load_digits  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402

SEED = 8

# What is held out of training, and measured on.
HELD_OUT = 0.2

# The digits' pixels are whole numbers up to this one.
DIGITS_MAX = 16

DIGITS = [str(digit) for digit in range(10)]
QUARTILES = ["lowest quarter", "second quarter", "third quarter", "highest quarter"]

# TensorFlow's names of element types to those of the Open Inference Protocol.
DTYPES = {"float32": "FP32", "int8": "INT8"}

# The largest model file that belongs into a repository.
MAX_BYTES = 100_000


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    make_digits(root)
    make_diabetes(root)


# ---- Digits ----


def make_digits(root: Path) -> None:
    """The classifier as float and as int8, and what tests need to ask them."""
    pixels, labels = load_digits(return_X_y=True)
    pixels = pixels.astype(np.uint8).reshape(-1, 8, 8, 1)
    train, held_out, train_labels, held_out_labels = train_test_split(
        pixels, labels, test_size=HELD_OUT, stratify=labels, random_state=SEED
    )
    network = train_digits(scaled(train), train_labels)
    signature = [tf.TensorSpec([None, 8, 8, 1], tf.float32, name="pixels")]
    with saved(network, lambda pixels: {"probabilities": network(pixels, training=False)}, signature) as folder:
        files = {"digits": convert(folder), "digits-int8": convert_to_int8(folder, scaled(train))}

    descriptions = {
        "digits": "Handwritten digits of 8 x 8 pixels: the probability of each digit",
        "digits-int8": "The model `digits` with whole numbers of eight bits throughout",
    }
    extras = {
        "pixels": {"normalization": {"mean": 0.0, "std": 255.0}},
        "probabilities": {"labels": DIGITS},
    }
    for name, file in files.items():
        right = np.mean(classify(file, scaled(held_out)) == held_out_labels)
        print(f"{name}: {right:.2%} of {len(held_out)} held-out digits are classified correctly, {len(file)} bytes")
        write_model(root, name, file, descriptions[name], ["pixels"], ["probabilities"], extras)
    write_held_out(root / "tests/data/digits-held-out.json", held_out, held_out_labels)
    clear = np.all([classify(file, scaled(held_out)) == held_out_labels for file in files.values()], axis=0)
    write_images(root / "tests/images", files.values(), held_out[clear], held_out_labels[clear])


def scaled(pixels: np.ndarray) -> np.ndarray:
    """Pixels as the network has them: 0 to 1."""
    return pixels.astype(np.float32) / DIGITS_MAX


def train_digits(pixels: np.ndarray, labels: np.ndarray) -> keras.Model:
    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    network = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(24, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(48, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.4),
            # A dense layer, without the shape that flattening would compute anew for each batch.
            layers.Conv2D(len(DIGITS), 2),
            layers.GlobalAveragePooling2D(),
            layers.Softmax(),
        ]
    )
    network.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
    network.fit(shifted(pixels), np.tile(labels, 5), batch_size=32, epochs=20, verbose=0)
    return network


def shifted(pixels: np.ndarray) -> np.ndarray:
    """The pictures as they are, and each moved by a pixel in every direction."""
    larger = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)))
    corners = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    return np.concatenate([larger[:, top : top + 8, left : left + 8] for top, left in corners])


def classify(file: bytes, pixels: np.ndarray) -> np.ndarray:
    """The digit that a model sees in each picture."""
    return np.argmax(run(file, pixels=pixels)["probabilities"], axis=1)


# ---- Diabetes ----


def make_diabetes(root: Path) -> None:
    """A regression and a classification in one, with two inputs and two outputs, in the units of the data."""
    data, progression = load_diabetes(return_X_y=True, scaled=False)
    data, progression = data.astype(np.float32), progression.astype(np.float32)
    train, held_out, targets, held_out_targets = train_test_split(
        data, progression, test_size=HELD_OUT, stratify=quartile(progression, progression), random_state=SEED
    )
    network = train_diabetes(train, targets, quartile(targets, targets))
    signature = [
        tf.TensorSpec([None, 4], tf.float32, name="person"),
        tf.TensorSpec([None, 6], tf.float32, name="serum"),
    ]
    with saved(network, lambda person, serum: network([person, serum], training=False), signature) as folder:
        file = convert(folder)

    answers = run(file, person=held_out[:, :4], serum=held_out[:, 4:])
    residuals = held_out_targets - answers["progression"][:, 0]
    r2 = 1 - np.sum(residuals**2) / np.sum((held_out_targets - np.mean(held_out_targets)) ** 2)
    right = np.mean(np.argmax(answers["quartiles"], axis=1) == quartile(held_out_targets, targets))
    error = np.mean(np.abs(residuals))
    print(
        f"diabetes: R2 {r2:.3f}, mean error {error:.1f}, {right:.1%} in the right quarter "
        f"of {len(held_out)} held-out people, {len(file)} bytes"
    )
    description = "Diabetes a year after the measurements: its progression (25 to 346), and the quarter it is in"
    extras = {"quartiles": {"labels": QUARTILES}}
    write_model(root, "diabetes", file, description, ["person", "serum"], ["progression", "quartiles"], extras)


def quartile(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """The quarter of `of` that each value lies in, 0 to 3."""
    return np.searchsorted(np.quantile(of, [0.25, 0.5, 0.75]), values, side="right")


def train_diabetes(data: np.ndarray, targets: np.ndarray, quartiles: np.ndarray) -> keras.Model:
    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    person, serum = keras.Input((4,), name="person"), keras.Input((6,), name="serum")
    both = layers.Concatenate()([person, serum])
    normal = layers.Normalization(mean=data.mean(axis=0), variance=data.var(axis=0))(both)
    hidden = layers.Dense(8, activation="tanh", kernel_regularizer="l2")(normal)
    kept = layers.Dropout(0.2)(hidden)
    # The straight way keeps what is beyond the data, NaN and infinities among it, from being squashed.
    straight, bent = (layers.Dense(1, kernel_regularizer="l2")(values) for values in [normal, kept])
    standard = layers.Add()([straight, bent])
    progression = layers.Rescaling(float(targets.std()), float(targets.mean()), name="progression")(standard)
    chances = layers.Dense(4, activation="softmax", name="quartiles", kernel_regularizer="l2")(kept)
    network = keras.Model([person, serum], {"progression": progression, "quartiles": chances})
    losses = {"progression": "mse", "quartiles": "sparse_categorical_crossentropy"}
    weights = {"progression": 1 / float(targets.var()), "quartiles": 1.0}
    network.compile(keras.optimizers.Adam(1e-2), losses, loss_weights=weights)
    answers = {"progression": targets[:, None], "quartiles": quartiles}
    network.fit([data[:, :4], data[:, 4:]], answers, batch_size=len(data), epochs=200, verbose=0)
    return network


# ---- To TensorFlow Lite ----


@contextmanager
def saved(network: keras.Model, call: Callable, signature: list[tf.TensorSpec]) -> Iterator[str]:
    """A network as a SavedModel, in a folder for as long as the block lasts."""
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint("serving_default", call, input_signature=signature)
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        yield folder


def convert(folder: str) -> bytes:
    return tf.lite.TFLiteConverter.from_saved_model(folder).convert()


def convert_to_int8(folder: str, examples: np.ndarray) -> bytes:
    """With inputs and outputs of int8 as well; the examples tell how large the numbers get."""
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ({"pixels": example[None]} for example in examples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return converter.convert()


def runner(file: bytes):
    return tf.lite.Interpreter(model_content=file, num_threads=1).get_signature_runner("serving_default")


def run(file: bytes, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """A model's outputs by name. Inputs are quantised where the model's are."""
    model = runner(file)
    details = model.get_input_details()
    return model(**{name: quantised(values, details[name]) for name, values in inputs.items()})


def quantised(values: np.ndarray, detail: dict) -> np.ndarray:
    if detail["dtype"] == np.float32:
        return values
    scale, zero = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(detail["dtype"])


# ---- Files ----


def write_model(
    root: Path, name: str, file: bytes, description: str, inputs: list[str], outputs: list[str], extras: dict
) -> None:
    if len(file) > MAX_BYTES:
        sys.exit(f"{name} has {len(file)} bytes, more than {MAX_BYTES}")
    model = runner(file)
    in_details, out_details = model.get_input_details(), model.get_output_details()
    manifest = {
        "format": "tflite",
        "file": "model.tflite",
        "size": len(file),
        "sha256": hashlib.sha256(file).hexdigest(),
        "description": description,
        "inputs": [tensor(name, in_details[name], extras) for name in inputs],
        "outputs": [tensor(name, out_details[name], extras) for name in outputs],
    }
    folder = root / "models" / name / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(file)
    # Last, so that a model that is only half there has none that fits.
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def tensor(name: str, detail: dict, extras: dict) -> dict:
    dtype = DTYPES[np.dtype(detail["dtype"]).name]
    shape = [int(size) for size in detail["shape_signature"]]
    return {"name": name, "tensor": detail["name"], "dtype": dtype, "shape": shape} | extras.get(name, {})


def write_held_out(path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    """A line for each picture, as whole numbers up to 16, row by row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(picture.ravel().tolist(), separators=(",", ":")) for picture in pixels]
    labels = json.dumps(labels.tolist(), separators=(",", ":"))
    images = ",\n".join(lines)
    path.write_text(f'{{"max":{DIGITS_MAX},"labels":{labels},\n"images":[\n{images}\n]}}\n')


# The kinds of pictures that there are of a digit: the file's name without the digit, and how it is made of an 8 x 8
# grey one.
KINDS = {
    ".png": lambda grey: grey,
    "-rgb.png": lambda grey: grey.convert("RGB"),
    "-rgba.png": lambda grey: grey.convert("RGBA"),
    "-palette.png": lambda grey: grey.convert("P"),
    "-16-bit.png": lambda grey: Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
    "-32x32.png": lambda grey: grey.resize((32, 32), Image.Resampling.NEAREST),
    "-rgb-32x32.png": lambda grey: grey.convert("RGB").resize((32, 32), Image.Resampling.NEAREST),
    ".jpg": lambda grey: grey,
    "-rgb-32x32.jpg": lambda grey: grey.convert("RGB").resize((32, 32), Image.Resampling.NEAREST),
}

# The kinds of which there is one of every digit, and the digit that the others show.
OF_EVERY_DIGIT = {".png"}
SHOWN = {"-rgb.png": 3, "-rgba.png": 4, "-palette.png": 9, "-16-bit.png": 6, "-32x32.png": 2, "-rgb-32x32.png": 8}
SHOWN |= {".jpg": 5, "-rgb-32x32.jpg": 1}


def write_images(folder: Path, files: Iterable[bytes], pixels: np.ndarray, labels: np.ndarray) -> None:
    """Pictures of held-out digits, each classified correctly by every model however it is made smaller."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, make in KINDS.items():
        for digit in range(10) if suffix in OF_EVERY_DIGIT else [SHOWN[suffix]]:
            picture = pixels[np.argmax(labels == digit)]
            path = folder / f"{digit}{suffix}"
            options = {"quality": 95} if suffix.endswith(".jpg") else {"optimize": True}
            make(Image.fromarray(in_bytes(picture)[:, :, 0])).save(path, **options)
            for file in files:
                check_image(path, digit, file)


def in_bytes(picture: np.ndarray) -> np.ndarray:
    """Pixels from 0 to 255."""
    return np.round(picture.astype(np.float32) * 255 / DIGITS_MAX).astype(np.uint8)


def check_image(path: Path, digit: int, file: bytes) -> None:
    picture = Image.open(path)
    # Pillow has no way from sixteen bits to eight that keeps the range.
    grey = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8)) if picture.mode == "I;16" else picture
    for filter in [Image.Resampling.NEAREST, Image.Resampling.BOX]:
        small = np.asarray(grey.convert("L").resize((8, 8), filter)).astype(np.float32) / 255
        seen = classify(file, small.reshape(1, 8, 8, 1))[0]
        if seen != digit:
            sys.exit(f"{path.name} shows a {digit}, and the model sees a {seen}")


if __name__ == "__main__":
    main()
