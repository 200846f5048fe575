// The npm socket.io server as its documentation has it: rooms, several servers behind one Redis adapter,
// connection state recovery on. It takes what the swarm of `just chaos` says, so that the same checker
// reads what happens to it. One thing is added for the checker's sake: a counter in Redis numbers the
// messages. Usage: node peer.mjs redis-port [port]     (prints its address)

import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-streams-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const [redisPort, port] = process.argv.slice(2);
const redis = createClient({ socket: { host: "127.0.0.1", port: Number(redisPort) } });
await redis.connect();

const http = createServer();
const io = new Server(http, {
  adapter: createAdapter(redis),
  connectionStateRecovery: {},
  pingInterval: 4_000,
  pingTimeout: 4_000,
  serveClient: false,
});

/** A place in the order of messages, written as Plaza writes positions. */
function position(seq) {
  const bytes = Buffer.alloc(22);
  bytes.writeUInt8(1, 0);
  bytes.writeBigUInt64BE(BigInt(seq), 10);
  return bytes.toString("base64url");
}

io.on("connection", (socket) => {
  socket.on("set_username", (name, acknowledge) => {
    socket.data.username = name;
    acknowledge({ ok: true, username: name });
  });
  socket.on("join", async ({ room }, acknowledge) => {
    await socket.join(room);
    acknowledge({ ok: true, room, position: position(await redis.get("place") ?? 0) });
  });
  socket.on("message", async ({ room, text, id }, acknowledge) => {
    const place = position(await redis.incr("place"));
    io.to(room).emit("message", { room, id, position: place, username: socket.data.username, text });
    acknowledge({ ok: true, id, position: place, duplicate: false });
  });
});
http.listen(Number(port ?? 0), "127.0.0.1", () => console.log(`listening on 127.0.0.1:${http.address().port}`));
