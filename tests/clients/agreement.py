"""Every model's answers, by both protocols and in each of their forms, are those of TensorFlow Lite in Python.

Usage: agreement.py HOST:PORT MODELS

Whole numbers have to be the same. Floats may differ by 1e-5, or by 1e-5 of their size where that is more than 1; the
progression of `diabetes` is a sum of terms in the hundreds, so that its size is 100 at least. The forms agree with each
other to the bit.
"""

import numpy as np
import requests
from tritonclient.http import InferenceServerClient

from common import Model, agrees, arguments, check, models, size
from open_inference import FORMS, outputs_of, requested, tensors
from serving import from_columns, from_rows

# Rows of each request: one is the common case, primes are no multiple of any kernel's width.
ROWS = [1, 1, 1, 2, 3, 5, 7, 13, 31, 32]

# How often that is repeated, with other inputs.
ROUNDS = 10


def main() -> None:
    address, folder = arguments()
    client, session = InferenceServerClient(address), requests.Session()
    for served in models(folder):
        rows, worst, exact = 0, 0.0, True
        for number in range(ROUNDS * len(ROWS)):
            inputs = served.seeded(ROWS[number % len(ROWS)], seed=1000 + number)
            expected = served.run(inputs)
            answers = ask_all(address, client, session, served, inputs)
            first = next(iter(answers.values()))
            for form, answer in answers.items():
                compare(served.name, form, answer, expected, first)
            rows += len(next(iter(inputs.values())))
            worst = max(worst, farthest(first, expected))
            exact = exact and all(np.array_equal(first[name], expected[name]) for name in expected)
        said = "all the same" if exact else f"the farthest by {worst:.1e}"
        check(True, f"{served.name}: {rows} rows in {len(answers)} forms are TensorFlow Lite's, {said}")
    client.close()


def ask_all(
    address: str, client: InferenceServerClient, session: requests.Session, served: Model, inputs: dict[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """The answers of one request in every form."""
    answers = {}
    for there, back in FORMS:
        result = client.infer(served.name, tensors(served, inputs, there), outputs=requested(served, back))
        answers[f"v2, {'bytes' if there else 'JSON'} to {'bytes' if back else 'JSON'}"] = outputs_of(result)
    columns = {name: values.tolist() for name, values in inputs.items()}
    count = len(next(iter(columns.values())))
    rows = [{name: values[row] for name, values in columns.items()} for row in range(count)]
    answers["v1 by rows"] = from_rows(served, predict(address, session, served, "instances", rows)["predictions"])
    answers["v1 by columns"] = from_columns(served, predict(address, session, served, "inputs", columns)["outputs"])
    return answers


def predict(address: str, session: requests.Session, served: Model, form: str, values: object) -> dict:
    response = session.post(f"http://{address}/v1/models/{served.name}:predict", json={form: values}, timeout=30)
    if response.status_code != 200:
        check(False, f"{served.name} answers by {form}", response.text)
    return response.json()


def compare(
    name: str,
    form: str,
    answer: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
    first: dict[str, np.ndarray],
) -> None:
    for output, values in expected.items():
        if not agrees(output, answer[output], values):
            check(False, f"{name}, {form}: {output} is TensorFlow Lite's", (answer[output], values))
        if answer[output].tobytes() != first[output].tobytes():
            check(False, f"{name}, {form}: {output} is that of the other forms", (answer[output], first[output]))


def farthest(answer: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """The largest distance, as it is judged."""
    distances = {name: np.abs(answer[name].astype(np.float64) - values) for name, values in expected.items()}
    return float(max((distance / size(name, expected[name])).max() for name, distance in distances.items()))


if __name__ == "__main__":
    main()
