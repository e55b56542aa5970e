// The app in Node; release.py tells what it does. Everything of Node's server is at its default.
"use strict";
const fs = require("node:fs");
const http = require("node:http");

const seconds = () => Number(process.hrtime.bigint()) / 1e9; // monotonic, as Python's
const [number, mode = ""] = fs.readFileSync(process.env.APP_RELEASE, "utf8").trim().split(" ");
const work = Number(process.env.APP_WORK_MS ?? 3);
const tell = (what) => fs.appendFileSync(process.env.APP_LIFE, `${what} ${process.pid} ${number} ${seconds()}\n`);
let upAt = 0;

const status = () => (mode === "500s" || (mode === "turns" && seconds() - upAt > 3) ? 500 : 200);

function wait(path) {
  if (mode === "slow") return 5000;
  return path.startsWith("/sleep/") ? Number(path.slice(7)) : work;
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    setTimeout(() => {
      const body = request.method === "POST" ? Buffer.concat(parts) : Buffer.from("ok\n");
      response.writeHead(status(), { "Content-Length": body.length, "App-Version": number });
      response.end(body);
    }, wait(request.url));
  });
});

tell("started");
process.on("SIGTERM", () => process.exit(0));
setTimeout(() => {
  if (mode === "exit") process.exit(1);
  if (mode === "deaf") return setInterval(() => {}, 1000);
  server.listen(Number(process.env.PORT), process.env.HOST ?? "127.0.0.1", 1024, () => {
    upAt = seconds();
    tell("up");
  });
}, Number(process.env.APP_BOOT_SECONDS ?? 1) * 1000);
