// Reads Server-Sent Events over Node's HTTP/2 client: the first must come before /go lets the others come.
//   node node-events.js ORIGIN CA-FILE ID
// With a CA it speaks TLS, with '-' HTTP/2 by prior knowledge. Prints one JSON: the events, and which came before /go.
const fs = require('fs'), http2 = require('http2');
const [origin, ca, id] = process.argv.slice(2);

const session = http2.connect(origin, ca === '-' ? {} : { ca: fs.readFileSync(ca) });
const fail = (error) => { console.error(error), process.exit(1); };
session.on('error', fail);
const told = { protocol: null, status: 0, kind: '', events: [], before_go: 0, has_ended: false };
const stream = session.request({ ':path': '/events?id=' + id, accept: 'text/event-stream' });
stream.on('error', fail);
let text = '', gone = false;
stream.on('response', (head) => { told.status = head[':status'], told.kind = head['content-type']; });
stream.on('data', (piece) => {
  text += piece;
  for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
    told.events.push(text.slice(0, end).split('\n').filter((line) => line.startsWith('data: ')).join().slice(6));
    if (!gone) told.before_go = told.events.length;
  }
  if (told.events.length === 1 && !gone) {
    gone = true;
    const go = session.request({ ':path': '/go?id=' + id, ':method': 'POST' });
    go.on('error', fail), go.resume(), go.end();
  }
});
stream.on('end', () => {
  told.protocol = session.alpnProtocol, told.has_ended = true;
  console.log(JSON.stringify(told)), session.close();
});
