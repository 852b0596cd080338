"""The Open Inference Protocol as Triton's own client speaks it.

Usage: open_inference.py HOST:PORT MODELS
"""

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from common import BATCHES, Model, arguments, check, check_outputs, model, models

# How tensors go there and come back: as bytes, the client's default, or as JSON.
FORMS = [(True, True), (True, False), (False, True), (False, False)]


def main() -> None:
    address, folder = arguments()
    client = InferenceServerClient(address, concurrency=4)
    check_server(client)
    for served in models(folder):
        check_metadata(client, served)
        check_inference(client, served)
        check_compression(client, served)
    diabetes = model(folder, "diabetes")
    check_requested_outputs(client, diabetes)
    check_order_of_inputs(client, diabetes)
    check_what_is_not_finite(client, diabetes)
    check_identifiers(client, diabetes)
    check_many_at_once(client, diabetes)
    check_refusals(client, model(folder, "digits"))
    client.close()


# ---- What is asked ----


def to_send(inputs: dict[str, np.ndarray], datatypes: dict[str, str], binary: bool = True) -> list[InferInput]:
    tensors = []
    for name, values in inputs.items():
        tensor = InferInput(name, list(values.shape), datatypes[name])
        tensor.set_data_from_numpy(values, binary_data=binary)
        tensors.append(tensor)
    return tensors


def datatypes(served: Model) -> dict[str, str]:
    return {tensor["name"]: tensor["dtype"] for tensor in served.inputs}


def tensors(served: Model, inputs: dict[str, np.ndarray], binary: bool = True) -> list[InferInput]:
    return to_send(inputs, datatypes(served), binary)


def requested(served: Model, binary: bool) -> list[InferRequestedOutput]:
    return [InferRequestedOutput(tensor["name"], binary_data=binary) for tensor in served.outputs]


def outputs_of(result: InferResult) -> dict[str, np.ndarray]:
    names = [output["name"] for output in result.get_response()["outputs"]]
    return {name: result.as_numpy(name) for name in names}


# ---- What is checked ----


def check_server(client: InferenceServerClient) -> None:
    check(client.is_server_live(), "the server is live")
    check(client.is_server_ready(), "the server is ready")
    metadata = client.get_server_metadata()
    check(bool(metadata["name"]) and bool(metadata["version"]), "the server tells its name and version", metadata)
    check("binary_tensor_data" in metadata["extensions"], "the server tells the extension of binary tensors", metadata)


def check_metadata(client: InferenceServerClient, served: Model) -> None:
    check(client.is_model_ready(served.name), f"{served.name} is ready")
    check(client.is_model_ready(served.name, "1"), f"{served.name} is ready in version 1")
    check(not client.is_model_ready(served.name, "999"), f"{served.name} is not ready in version 999")
    for version in ["", "1"]:
        metadata = client.get_model_metadata(served.name, version)
        told = metadata["name"], "1" in metadata["versions"], bool(metadata["platform"])
        check(told == (served.name, True, True), f"{served.name}: name, versions and platform are told", metadata)
        for side, expected in [("inputs", served.inputs), ("outputs", served.outputs)]:
            expected = sorted((tensor["name"], tensor["dtype"], tensor["shape"]) for tensor in expected)
            seen = sorted((tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in metadata[side])
            check(seen == expected, f"{served.name}: the {side} are told as the manifest has them", seen)


def check_inference(client: InferenceServerClient, served: Model) -> None:
    for rows in BATCHES:
        inputs = served.seeded(rows)
        expected = served.run(inputs)
        result = client.infer(served.name, tensors(served, inputs))
        check_outputs(outputs_of(result), expected, f"{served.name}, {rows} rows, the client's defaults")
        for there, back in FORMS:
            asked = requested(served, back)
            result = client.infer(served.name, tensors(served, inputs, there), outputs=asked)
            form = f"{'bytes' if there else 'JSON'} there, {'bytes' if back else 'JSON'} back"
            check_outputs(outputs_of(result), expected, f"{served.name}, {rows} rows, {form}")
            check(all(is_binary(result, name) == back for name in expected), "… and came in the form asked for")


def is_binary(result: InferResult, name: str) -> bool:
    output = result.get_output(name)
    return "data" not in output and "binary_data_size" in output["parameters"]


def check_requested_outputs(client: InferenceServerClient, served: Model) -> None:
    inputs = served.seeded(3)
    expected = served.run(inputs)
    for name, values in expected.items():
        result = client.infer(served.name, tensors(served, inputs), outputs=[InferRequestedOutput(name)])
        check_outputs(outputs_of(result), {name: values}, f"only {name}, as asked for")
    names = list(expected)
    for order in [names, names[::-1]]:
        mixed = [InferRequestedOutput(name, binary_data=name == "quartiles") for name in order]
        result = client.infer(served.name, tensors(served, inputs), outputs=mixed)
        check_outputs(outputs_of(result), expected, f"{' and '.join(order)}, one as bytes and one as JSON")
        forms = is_binary(result, "quartiles"), is_binary(result, "progression")
        check(forms == (True, False), "… each in its form", result.get_response())


def check_order_of_inputs(client: InferenceServerClient, served: Model) -> None:
    inputs = served.seeded(4)
    backwards = dict(reversed(inputs.items()))
    for binary in [True, False]:
        result = client.infer(served.name, tensors(served, backwards, binary))
        check_outputs(outputs_of(result), served.run(inputs), "inputs in another order than the model's")
    mixed = [tensor for name, values in inputs.items() for tensor in tensors(served, {name: values}, name == "serum")]
    result = client.infer(served.name, mixed)
    check_outputs(outputs_of(result), served.run(inputs), "one input as bytes and one as JSON")


def check_what_is_not_finite(client: InferenceServerClient, served: Model) -> None:
    inputs = served.seeded(2)
    inputs["person"][0, 2] = np.nan
    result = client.infer(served.name, tensors(served, inputs))
    progression = result.as_numpy("progression")[:, 0]
    # Some kernels put the bound of a layer in the place of NaN.
    check(not np.isfinite(progression[0]), "bytes carry a NaN there, and back what becomes of it", progression)
    check(np.isfinite(progression[1]), "… and the other row has none of it", progression)
    try:
        asked = [InferRequestedOutput("progression", binary_data=False)]
        result = client.infer(served.name, tensors(served, inputs), outputs=asked)
        check(False, "what is not finite is not given as JSON", result.get_response())
    except InferenceServerException as refusal:
        check(refusal.status() == "400", "what is not finite and was asked for as JSON is refused with 400", refusal)


def check_identifiers(client: InferenceServerClient, served: Model) -> None:
    sent = tensors(served, served.seeded(1))
    for identifier in ["42", "a b/ü"]:
        answer = client.infer(served.name, sent, request_id=identifier).get_response()
        check(answer["id"] == identifier, "the request's id comes back", answer)
    answer = client.infer(served.name, sent).get_response()
    check(not answer.get("id"), "no id comes back where none was given", answer)
    answer = client.infer(served.name, sent, model_version="1").get_response()
    told = answer["model_name"], answer["model_version"]
    check(told == (served.name, "1"), "the answer tells the model and the version that was asked for", answer)


def check_many_at_once(client: InferenceServerClient, served: Model) -> None:
    asked = [served.seeded(rows, seed=100 + rows) for rows in range(1, 33)]
    waiting = [
        client.async_infer(served.name, tensors(served, inputs), request_id=str(index))
        for index, inputs in enumerate(asked)
    ]
    for index, (inputs, request) in enumerate(zip(asked, waiting, strict=True)):
        result = request.get_result()
        check(result.get_response()["id"] == str(index), f"request {index} of many at once has its own answer")
        check_outputs(outputs_of(result), served.run(inputs), f"request {index} of many at once")


def check_compression(client: InferenceServerClient, served: Model) -> None:
    inputs = served.seeded(8)
    expected = served.run(inputs)
    for algorithm in ["gzip", "deflate"]:
        for binary in [True, False]:
            result = client.infer(
                served.name, tensors(served, inputs, binary), request_compression_algorithm=algorithm
            )
            check_outputs(outputs_of(result), expected, f"{served.name}, sent by {algorithm}")
    for algorithm in ["gzip", "deflate"]:
        # The client unpacks what says that it is packed; a server need not pack.
        result = client.infer(served.name, tensors(served, inputs), response_compression_algorithm=algorithm)
        check_outputs(outputs_of(result), expected, f"{served.name}, {algorithm} accepted for the answer")
    result = client.infer(
        served.name,
        tensors(served, inputs),
        request_compression_algorithm="gzip",
        response_compression_algorithm="gzip",
    )
    check_outputs(outputs_of(result), expected, f"{served.name}, gzip both ways")


def check_refusals(client: InferenceServerClient, served: Model) -> None:
    inputs = served.seeded(2)
    pixels = inputs["pixels"]
    wrong = {
        "an unknown model": ("404", "nosuch", "", tensors(served, inputs)),
        "an unknown version": ("404", served.name, "999", tensors(served, inputs)),
        "an unknown input": ("400", served.name, "", to_send({"pixel": pixels}, {"pixel": "FP32"})),
        "another datatype": ("400", served.name, "", to_send({"pixels": pixels.astype(np.int32)}, {"pixels": "INT32"})),
        "another rank": ("400", served.name, "", to_send({"pixels": pixels[:, :, :, 0]}, {"pixels": "FP32"})),
        "another shape": ("400", served.name, "", to_send({"pixels": pixels[:, :7]}, {"pixels": "FP32"})),
    }
    for what, (status, name, version, sent) in wrong.items():
        try:
            result = client.infer(name, sent, model_version=version)
            check(False, f"{what} is refused", result.get_response())
        except InferenceServerException as refusal:
            told = refusal.status(), bool(refusal.message())
            check(told == (status, True), f"{what} is refused with {status} and a message", refusal)
    for name in ["probability", ""]:
        try:
            result = client.infer(served.name, tensors(served, inputs), outputs=[InferRequestedOutput(name)])
            check(False, "an unknown output is refused", result.get_response())
        except InferenceServerException as refusal:
            check(refusal.status() == "400", "an unknown output is refused with 400", refusal)
    check_outputs(outputs_of(client.infer(served.name, tensors(served, inputs))), served.run(inputs), "afterwards")


if __name__ == "__main__":
    main()
