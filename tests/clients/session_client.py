"""The session service as a generic gRPC tool sees it: health, reflection and the public API, with classes
that the service's own reflection describes.

Usage: session_client.py <session host:port>
"""

import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

TIMEOUT_SECONDS = 15
SERVICE = "plaza.session.v1.SessionService"

results = {"passed": 0, "failed": 0}


def check(name, condition, detail=""):
    results["passed" if condition else "failed"] += 1
    if not condition:
        print(f"FAILED {name}: {detail}")


def varint_fields(data):
    """The length-delimited fields of a protobuf message, as (number, bytes)."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 2:
            size = varint()
            yield key >> 3, data[at : at + size]
            at += size
        else:
            varint()


def described(channel):
    """A pool with the files of the service and all that they import, from reflection v1."""
    call = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    by_filename, by_symbol, files_found = 3, 4, 4
    pool = descriptor_pool.DescriptorPool()
    added = set()

    def add(field, text):
        request = bytes([field << 3 | 2, len(text)]) + text.encode()
        for answer in call(iter([request]), timeout=TIMEOUT_SECONDS):
            for number, body in varint_fields(answer):
                if number != files_found:
                    continue
                for _, encoded in varint_fields(body):
                    file = descriptor_pb2.FileDescriptorProto.FromString(encoded)
                    for dependency in file.dependency:
                        if dependency not in added:
                            add(by_filename, dependency)
                    if file.name not in added:
                        added.add(file.name)
                        pool.AddSerializedFile(encoded)

    add(by_symbol, SERVICE)
    return pool


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: session_client.py <session host:port>")
    channel = grpc.insecure_channel(sys.argv[1])
    health = channel.unary_unary("/grpc.health.v1.Health/Check")
    for name in ["", SERVICE, "plaza.session.v1.EdgeLeaseService"]:
        request = bytes([1 << 3 | 2, len(name)]) + name.encode() if name else b""
        check(f"{name or 'the process'} serves", health(request, timeout=TIMEOUT_SECONDS) == b"\x08\x01")

    pool = described(channel)
    service = pool.FindServiceByName(SERVICE)
    check("reflection names every method", len(service.methods) == 6, [m.name for m in service.methods])

    def call(method, **fields):
        described_method = service.FindMethodByName(method)
        request = message_factory.GetMessageClass(described_method.input_type)(**fields)
        response = message_factory.GetMessageClass(described_method.output_type)
        stub = channel.unary_unary(f"/{SERVICE}/{method}", response_deserializer=response.FromString)
        return stub(request.SerializeToString(), timeout=TIMEOUT_SECONDS)

    def refused(method, **fields):
        try:
            return grpc.StatusCode.OK, str(call(method, **fields))
        except grpc.RpcError as error:
            return error.code(), error.details()

    check("ListSessions of nobody is empty", len(call("ListSessions").sessions) == 0)
    check("CountMembers of an empty room is 0", call("CountMembers", room="lobby").count == 0)
    check("ListMembers of an empty room is empty", len(call("ListMembers", room="lobby").members) == 0)
    for method, fields, code, begins in [
        ("GetSession", {"session_id": "A" * 20}, grpc.StatusCode.NOT_FOUND, "not_found: "),
        ("GetSession", {"session_id": "A"}, grpc.StatusCode.INVALID_ARGUMENT, "bad_request: session_id has 1 bytes"),
        ("CloseSession", {"session_id": "A" * 20}, grpc.StatusCode.NOT_FOUND, "not_found: "),
        ("SetUsername", {"session_id": "A" * 20, "username": "ada"}, grpc.StatusCode.NOT_FOUND, "not_found: "),
        ("SetUsername", {"session_id": "A" * 20, "username": ""}, grpc.StatusCode.INVALID_ARGUMENT, "bad_username: "),
        ("ListMembers", {"room": "a b"}, grpc.StatusCode.INVALID_ARGUMENT, "bad_room: "),
        ("ListSessions", {"page_size": 501}, grpc.StatusCode.INVALID_ARGUMENT, "bad_request: page_size is 501"),
    ]:
        got, details = refused(method, **fields)
        check(f"{method} with {fields}", got == code and details.startswith(begins), (got, details))

    print(f"{results['passed']} passed, {results['failed']} failed")
    sys.exit(1 if results["failed"] else 0)


if __name__ == "__main__":
    main()
