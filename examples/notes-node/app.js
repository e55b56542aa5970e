// A small notes app on Postgres and Redis. It reads PORT, DATABASE_URL and REDIS_URL and knows nothing else of its
// surroundings. Postgres and Redis may go away and come back: a request meanwhile is answered with 503.
"use strict";

const http = require("node:http");
const { Pool } = require("pg");
const { createClient } = require("redis");
// Read once: what runs keeps telling its own version after the file has changed.
const { version } = require("./package.json");

const LIMIT_MS = 2000;
const STOP_MS = 5000;
const MAX_BODY_CHARACTERS = 2000;
const MAX_REQUEST_BYTES = 16 * 1024;
const SHOWN_NOTES = 100;

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const missing = ["DATABASE_URL", "REDIS_URL"].filter((name) => !process.env[name]);
if (missing.length > 0) {
  console.error(`cannot start the notes app: ${missing.join(" and ")} not set; run it through scripts/run`);
  process.exit(1);
}

const pool = new Pool({
  connectionString: process.env.DATABASE_URL,
  connectionTimeoutMillis: LIMIT_MS,
  query_timeout: LIMIT_MS,
});
// An idle connection that breaks is replaced by the pool; without a listener it would end the process.
pool.on("error", (error) => console.error(`postgres: ${error.message}`));

const redis = createClient({
  url: process.env.REDIS_URL,
  disableOfflineQueue: true, // fail at once while Redis is away; never pile requests up
  socket: { connectTimeout: LIMIT_MS, reconnectStrategy: (retries) => Math.min(50 * retries, 1000) },
});
redis.on("error", (error) => console.error(`redis: ${error.code || error.message}`));
redis.connect().catch(() => {}); // reported above; it goes on trying, so the app starts while Redis is away

function limited(work) {
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${LIMIT_MS} ms`)), LIMIT_MS);
  });
  return Promise.race([work, limit]).finally(() => clearTimeout(timer));
}

async function readNotes() {
  const query = "SELECT id, body, created_at FROM notes ORDER BY created_at DESC, id DESC LIMIT $1";
  return (await pool.query(query, [SHOWN_NOTES])).rows.map(asNote);
}

// `bigint` arrives as a string: it may exceed what a number can hold.
function asNote(row) {
  return { id: Number(row.id), body: row.body, created_at: row.created_at.toISOString() };
}

async function writeNote(body) {
  const connection = await pool.connect();
  let broken;
  try {
    await connection.query("BEGIN");
    const insert = "INSERT INTO notes (body) VALUES ($1) RETURNING id, body, created_at";
    const note = asNote((await connection.query(insert, [body])).rows[0]);
    // Inside the transaction: without Redis nothing is saved either, and the 503 is the truth.
    await limited(redis.multi().incr("notes:posted").publish("notes", JSON.stringify(note)).exec());
    await connection.query("COMMIT");
    return note;
  } catch (error) {
    broken = error; // the pool closes the connection instead of reusing it, which rolls back
    throw error;
  } finally {
    connection.release(broken);
  }
}

async function readRequest(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_REQUEST_BYTES) throw new Refused(413, `a request may have at most ${MAX_REQUEST_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function noteBody(text, isJson) {
  let body;
  try {
    body = isJson ? JSON.parse(text).body : new URLSearchParams(text).get("body");
  } catch {
    body = undefined;
  }
  const note = typeof body === "string" ? body.trim() : "";
  const characters = [...note].length;
  if (characters < 1 || characters > MAX_BODY_CHARACTERS || note.includes("\0")) {
    throw new Refused(422, `'body' must be a text of 1 to ${MAX_BODY_CHARACTERS} characters`);
  }
  return note;
}

function sendJson(response, status, value, headers = {}) {
  response.writeHead(status, { "Content-Type": "application/json", ...headers });
  response.end(JSON.stringify(value));
}

function escape(text) {
  const signs = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" };
  return String(text).replace(/[&<>"']/g, (sign) => signs[sign]);
}

function page(notes, posted) {
  const items = notes.map((note) => `<li>${escape(note.body)}<time>${escape(note.created_at)}</time></li>`);
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Notes</title>
<style>
  :root { color-scheme: light dark; --line: #8884; --soft: #888; }
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }
  h1 { margin: 0 0 1rem; }
  form { display: flex; gap: .5rem; margin-bottom: 1.5rem; }
  input { flex: 1; min-width: 0; }
  input, button { font: inherit; padding: .5rem .75rem; border: 1px solid var(--line); border-radius: .4rem; }
  ul { list-style: none; padding: 0; margin: 0; }
  li { border-top: 1px solid var(--line); padding: .6rem 0; overflow-wrap: anywhere; white-space: pre-wrap; }
  time, footer, .empty { color: var(--soft); font-size: .85rem; }
  time { display: block; }
  footer { border-top: 1px solid var(--line); padding-top: .6rem; }
</style>
<h1>Notes</h1>
<form method="post" action="/notes">
  <input name="body" aria-label="New note" placeholder="Write a note" maxlength="${MAX_BODY_CHARACTERS}" required autofocus>
  <button>Add</button>
</form>
<ul>${items.join("") || '<li class="empty">Nothing here yet.</li>'}</ul>
<footer>${Number(posted || 0)} written so far · version ${escape(version)}</footer>
</html>
`;
}

const routes = {
  "GET /": async (_request, response) => {
    const [notes, posted] = await Promise.all([readNotes(), limited(redis.get("notes:posted"))]);
    response.writeHead(200, {
      "Content-Type": "text/html; charset=utf-8",
      "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'",
      "Cache-Control": "no-store",
    });
    response.end(page(notes, posted));
  },
  "GET /notes": async (_request, response) => sendJson(response, 200, { notes: await readNotes() }),
  "POST /notes": async (request, response) => {
    const isJson = /^application\/json\s*(;|$)/.test(request.headers["content-type"] || "");
    const note = await writeNote(noteBody(await readRequest(request), isJson));
    if (isJson) return sendJson(response, 201, note);
    response.writeHead(303, { Location: "/" });
    return response.end();
  },
  "GET /api/health": async (_request, response) => {
    const results = await Promise.allSettled([limited(pool.query("SELECT 1")), limited(redis.ping())]);
    const [postgres, cache] = results.map((result) => (result.status === "fulfilled" ? "ok" : nameOf(result.reason)));
    const healthy = postgres === "ok" && cache === "ok";
    const status = healthy ? "ok" : "unavailable";
    sendJson(response, healthy ? 200 : 503, { status, version, checks: { postgres, redis: cache } });
  },
};

// A code or a class, never the message: it may name hosts and users.
function nameOf(error) {
  return error.code || error.constructor.name;
}

// A mistake in our own SQL or code; everything else means that Postgres or Redis is away. Of the SQLSTATEs, 08, 53, 57
// and 58 are Postgres going away, starting, stopping or being full.
function isOurMistake(error) {
  return error instanceof TypeError || (/^[0-9A-Z]{5}$/.test(error.code || "") && !/^(08|53|57|58)/.test(error.code));
}

function sendError(response, error) {
  if (response.headersSent) return response.destroy();
  if (error instanceof Refused) return sendJson(response, error.status, { error: error.message }, { Connection: "close" });
  console.error(error);
  if (isOurMistake(error)) return sendJson(response, 500, { error: "internal error" });
  return sendJson(response, 503, { error: "Postgres or Redis is not available; try again" }, { "Retry-After": "1" });
}

const server = http.createServer(async (request, response) => {
  const path = request.url.split("?")[0];
  const method = request.method === "HEAD" ? "GET" : request.method;
  const route = routes[`${method} ${path}`];
  // A kept-alive connection whose last request ends during the stop would else hold it up for seconds.
  response.once("close", () => stopping && setImmediate(() => server.closeIdleConnections()));
  try {
    if (!route) throw new Refused(404, "Not Found");
    await route(request, response);
  } catch (error) {
    sendError(response, error);
  }
});

let stopping = false;

// TERM: take no new connection, end the requests in hand, then close the pools; the process ends when nothing is left.
async function stop() {
  stopping = true;
  setTimeout(() => process.exit(1), STOP_MS).unref();
  const closed = new Promise((resolve) => server.close(resolve));
  server.closeIdleConnections();
  await closed;
  await pool.end();
  if (redis.isReady) await redis.close();
  else redis.destroy();
}

for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, stop);
const port = Number(process.env.PORT || 3000);
server.listen(port, "0.0.0.0", () => console.log(`notes-node ${version} listening on port ${port}`));
