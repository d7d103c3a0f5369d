"""A slow program behind HTTP: one render at a time, some seconds each. Anything that speaks HTTP/1.1 would do.

    python3 render.py PORT SECONDS
"""

import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


class Render(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(float(sys.argv[2]))
        text = f"rendered {self.path} with {self.headers['Priority']}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET

    def log_message(self, *args):
        pass


HTTPServer(("127.0.0.1", int(sys.argv[1])), Render).serve_forever()
