"""A backend in Python: the session service by gRPC with classes generated from proto/, and Plaza's own
protocol in protobuf on a WebSocket.

Usage: backend.py <proto folder> <session host:port> http://edge
"""

import importlib.resources
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc
import websocket

PATIENCE_SECONDS = 15

results = {"passed": 0, "failed": 0}


def check(name, condition, detail=""):
    results["passed" if condition else "failed"] += 1
    if not condition:
        print(f"FAILED {name}: {detail}")


def generate(proto):
    """Generates Python classes from the .proto files and makes them importable."""
    out = tempfile.mkdtemp()
    files = [str(file) for file in Path(proto).glob("plaza/**/*.proto")]
    include = importlib.resources.files("grpc_tools") / "_proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}", f"-I{include}"]
    subprocess.run([*command, f"--python_out={out}", f"--grpc_python_out={out}", *files], check=True)
    sys.path.insert(0, out)


class Client:
    """Speaks plaza.v1.proto."""

    def __init__(self, pb, edge):
        self.pb = pb
        self.last_id = 0
        url = edge.replace("http", "ws") + "/ws"
        self.ws = websocket.create_connection(url, subprotocols=["plaza.v1.proto"], timeout=PATIENCE_SECONDS)

    def receive(self, wanted):
        """The next frame for which `wanted` holds; others are passed over."""
        while True:
            opcode, data = self.ws.recv_data()
            if opcode != websocket.ABNF.OPCODE_BINARY:
                raise RuntimeError(f"opcode {opcode}, {data!r}")
            frame = self.pb.ServerFrame.FromString(data)
            if wanted(frame):
                return frame

    def ask(self, **body):
        self.last_id += 1
        frame = self.pb.ClientFrame(id=self.last_id, **body)
        self.ws.send_binary(frame.SerializeToString())
        return self.receive(lambda answer: answer.id == self.last_id)


def status_of(call, request):
    try:
        call(request, timeout=PATIENCE_SECONDS)
        return grpc.StatusCode.OK
    except grpc.RpcError as error:
        return error.code()


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: backend.py <proto folder> <session host:port> http://edge")
    proto, session_addr, edge = sys.argv[1:]
    generate(proto)
    from plaza.client.v1 import client_pb2 as client_pb
    from plaza.session.v1 import session_pb2 as session_pb
    from plaza.session.v1 import session_pb2_grpc as session_grpc

    channel = grpc.insecure_channel(session_addr)
    health = channel.unary_unary("/grpc.health.v1.Health/Check")
    check("the service says that it serves", health(b"", timeout=PATIENCE_SECONDS) == b"\x08\x01")
    sessions = session_grpc.SessionServiceStub(channel)

    client = Client(client_pb, edge)
    welcome = client.ask(hello=client_pb.Hello()).welcome
    check("hello is welcomed", len(welcome.session_id) == 20, welcome)
    named = client.ask(set_username=client_pb.SetUsername(username="ada"))
    check("the name is set", named.ok.username == "ada", named)
    joined = client.ask(join=client_pb.Join(room="backend")).joined
    check("the room is joined", joined.room == "backend" and joined.position, joined)
    published = client.ask(publish=client_pb.Publish(room="backend", text="你好"))
    check("a text is published", published.published.position != "", published)

    found = sessions.GetSession(session_pb.GetSessionRequest(session_id=welcome.session_id), timeout=PATIENCE_SECONDS)
    check("GetSession", (found.username, found.protocol) == ("ada", "plaza-proto") and "backend" in found.rooms, found)
    listed = sessions.ListSessions(session_pb.ListSessionsRequest(username="ADA"), timeout=PATIENCE_SECONDS)
    check("ListSessions by name", [s.session_id for s in listed.sessions] == [welcome.session_id], listed)
    unknown = session_pb.GetSessionRequest(session_id="A" * 20)
    check("an unknown session is NOT_FOUND", status_of(sessions.GetSession, unknown) == grpc.StatusCode.NOT_FOUND)
    bad = session_pb.SetUsernameRequest(session_id=welcome.session_id, username="x" * 33)
    check("a bad name is INVALID_ARGUMENT", status_of(sessions.SetUsername, bad) == grpc.StatusCode.INVALID_ARGUMENT)
    good = session_pb.SetUsernameRequest(session_id=welcome.session_id, username="bo")
    check("a name is set from outside", sessions.SetUsername(good, timeout=PATIENCE_SECONDS).username == "bo")

    close = session_pb.CloseSessionRequest(session_id=welcome.session_id, reason="closed by the test")
    check("CloseSession", status_of(sessions.CloseSession, close) == grpc.StatusCode.OK)
    try:
        client.receive(lambda frame: False)
    except (RuntimeError, websocket.WebSocketException, OSError) as error:
        ended = not isinstance(error, websocket.WebSocketTimeoutException)
        check("the closed client is disconnected", ended, error)

    print(f"{results['passed']} passed, {results['failed']} failed")
    sys.exit(1 if results["failed"] else 0)


if __name__ == "__main__":
    main()
