const http = require('http');
http.createServer((req, res) => {
  const failed = what => e => { res.statusCode = 502; res.end(what + String(e)); };
  http.get(process.env.API_URL + '/', r => { let b=''; r.on('data', d => b += d); r.on('end', () => { res.statusCode = r.statusCode; res.end('web: ' + b); }); r.on('error', failed('cut off: ')); })
    .on('error', failed(''));
}).listen(3000);
