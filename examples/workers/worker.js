// A worker in Node, by itself: Node's own HTTP/2 server answers over a connection that this program opened.
//   node worker.js 127.0.0.1:8443 http://app.example web-1.secret
const net = require('net'), http2 = require('http2'), fs = require('fs');
const [edge, origin, secretFile] = process.argv.slice(2), [host, port] = edge.split(':');
const credential = Buffer.from(fs.readFileSync(secretFile, 'utf8').trim()).toString('base64');

const server = http2.createServer({ settings: { maxConcurrentStreams: 64 } }, async (request, response) => {
  let body = '';
  for await (const piece of request) body += piece;
  response.end(`${request.method} ${request.url} ${body}\n`);
});

function dial() {
  const socket = net.connect(port, host, () => socket.write(
    `GET /.well-known/ptth/${encodeURIComponent(origin)}/ HTTP/1.1\r\nHost: ${edge}\r\n` +
    `Connection: upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\nAuthorization: Basic ${credential}\r\n\r\n`));
  let head = Buffer.alloc(0);
  socket.on('data', function answered(data) {
    head = Buffer.concat([head, data]);
    const end = head.indexOf('\r\n\r\n');
    if (end < 0) return;
    socket.off('data', answered).pause();
    if (!head.toString('latin1').startsWith('HTTP/1.1 101 ')) return console.error(head.toString()), socket.destroy();
    socket.unshift(head.subarray(end + 4)); // what the edge says next may stand right behind its 101
    server.emit('connection', socket);
  });
  socket.on('error', () => {}).on('close', () => setTimeout(dial, 500 + Math.random() * 1000));
}
dial();
