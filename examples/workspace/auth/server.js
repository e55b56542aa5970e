// Sessions in Postgres. Who knows the invitation code gets a token; a token tells a name.
"use strict";

const crypto = require("node:crypto");
const http = require("node:http");
const { Pool } = require("pg");

const LIMIT_MS = 2000;
const STOP_MS = 5000;
const MAX_REQUEST_BYTES = 16 * 1024;
const NEEDED = [
  "DATABASE_URL",
  "BETTER_AUTH_SECRET",
  "BETTER_AUTH_URL",
  "BETTER_AUTH_TRUSTED_ORIGINS",
  "INVITE_CODE",
];

const config = {};
for (const name of NEEDED) {
  config[name] = process.env[name];
  if (!config[name]) throw new Error(`cannot start auth: ${name} is not set`);
}
const origins = new Set(config.BETTER_AUTH_TRUSTED_ORIGINS.split(","));

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const pool = new Pool({
  connectionString: config.DATABASE_URL,
  max: 5,
  connectionTimeoutMillis: LIMIT_MS,
  query_timeout: LIMIT_MS,
});
// An idle connection that breaks is replaced by the pool; without a listener it would end the process.
pool.on("error", (error) => console.error(`postgres: ${error.code || error.constructor.name}`));

function hash(text) {
  return crypto.createHmac("sha256", config.BETTER_AUTH_SECRET).update(text).digest();
}

// Of equal length, so compared in a time that tells nothing.
function same(one, other) {
  return crypto.timingSafeEqual(hash(one), hash(other));
}

function tokenOf(id) {
  return `${id}.${hash(id).toString("hex")}`;
}

async function readJson(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_REQUEST_BYTES) throw new Refused(413, `a request may have at most ${MAX_REQUEST_BYTES} bytes`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString()) || {};
  } catch {
    throw new Refused(422, "the body must be JSON");
  }
}

function send(response, status, value) {
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify(value));
}

const routes = {
  "POST /sessions": async (request, response) => {
    const { name, invite } = await readJson(request);
    if (typeof name !== "string" || !/^[^\0]{1,80}$/.test(name)) throw new Refused(422, "'name' must have 1 to 80 characters");
    if (!same(String(invite), config.INVITE_CODE)) throw new Refused(401, "that is not the invitation code");
    const id = crypto.randomUUID();
    await pool.query("INSERT INTO sessions (id, name) VALUES ($1, $2)", [id, name]);
    send(response, 201, { token: tokenOf(id) });
  },
  "GET /sessions/me": async (request, response) => {
    const token = (request.headers.authorization || "").replace(/^Bearer /, "");
    const id = token.split(".")[0];
    if (!same(token, tokenOf(id))) throw new Refused(401, "no such session");
    const { rows } = await pool.query("SELECT name FROM sessions WHERE id = $1", [id]);
    if (rows.length === 0) throw new Refused(401, "no such session");
    send(response, 200, { name: rows[0].name });
  },
  "GET /.well-known/auth": async (_request, response) => send(response, 200, { url: config.BETTER_AUTH_URL }),
  "GET /api/health": async (_request, response) => {
    await pool.query("SELECT 1");
    send(response, 200, { status: "ok" });
  },
};

const server = http.createServer(async (request, response) => {
  const { origin } = request.headers;
  if (origin && origins.has(origin)) {
    response.setHeader("Access-Control-Allow-Origin", origin);
    response.setHeader("Vary", "Origin");
  }
  try {
    const route = routes[`${request.method} ${request.url.split("?")[0]}`];
    if (!route) throw new Refused(404, "Not Found");
    await route(request, response);
  } catch (error) {
    if (response.headersSent) return response.destroy();
    if (error instanceof Refused) return send(response, error.status, { error: error.message });
    // The code or the class, never the message: it may name hosts and users.
    console.error(`unavailable: ${error.code || error.constructor.name}`);
    return send(response, 503, { error: "not available; try again" });
  }
});

// TERM: take no new connection, end the requests in hand, then close the pool; the process ends when nothing is left.
async function stop() {
  setTimeout(() => process.exit(1), STOP_MS).unref();
  const closed = new Promise((resolve) => server.close(resolve));
  server.closeIdleConnections();
  await closed;
  await pool.end();
}

for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, stop);
const port = Number(process.env.PORT || 3002);
const host = process.env.HOST || "0.0.0.0";
server.listen(port, host, () => console.log(`auth listens on port ${port}`));
