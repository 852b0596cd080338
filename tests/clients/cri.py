"""Passes calls of the Container Runtime Interface on to a container engine: each line of the input is a method's name and
a request as JSON, each line of the output the response, or what the engine refused with, under "error"."""

import json
import sys
from pathlib import Path

import grpc
from google.protobuf import json_format

# Seconds that a call may take: a container's end by its grace period is among them.
PATIENCE = 120


def load() -> tuple:
    """The messages and the service, as cri.proto, beside this script, describes them."""
    sys.path.insert(0, str(Path(__file__).parent))
    return grpc.protos_and_services("cri.proto")


def call(stub: object, method: object, text: str) -> dict:
    request = json_format.Parse(text, method.input_type._concrete_class())
    try:
        response = getattr(stub, method.name)(request, timeout=PATIENCE)
    except grpc.RpcError as error:
        return {"error": f"{error.code().name}: {error.details()}"}
    return json_format.MessageToDict(response, always_print_fields_with_no_presence=True)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} SOCKET")
    messages, services = load()
    methods = messages.DESCRIPTOR.services_by_name["RuntimeService"].methods_by_name
    # The name of a socket is no name of a host.
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(f"unix:{sys.argv[1]}", options) as channel:
        stub = services.RuntimeServiceStub(channel)
        for line in sys.stdin:
            name, text = line.split(" ", 1)
            print(json.dumps(call(stub, methods[name], text)), flush=True)


main()
