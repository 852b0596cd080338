"""TensorFlow Serving's REST interface as its users speak it: plain requests with JSON.

Usage: serving.py HOST:PORT MODELS
"""

import json
import math

import numpy as np
import requests

from common import BATCHES, Model, arguments, check, check_outputs, model, models

DTYPES = {"FP32": "DT_FLOAT", "INT8": "DT_INT8"}

# What bodies come as: of `curl -d`, of most libraries, of those that say the charset, of none.
CONTENT_TYPES = ["application/x-www-form-urlencoded", "application/json", "application/json; charset=utf-8", None]

# Tokens that JSON does not have, and TensorFlow Serving takes.
TOKENS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

# Others that look like them, and text that is none of a number.
NO_TOKENS = ["nan", "NAN", "Inf", "inf", "-inf", "infinity", "+Infinity", "-NaN", '"NaN"', '"Infinity"', "1.", "true"]


class Service:
    """The interface at an address, below /v1/models."""

    def __init__(self, address: str):
        self.base = f"http://{address}/v1/models"
        self.session = requests.Session()

    def get(self, path: str) -> requests.Response:
        return self.session.get(self.base + path, timeout=30)

    def post(self, path: str, body: object, content_type: str | None = "application/json") -> requests.Response:
        """Sends text as it is, and everything else as JSON."""
        text = body if isinstance(body, str) else json.dumps(body)
        headers = {"Content-Type": content_type} if content_type else {}
        return self.session.post(self.base + path, data=text.encode(), headers=headers, timeout=30)

    def predict(self, name: str, body: object) -> dict:
        response = self.post(f"/{name}:predict", body)
        check(response.status_code == 200, f"{name}: {shape_of(body)} is answered with 200", response.text)
        kind = response.headers.get("Content-Type")
        check(kind == "application/json", "… as JSON", kind)
        return response.json()


def shape_of(body: object) -> str:
    return "/".join(body) if isinstance(body, dict) else "text"


def main() -> None:
    address, folder = arguments()
    service = Service(address)
    check_list(service, folder)
    for served in models(folder):
        check_status(service, served)
        check_metadata(service, served)
        for rows in BATCHES:
            check_predictions(service, served, rows)
    check_single_input(service, model(folder, "digits"))
    check_ways_to_ask(service, model(folder, "digits"))
    check_integers(service, model(folder, "digits-int8"))
    check_numbers(service, model(folder, "diabetes"))
    check_tokens(service, model(folder, "diabetes"))
    check_refusals(service, model(folder, "digits"))


# ---- What the service tells ----


def check_list(service: Service, folder) -> None:
    told = {entry["name"]: entry["versions"] for entry in service.get("").json()["models"]}
    for served in models(folder):
        check("1" in told.get(served.name, []), f"{served.name} is in the list", told)


def check_status(service: Service, served: Model) -> None:
    fine = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ["", "/versions/1"]:
        status = service.get(f"/{served.name}{path}").json()
        check(status == {"model_version_status": [fine]}, f"{served.name}{path} is available", status)


def check_metadata(service: Service, served: Model) -> None:
    for path in ["/metadata", "/versions/1/metadata"]:
        metadata = service.get(f"/{served.name}{path}").json()
        spec = metadata["model_spec"]
        told = spec["name"], spec["version"]
        check(told == (served.name, "1"), f"{served.name}{path} tells name and version", spec)
        signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
        check(signature["method_name"] == "tensorflow/serving/predict", "… the method", signature)
        for side, expected in [("inputs", served.inputs), ("outputs", served.outputs)]:
            seen = {name: (tensor["dtype"], dimensions(tensor)) for name, tensor in signature[side].items()}
            expected = {tensor["name"]: (DTYPES[tensor["dtype"]], tensor["shape"]) for tensor in expected}
            check(seen == expected, f"… and the {side} as the manifest has them", seen)


def dimensions(tensor: dict) -> list[int]:
    return [int(dimension["size"]) for dimension in tensor["tensor_shape"]["dim"]]


# ---- Predictions ----


def check_predictions(service: Service, served: Model, rows: int) -> None:
    """Every form of the same request has the same answer."""
    inputs = served.seeded(rows)
    expected = served.run(inputs)
    columns = {name: values.tolist() for name, values in inputs.items()}
    named_rows = [{name: values[row] for name, values in columns.items()} for row in range(rows)]
    what = f"{served.name}, {rows} rows"

    by_rows = service.predict(served.name, {"instances": named_rows})["predictions"]
    check_outputs(from_rows(served, by_rows), expected, f"{what}, by rows")
    by_columns = service.predict(served.name, {"inputs": columns})["outputs"]
    check_outputs(from_columns(served, by_columns), expected, f"{what}, by columns")
    named = service.predict(served.name, {"signature_name": "serving_default", "instances": named_rows})
    check(named["predictions"] == by_rows, f"{what}: the signature's name changes nothing", named)
    path = f"/{served.name}/versions/1:predict"
    versioned = service.post(path, {"instances": named_rows}).json()
    check(versioned == {"predictions": by_rows}, f"{what}: nor does the version's number", versioned)


def from_rows(served: Model, predictions: list) -> dict[str, np.ndarray]:
    """A single output comes without its name."""
    dtypes = {tensor["name"]: numpy_type(tensor) for tensor in served.outputs}
    if len(dtypes) == 1:
        return {name: np.array(predictions, dtype) for name, dtype in dtypes.items()}
    return {name: np.array([row[name] for row in predictions], dtype) for name, dtype in dtypes.items()}


def from_columns(served: Model, outputs: object) -> dict[str, np.ndarray]:
    dtypes = {tensor["name"]: numpy_type(tensor) for tensor in served.outputs}
    if len(dtypes) == 1:
        return {name: np.array(outputs, dtype) for name, dtype in dtypes.items()}
    return {name: np.array(outputs[name], dtype) for name, dtype in dtypes.items()}


def numpy_type(tensor: dict) -> type:
    return {"FP32": np.float32, "INT8": np.int8}[tensor["dtype"]]


def check_single_input(service: Service, served: Model) -> None:
    """An input that is the only one needs no name."""
    inputs = served.seeded(3)
    expected = served.run(inputs)
    pixels = inputs["pixels"].tolist()
    by_rows = service.predict(served.name, {"instances": pixels})["predictions"]
    check_outputs(from_rows(served, by_rows), expected, "rows without the input's name")
    by_columns = service.predict(served.name, {"inputs": pixels})["outputs"]
    check_outputs(from_columns(served, by_columns), expected, "columns without the input's name")


def check_ways_to_ask(service: Service, served: Model) -> None:
    body = {"instances": served.seeded(1)["pixels"].tolist()}
    expected = service.predict(served.name, body)
    for kind in CONTENT_TYPES:
        response = service.post(f"/{served.name}:predict", body, kind)
        told = response.status_code, response.json()
        check(told == (200, expected), f"a body that comes as {kind} is taken for JSON", told)
    spread = json.dumps(body, indent=4)
    check(service.predict(served.name, spread) == expected, "white space changes nothing")


def check_integers(service: Service, served: Model) -> None:
    pixels = served.seeded(2)["pixels"].tolist()
    answer = service.predict(served.name, {"instances": pixels})["predictions"]
    whole = all(isinstance(number, int) for row in answer for number in row)
    check(whole, "whole numbers come back as whole numbers", answer)
    for wrong in ["1.5", "128", "-129", "1e3", "NaN", '"1"', "true"]:
        pixels[1][0][0] = ["@"]
        response = service.post(f"/{served.name}:predict", replaced({"instances": pixels}, wrong))
        check_refused(response, f"{wrong} for an INT8")


def check_numbers(service: Service, served: Model) -> None:
    """However a number is written, it is the same one."""
    person, serum = (values[0].tolist() for values in served.seeded(1).values())
    for text, value in {"0.96": 0.96, "1e-7": 1e-7, "1E5": 1e5, "59": 59, "-0.0": 0.0, "1.5e+2": 150}.items():
        answer = service.predict(served.name, replaced(one_person(["@", *person[1:]], serum), text))
        inputs = {"person": np.array([[value, *person[1:]]], np.float32), "serum": np.array([serum], np.float32)}
        seen = from_rows(served, answer["predictions"])
        check_outputs(seen, served.run(inputs), f"{text} in a request")


def check_tokens(service: Service, served: Model) -> None:
    person, serum = (values[0].tolist() for values in served.seeded(1).values())
    body = one_person([*person[:2], "@", person[3]], serum)
    for token, value in TOKENS.items():
        # Python's parser takes the same tokens.
        progression = service.predict(served.name, replaced(body, token))["predictions"][0]["progression"][0]
        # TensorFlow Lite has kernels that keep infinities, and others that stop at the largest number; and some that
        # put the bound of a layer in the place of NaN.
        largest = math.copysign(float(np.finfo(np.float32).max), value)
        same = progression in (value, largest) or (math.isnan(value) and not math.isfinite(progression))
        check(same, f"{token} is taken, and told as what it becomes", progression)
    for text in NO_TOKENS:
        check_refused(service.post(f"/{served.name}:predict", replaced(body, text)), f"{text} for a float")


def one_person(person: list, serum: list) -> dict:
    return {"instances": [{"person": person, "serum": serum}]}


def replaced(body: dict, text: str) -> str:
    """JSON with a text in place of the "@", which need not be JSON."""
    return json.dumps(body).replace('"@"', text)


# ---- Refusals ----


def check_refusals(service: Service, served: Model) -> None:
    pixels = served.seeded(2)["pixels"].tolist()
    short = [row[:7] for row in pixels]
    ragged = [pixels[0], short[1]]
    predict = f"/{served.name}:predict"
    for what, body in {
        "nothing": "",
        "no JSON": "{",
        "no object": [1],
        "neither instances nor inputs": {},
        "both instances and inputs": {"instances": pixels, "inputs": pixels},
        "no instances": {"instances": []},
        "instances that are no list": {"instances": 1},
        "another shape": {"instances": short},
        "a ragged array": {"instances": ragged},
        "another rank": {"instances": [1.0, 2.0]},
        "text for numbers": {"instances": [[[["a"]] * 8] * 8]},
        "an unknown input": {"instances": [{"pixel": pixels[0]}]},
        "an input too many": {"instances": [{"pixels": pixels[0], "more": 1}]},
        "another signature": {"signature_name": "training", "instances": pixels},
    }.items():
        check_refused(service.post(predict, body), what)
    for path in ["/nosuch", "/nosuch/metadata", f"/{served.name}/versions/999"]:
        check_refused(service.get(path), f"GET {path}", 404)
    for path in ["/nosuch:predict", f"/{served.name}/versions/999:predict"]:
        check_refused(service.post(path, {"instances": pixels}), f"POST {path}", 404)
    service.predict(served.name, {"instances": pixels})


def check_refused(response: requests.Response, what: str, status: int = 400) -> None:
    told = response.status_code, response.text
    check(response.status_code == status, f"{what} is refused with {status}", told)
    check(list(response.json()) == ["error"] and bool(response.json()["error"]), "… and an error that says why", told)


if __name__ == "__main__":
    main()
