// The page for the admin. It has no database: what it shows it asks from `api` and `admin-auth`.
"use strict";

const http = require("node:http");

const LIMIT_MS = 2000;
const STOP_MS = 5000;
const port = Number(process.env.PORT || 3004);
const host = process.env.HOST || "0.0.0.0";
const publicUrl = process.env.PUBLIC_URL || "http://localhost:3004";
const apiUrl = process.env.API_URL || "http://127.0.0.1:3001";
const adminAuthUrl = process.env.ADMIN_AUTH_URL || "http://127.0.0.1:3003";

async function ask(url) {
  const answer = await fetch(url, { signal: AbortSignal.timeout(LIMIT_MS) });
  if (!answer.ok) throw new Error(`it answers ${answer.status}`);
  return answer.json();
}

function escape(text) {
  return String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

function page(lines) {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Admin</title>
<link rel="canonical" href="${escape(publicUrl)}">
<h1>Admin</h1>
${lines.map((line) => `<p>${escape(line)}</p>`).join("\n")}
</html>
`;
}

function send(response, status, kind, text) {
  const headers = { "Content-Type": kind, "Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store" };
  response.writeHead(status, headers);
  response.end(text);
}

const server = http.createServer(async (request, response) => {
  const path = request.url.split("?")[0];
  if (path === "/api/health") return send(response, 200, "application/json", '{"status": "ok"}');
  if (path !== "/") return send(response, 404, "text/plain", "Not Found");
  try {
    const urls = [`${apiUrl}/notes/count`, `${adminAuthUrl}/sessions/count`];
    const [{ notes }, { sessions }] = await Promise.all(urls.map(ask));
    const line = `${notes} notes, ${sessions} sessions.`;
    return send(response, 200, "text/html; charset=utf-8", page([line]));
  } catch (error) {
    console.error(`unavailable: ${error.constructor.name}`);
    return send(response, 503, "text/html; charset=utf-8", page(["Not available; try again."]));
  }
});

function stop() {
  setTimeout(() => process.exit(1), STOP_MS).unref();
  server.close(() => process.exit(0));
  server.closeIdleConnections();
}

for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, stop);
server.listen(port, host, () => console.log(`admin listens on port ${port}`));
