// The shop's page: what the API knows, and who was asked.
const http = require("http");

const API_URL = process.env.API_URL;

async function page(response) {
  const answer = await fetch(`${API_URL}/items`, { signal: AbortSignal.timeout(4000) });
  const body = { status: answer.status, ...(answer.ok ? await answer.json() : {}) };
  response.writeHead(answer.ok ? 200 : 502, { "Content-Type": "application/json" });
  response.end(JSON.stringify(body));
}

const server = http.createServer((request, response) => {
  console.log(request.method, request.url);
  if (request.url === "/health") {
    response.end("ok");
    return;
  }
  page(response).catch((error) => {
    response.writeHead(502, { "Content-Type": "application/json" });
    response.end(JSON.stringify({ error: String(error.cause ?? error) }));
  });
});

server.listen(3000);
process.on("SIGTERM", () => server.close(() => process.exit(0)));
