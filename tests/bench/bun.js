// Bun's own publish: one topic a room, everyone there gets each message. Prints its port.
const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch(request, server) {
    const room = new URL(request.url).searchParams.get("room");
    if (server.upgrade(request, { data: { room } })) return undefined;
    return new Response("a WebSocket is wanted", { status: 400 });
  },
  websocket: {
    idleTimeout: 0,
    sendPings: false,
    open(ws) {
      if (ws.data.room) ws.subscribe(ws.data.room);
    },
    message(ws, text) {
      if (text.startsWith("join:")) {
        ws.subscribe(text.slice(5));
        ws.send("joined");
      } else {
        server.publish(ws.data.room, text);
      }
    },
  },
});
console.log(`listening on 127.0.0.1:${server.port}`);
