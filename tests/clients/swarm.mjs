// Stock socket.io-clients, unchanged, for the swarm of `just chaos`. Each WebSocket connection to this
// program steers one of them in Socket.IO's own packets, so that the swarm need not know the difference:
// `40{auth}` connects it (again: it keeps its pid and offset), `42id[event,...]` emits, and what it hears
// comes back. `41` breaks its connection. The steering connection ends with the client's own. Transports
// differ by number.
// Usage: node swarm.mjs http://server[,http://server...] [transport]     (prints its port)

import { io } from "socket.io-client";
import { WebSocketServer } from "ws";

const [list, only] = process.argv.slice(2);
if (!list) throw new Error("usage: node swarm.mjs http://server[,http://server...] [transport]");
const URLS = list.split(",");
const TRANSPORTS = only ? [[only]] : [["websocket"], ["polling"], ["polling", "websocket"]];
const sockets = new Map();
let turn = 0;

/** The client of this number, not connected. */
async function stock(number, auth) {
  const url = URLS[(turn += 1) % URLS.length];
  const transports = TRANSPORTS[number % TRANSPORTS.length];
  const options = { transports, auth, forceNew: true, reconnection: false, autoConnect: false };
  const socket = sockets.get(number) ?? io(url, options);
  sockets.set(number, socket);
  socket.removeAllListeners();
  if (socket.connected) {
    const gone = new Promise((resolve) => socket.once("disconnect", resolve));
    // A broken transport, not a goodbye: the session can be continued.
    socket.io.engine.close();
    await gone;
  }
  // With several servers it comes back at another one.
  socket.io.uri = url;
  return socket;
}

function steer(line, number) {
  let socket;
  const say = (packet, fields) => line.send(packet + JSON.stringify(fields));
  line.on("message", async (data) => {
    const [, type, id, json] = /^(4[0-2]|3)(\d*)(.*)$/s.exec(String(data));
    if (type === "40") {
      socket = await stock(number, JSON.parse(json));
      socket.on("connect", () => say("40", { sid: socket.id, recovered: socket.recovered }));
      socket.on("message", (fields) => say("42", ["message", fields]));
      socket.on("disconnect", (reason) => line.close(4000, reason.slice(0, 100)));
      socket.on("connect_error", (error) => line.close(4001, error.message.slice(0, 100)));
      socket.io.removeAllListeners("ping");
      socket.io.on("ping", () => line.send("2"));
      socket.connect();
    } else if (type === "41") {
      // The swarm gives this connection up: what the client has heard by then is still told.
      if (socket?.connected) socket.io.engine.close();
      else line.close(4002, "not connected");
    } else if (type === "42" && socket?.connected) {
      socket.emit(...JSON.parse(json), (answer) => say(`43${id}`, [answer]));
    }
  });
  line.on("close", () => {
    socket?.removeAllListeners();
    socket?.io.engine?.close();
  });
  line.send("0{}");
}

const server = new WebSocketServer({ host: "127.0.0.1", port: 0 }, () => {
  console.log(`listening on 127.0.0.1:${server.address().port}`);
});
server.on("connection", (line, request) => steer(line, Number(request.url.slice(1))));
