// Node's own server and fetch.
const http = require("http");
const PASSED_ON = ["traceparent", "tracestate", "x-request-id", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled"];
http.createServer(async (request, response) => {
  const headers = Object.fromEntries(PASSED_ON.filter((name) => request.headers[name]).map((name) => [name, request.headers[name]]));
  try {
    const answer = await fetch("http://reviews:9080/", { headers });
    response.writeHead(answer.status, { "content-type": "text/plain" });
    response.end(`node < ${await answer.text()}`);
  } catch (error) {
    response.writeHead(502);
    response.end(`${error.cause || error}`);
  }
}).listen(9080);
