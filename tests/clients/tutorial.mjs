// The tutorial's own check: two browsers on two edges, a name, a message, and everyone sees each line
// at once.
// Usage: node tutorial.mjs <port for the page> http://edge-a http://edge-b   (CHROMIUM: another browser)

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { PATIENCE, check, equal, finish } from "./check.mjs";

const [port, ...edges] = process.argv.slice(2);
if (edges.length !== 2) throw new Error("usage: node tutorial.mjs <port> http://edge-a http://edge-b");

const here = dirname(fileURLToPath(import.meta.url));
const client = join(dirname(createRequire(import.meta.url).resolve("socket.io-client-tutorial/package.json")), "dist/socket.io.min.js");
const page = await readFile(join(here, "tutorial.html"), "utf8");
const server = createServer(async (request, response) => {
  if (request.url === "/socket.io-4.0.1.js") {
    response.setHeader("Content-Type", "text/javascript").end(await readFile(client));
  } else {
    const origin = edges[Number(new URL(request.url, "http://localhost").searchParams.get("edge") ?? 0)];
    response.setHeader("Content-Type", "text/html; charset=utf-8").end(page.replaceAll("{{origin}}", origin));
  }
});
await new Promise((resolve) => server.listen(Number(port), "127.0.0.1", resolve));

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

async function open(edge) {
  const tab = await (await browser.newContext()).newPage();
  tab.setDefaultTimeout(PATIENCE);
  const alerts = [];
  tab.on("dialog", (dialog) => {
    alerts.push(dialog.message());
    dialog.dismiss();
  });
  await tab.goto(`http://127.0.0.1:${server.address().port}/?edge=${edge}`);
  return {
    alerts,
    sees: (line) => tab.locator("#lines > div").getByText(line, { exact: true }).first().waitFor(),
    count: (line) => tab.locator("#lines > div").getByText(line, { exact: true }).count(),
    name: async (text) => {
      await tab.fill("#name", text);
      await tab.click("#set");
    },
    send: async (text) => {
      await tab.fill("#text", text);
      await tab.click("#send");
    },
    close: () => tab.context().close(),
  };
}

try {
  const [ada, bo] = [await open(0), await open(1)];
  await check("both are welcomed", async () => {
    for (const tab of [ada, bo]) await tab.sees("您已进入聊天室!");
  });
  await check("a message before the name is answered by the page itself", async () => {
    await ada.send("too early");
    equal(ada.alerts, ["请先设置用户名"]);
  });
  await check("names are set", async () => {
    await ada.name("ada");
    await ada.sees("您的用户名已设置为:ada");
    await bo.name("小波");
    await bo.sees("您的用户名已设置为:小波");
  });
  await check("each line shows at once on both edges, once", async () => {
    await ada.send("你好");
    await bo.send("<b>hello</b>");
    for (const tab of [ada, bo]) {
      await tab.sees("ada:你好");
      await tab.sees("小波:<b>hello</b>");
      equal([await tab.count("ada:你好"), await tab.count("小波:<b>hello</b>")], [1, 1]);
    }
  });
  await check("who closes the browser has left", async () => {
    await ada.close();
    await bo.sees("ada 已离开聊天室。");
    equal(await bo.count("ada 已离开聊天室。"), 1);
  });
} finally {
  await browser.close();
  server.close();
}
finish();
