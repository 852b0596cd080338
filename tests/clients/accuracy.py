"""How many of the held-out digits the service classifies correctly, by both protocols.

Usage: accuracy.py HOST:PORT MODELS

Fails at 97 % and less.
"""

import json
from pathlib import Path

import numpy as np
import requests
from tritonclient.http import InferenceServerClient

from common import Model, arguments, check, model
from open_inference import tensors
from serving import from_rows

HELD_OUT = Path(__file__).parent.parent / "data/digits-held-out.json"

# What a model has to be better than.
ENOUGH = 0.97

# How many digits a request has.
BATCH = 30


def main() -> None:
    address, folder = arguments()
    held_out = json.loads(HELD_OUT.read_text())
    pixels = np.array(held_out["images"], np.float32).reshape(-1, 8, 8, 1) / held_out["max"]
    labels = np.array(held_out["labels"])
    client = InferenceServerClient(address)
    for name in ["digits", "digits-int8"]:
        served = model(folder, name)
        batches = np.split(served.quantised("pixels", pixels), range(BATCH, len(pixels), BATCH))
        by_rows = np.concatenate([predict(address, served, batch) for batch in batches])
        check_accuracy(f"{name} by :predict", by_rows, labels)
        by_bytes = np.concatenate([infer(client, served, batch) for batch in batches])
        check_accuracy(f"{name} by /infer", by_bytes, labels)
    client.close()


def predict(address: str, served: Model, batch: np.ndarray) -> np.ndarray:
    url = f"http://{address}/v1/models/{served.name}:predict"
    response = requests.post(url, json={"instances": batch.tolist()}, timeout=30)
    if response.status_code != 200:
        check(False, f"{served.name} answers", response.text)
    return from_rows(served, response.json()["predictions"])["probabilities"]


def infer(client: InferenceServerClient, served: Model, batch: np.ndarray) -> np.ndarray:
    return client.infer(served.name, tensors(served, {"pixels": batch})).as_numpy("probabilities")


def check_accuracy(what: str, probabilities: np.ndarray, labels: np.ndarray) -> None:
    right = np.argmax(probabilities, axis=1) == labels
    accuracy = np.mean(right)
    check(accuracy > ENOUGH, f"{what}: {np.sum(right)} of {len(labels)} held-out digits, {accuracy:.2%}")


if __name__ == "__main__":
    main()
