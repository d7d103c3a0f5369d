"""A worker in Python, by itself, with asyncio and the h2 package: python3 worker.py 127.0.0.1:8443 http://app.example web-1.secret"""
import asyncio, base64, random, sys, time, urllib.parse, h2.config, h2.connection, h2.events, h2.settings

edge, origin, secret_file = sys.argv[1:]
credential = base64.b64encode(open(secret_file, "rb").read().strip()).decode()
SETUP = (f"GET /.well-known/ptth/{urllib.parse.quote(origin, safe='')}/ HTTP/1.1\r\nHost: {edge}\r\nConnection: upgrade\r\n"
         f"Upgrade: ptth\r\nALPN: h2\r\nAuthorization: Basic {credential}\r\n\r\n")

async def link():
    reader, writer = await asyncio.open_connection(*edge.split(":"))
    writer.write(SETUP.encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    if not answer.startswith(b"HTTP/1.1 101 "):
        raise OSError(answer.decode())
    turned = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))  # the edge is the client now
    turned.local_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 64
    turned.initiate_connection()
    asked, data = {}, b"-"
    while data:
        writer.write(turned.data_to_send())
        data = await reader.read(65536)
        for event in turned.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                asked[event.stream_id] = [dict(event.headers), b""]
            elif isinstance(event, h2.events.DataReceived):
                asked[event.stream_id][1] += event.data
                turned.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                head, body = asked.pop(event.stream_id)
                turned.send_headers(event.stream_id, [(":status", "200")])
                turned.send_data(event.stream_id, b"%s %s %s\n" % (head[b":method"], head[b":path"], body), end_stream=True)

while True:
    try:
        asyncio.run(link())
    except OSError as error:
        print(error, file=sys.stderr)
    time.sleep(0.5 + random.random())
