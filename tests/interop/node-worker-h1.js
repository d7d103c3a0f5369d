// A worker in Node alone: turns a connection to an edge, then Node's own HTTP/1.1 server answers over it.
//   node node-worker-h1.js HOST:PORT ID:SECRET
const net = require('net'), http = require('http');
const [edge, credential] = process.argv.slice(2), [host, port] = edge.split(':');

const server = http.createServer((request, response) => {
  response.setHeader('x-worker', 'node-h1').setHeader('x-method', request.method);
  if (request.method === 'HEAD') return response.end();
  if (request.method !== 'GET') return request.pipe(response); // the body comes back while it still arrives
  if (request.url !== '/stream') return setTimeout(() => response.end('hello from node\n'), request.url === '/slow' ? 10 : 0);
  let left = 5;
  const timer = setInterval(() => (left-- > 0 ? response.write('piece\n') : (clearInterval(timer), response.end())), 100);
});
server.keepAliveTimeout = 0; // an idle link stays
server.on('upgrade', (request, socket) => {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n');
  socket.pipe(socket);
});

const socket = net.connect(port, host, () => socket.write(
  'GET /.well-known/ptth/http%3A%2F%2Flocalhost/ HTTP/1.1\r\n' + `Host: ${edge}\r\n` +
  'Connection: upgrade\r\nUpgrade: ptth\r\nALPN: http%2F1.1\r\n' +
  `Authorization: Basic ${Buffer.from(credential).toString('base64')}\r\n\r\n`));
socket.once('data', (data) => { // what the edge says next may stand right behind its 101
  socket.pause(), socket.unshift(data.subarray(data.indexOf('\r\n\r\n') + 4));
  if (!data.toString('latin1').startsWith('HTTP/1.1 101 ')) throw new Error(data.toString());
  server.emit('connection', socket), socket.resume();
});
