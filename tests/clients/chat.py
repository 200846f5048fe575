"""The tutorial's chat with the stock python-socketio client, on both transports and over two edges.

Usage: chat.py http://edge-a http://edge-b
"""

import queue
import sys

import socketio

PATIENCE_SECONDS = 15
WELCOME = "您已进入聊天室!"
NAME_FIRST = "发送消息失败:请先设置用户名。"

results = {"passed": 0, "failed": 0}


def check(name, condition, detail=""):
    results["passed" if condition else "failed"] += 1
    if not condition:
        print(f"FAILED {name}: {detail}")


class Person:
    """A connected client and the lines that it has received."""

    def __init__(self, base, transport, room):
        self.lines = queue.Queue()
        self.client = socketio.Client(reconnection=False)
        self.client.on("message", lambda *args: self.lines.put(args[0]))
        self.client.connect(base, transports=[transport], auth={"room": room}, wait_timeout=PATIENCE_SECONDS)

    def call(self, event, *data):
        arguments = data if len(data) > 1 else (data[0] if data else None)
        return self.client.call(event, arguments, timeout=PATIENCE_SECONDS)

    def hears(self, line):
        """Waits for a line; those before it are passed over."""
        seen = []
        try:
            while True:
                seen.append(self.lines.get(timeout=PATIENCE_SECONDS))
                if seen[-1] == line:
                    check(line, True)
                    return
        except queue.Empty:
            check(f"hears {line}", False, f"heard {seen}")

    def leave(self):
        self.client.disconnect()


def scenario(edges, transport):
    room = f"python-{transport}"
    ada, bo = (Person(edge, transport, room) for edge in edges)
    for person, name in ((ada, "ada"), (bo, "bo")):
        person.hears(WELCOME)
        person.client.emit("message", "too early")
        person.hears(NAME_FIRST)
        ack = person.call("set_username", name)
        check("set_username is acknowledged", ack == {"ok": True, "username": name}, ack)
        person.hears(f"您的用户名已设置为:{name}")
    ack = ada.call("message", "你好")
    check("a message is acknowledged", ack["ok"] and ack["id"] and ack["position"], ack)
    for person in (ada, bo):
        person.hears("ada:你好")
    ack = ada.call("message", "")
    check("an empty message is refused", ack["ok"] is False and ack["code"] and ack["message"], ack)
    joined = bo.call("join", f"{room}-other")
    check("join is acknowledged", joined["ok"] and joined["room"] == f"{room}-other", joined)
    ada.leave()
    bo.hears("ada 已离开聊天室。")
    bo.leave()


def main():
    edges = sys.argv[1:]
    if len(edges) != 2:
        sys.exit("usage: chat.py http://edge-a http://edge-b")
    for transport in ("websocket", "polling"):
        scenario(edges, transport)
    print(f"{results['passed']} passed, {results['failed']} failed")
    sys.exit(1 if results["failed"] else 0)


if __name__ == "__main__":
    main()
