// The reference implementation set up as the wire profile: what our raw tests expect is checked
// against it, so that they test the protocol and not our reading of it.
// Usage: node reference.mjs [port]   (0 or nothing: the kernel's choice). Prints its address.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { Server as SocketServer } from "socket.io";
import { WebSocketServer } from "ws";

const require = createRequire(import.meta.url);
const { Server: EngineServer } = createRequire(require.resolve("socket.io"))("engine.io");

const engineSettings = { pingInterval: 300, pingTimeout: 200, maxHttpBufferSize: 1_000_000, upgradeTimeout: 10_000 };
const http = createServer((_request, response) => response.writeHead(404).end());

const engine = new EngineServer(engineSettings);
engine.on("connection", (socket) => socket.on("message", (message) => socket.send(message)));
engine.attach(http, { path: "/engine.io/", destroyUpgrade: false });

const io = new SocketServer(http, { ...engineSettings, connectTimeout: 1_000, destroyUpgrade: false });
const serve = (socket) => {
  socket.emit("auth", socket.handshake.auth);
  socket.on("message", (...args) => socket.emit("message-back", ...args));
  socket.on("message-with-ack", (...args) => args.pop()(...args));
};
io.on("connection", serve);
io.of("/custom").on("connection", (socket) => socket.emit("auth", socket.handshake.auth));

const echo = new WebSocketServer({ noServer: true, maxPayload: 16 * 1024 * 1024 });
http.on("upgrade", (request, socket, head) => {
  if (!request.url.startsWith("/echo")) return;
  echo.handleUpgrade(request, socket, head, (ws) => {
    ws.on("error", () => {});
    ws.on("message", (data, isBinary) => ws.send(data, { binary: isBinary }));
  });
});

http.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => {
  console.log(`listening on 127.0.0.1:${http.address().port}`);
});
