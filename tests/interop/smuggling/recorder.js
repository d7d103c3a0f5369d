// A backend that tells what it understood, in Node; recorder.py says what.
//   node recorder.js PORT LOG [lenient]
const crypto = require('crypto'), fs = require('fs'), http = require('http');
const [port, path, lenient] = process.argv.slice(2);
const log = fs.openSync(path, 'a');
const tell = (...event) => fs.writeSync(log, JSON.stringify(event) + '\n');
let seen = 0;

const pairs = (raw) => Array.from({ length: raw.length / 2 }, (_, at) => [raw[2 * at], raw[2 * at + 1]]);

const server = http.createServer({ maxHeaderSize: 1 << 16, keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0,
  insecureHTTPParser: lenient === 'lenient' }, (request, response) => {
  const number = ++seen, { method, url: target } = request, digest = crypto.createHash('sha256');
  let bytes = 0;
  tell('head', number, method, target);
  request.socket.inRequest = true;
  response.setHeader('x-seen', number);
  request.on('close', () => {
    request.socket.inRequest = false;
    if (!request.complete) tell('cut', number, bytes);
  });
  if (target.startsWith('/early')) {
    if (target.startsWith('/early/close')) response.setHeader('connection', 'close');
    return response.end(`early ${method} ${target}\n`);
  }
  request.on('error', () => {});
  request.on('data', (piece) => (digest.update(piece), bytes += piece.length));
  request.on('end', () => {
    tell('whole', number, bytes);
    const record = JSON.stringify({ method, target, fields: pairs(request.rawHeaders), bytes, sha256: digest.digest('hex'),
      trailers: pairs(request.rawTrailers) });
    if (method !== 'HEAD') return response.end(record);
    const inHead = Buffer.from(record).toString('base64');
    if (inHead.length < 6000) response.setHeader('x-record', inHead);
    response.end();
  });
});
server.maxHeadersCount = 0;
server.on('clientError', (error, socket) => {
  if (!socket.inRequest && error.code !== 'ECONNRESET') tell('bad', ++seen, `${error.code} ${error.reason}`);
  if (socket.writable) socket.write('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  socket.destroySoon();
});
server.listen(port, '127.0.0.1');
