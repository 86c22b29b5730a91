const http = require('http');
http.createServer((req, res) => {
  http.get(process.env.API_URL + '/', r => { let b=''; r.on('data', d => b += d); r.on('end', () => { res.statusCode = r.statusCode; res.end('web: ' + b); }); })
    .on('error', e => { res.statusCode = 502; res.end(String(e)); });
}).listen(3000);
