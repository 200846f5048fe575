// Reads packets from a file (lines of the example `socketio_packets`) with the stock parser of each
// installed socket.io-client, and compares what it reads with what was meant.
// Usage: node parser.mjs <file>

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { isDeepStrictEqual } from "node:util";
import { check, equal, finish } from "./check.mjs";

const require = createRequire(import.meta.url);
const lines = readFileSync(process.argv[2], "utf8").trim().split("\n");

// Newer parsers forget that a packet had attachments once they have them all.
const plain = (type) => (type > 4 ? type - 3 : type);

for (const client of ["socket.io-client", "socket.io-client-tutorial"]) {
  const at = createRequire(require.resolve(client));
  const { Decoder } = at("socket.io-parser");
  await check(`${client} reads ${lines.length} packets`, () => {
    equal(lines.length >= 1000, true, "enough packets");
    for (const line of lines) {
      const { packet, attachments, expect } = JSON.parse(line);
      const decoder = new Decoder();
      let read;
      decoder.on("decoded", (decoded) => (read = decoded));
      decoder.add(packet);
      for (let n = 0; n < attachments; n += 1) decoder.add(Buffer.from(`attachment ${n}`));
      const { type, nsp, id, data } = JSON.parse(JSON.stringify(read), (_, value) =>
        value?.type === "Buffer" ? Buffer.from(value.data).toString() : value,
      );
      const known = JSON.parse(JSON.stringify({ type: plain(type), nsp, id, data }));
      expect.type = plain(expect.type);
      if (!isDeepStrictEqual(known, expect)) equal(known, expect, packet);
    }
  });
}
finish();
