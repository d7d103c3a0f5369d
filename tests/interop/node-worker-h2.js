// A worker in Node alone: turns a connection to an edge, then Node's own HTTP/2 server answers over it.
//   node node-worker-h2.js HOST:PORT ID:SECRET
const net = require('net'), http2 = require('http2');
const [edge, credential] = process.argv.slice(2), [host, port] = edge.split(':');

const server = http2.createServer({ settings: { maxConcurrentStreams: 200, enableConnectProtocol: true } });
server.on('stream', (stream, headers) => {
  stream.on('error', () => {}); // a client that left resets its stream
  const path = headers[':path'], method = headers[':method'];
  if (method === 'CONNECT') return stream.respond({ ':status': 200 }), stream.pipe(stream); // RFC 8441: echoes bytes
  stream.respond({ ':status': 200, 'x-worker': 'node-h2', 'x-method': method });
  if (method === 'HEAD') return stream.end();
  if (method !== 'GET') return stream.pipe(stream); // the body comes back while it still arrives
  if (path !== '/stream') return setTimeout(() => stream.end('hello from node\n'), path === '/slow' ? 300 : 0);
  let left = 5;
  const timer = setInterval(() => (left-- > 0 ? stream.write('piece\n') : (clearInterval(timer), stream.end())), 100);
});

const socket = net.connect(port, host, () => socket.write(
  'GET /.well-known/ptth/http%3A%2F%2Flocalhost/ HTTP/1.1\r\n' + `Host: ${edge}\r\n` +
  'Connection: upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\n' +
  `Authorization: Basic ${Buffer.from(credential).toString('base64')}\r\n\r\n`));
socket.once('data', (data) => { // what the edge says next may stand right behind its 101
  socket.pause(), socket.unshift(data.subarray(data.indexOf('\r\n\r\n') + 4));
  if (!data.toString('latin1').startsWith('HTTP/1.1 101 ')) throw new Error(data.toString());
  server.emit('connection', socket);
});
