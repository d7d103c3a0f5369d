"""An HTTP/2 client on the `h2` package of PyPI (hyper-h2): blocking, one thread, many streams. What is asked never enters."""

import collections
import socket
import time

import h2.config
import h2.connection
import h2.events
import h2.settings
from harness import Failed, check
from secure import client_context

WINDOW = 1 << 20


class Http2:
    """A connection: with TLS where `ca` is given, by prior knowledge else."""

    def __init__(self, port, ca=None, timeout=20):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeout = timeout
        self.scheme = "https" if ca else "http"
        self.authority = f"localhost:{port}"
        if ca:
            self.socket = client_context(ca, "h2").wrap_socket(self.socket, server_hostname="localhost")
            check(self.socket.selected_alpn_protocol() == "h2", "h2 was not negotiated")
        self.engine = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.engine.initiate_connection()
        self.engine.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW})
        self.events = collections.defaultdict(collections.deque)
        self.has_settings = False
        self.flush()
        while not self.has_settings:
            self.read()

    def flush(self):
        self.socket.sendall(self.engine.data_to_send())

    def read(self):
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise Failed("the edge closed the HTTP/2 connection")
        for event in self.engine.receive_data(piece):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self.has_settings = True
            elif isinstance(event, h2.events.ConnectionTerminated):
                raise Failed(f"GOAWAY {event.error_code} {event.additional_data}")
            elif isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                self.engine.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if stream := getattr(event, "stream_id", None):
                self.events[stream].append(event)
        self.flush()

    def takes_extended_connect(self):
        return self.engine.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL, 0) == 1

    def open(self, method, path, fields=(), end=True, protocol=None):
        """A stream with this head."""
        stream = self.engine.get_next_available_stream_id()
        head = [(":method", method), (":scheme", self.scheme), (":path", path), (":authority", self.authority)]
        if protocol:
            head.insert(1, (":protocol", protocol))
        self.engine.send_headers(stream, head + list(fields), end_stream=end)
        self.flush()
        return stream

    def send(self, stream, data, end=False):
        while data:
            room = min(self.engine.local_flow_control_window(stream), self.engine.max_outbound_frame_size, len(data))
            if room == 0:
                self.read()
                continue
            self.engine.send_data(stream, data[:room])
            self.flush()
            data = data[room:]
        if end:
            self.engine.end_stream(stream)
            self.flush()

    def next(self, stream):
        """Its next event that is not about windows or priorities."""
        about = (h2.events.WindowUpdated, h2.events.PriorityUpdated)
        end = time.monotonic() + self.timeout
        while True:
            while self.events[stream]:
                event = self.events[stream].popleft()
                if not isinstance(event, about):
                    return event
            if time.monotonic() > end:  # PINGs come in between, so the socket's timeout is not enough
                raise Failed(f"nothing on stream {stream} for {self.timeout} s")
            self.read()

    def head(self, stream):
        """The status, and the fields by name, of its final response."""
        while True:
            event = self.next(stream)
            if isinstance(event, h2.events.ResponseReceived):
                fields = dict(event.headers)
                return int(fields.pop(":status")), fields
            check(isinstance(event, h2.events.InformationalResponseReceived), f"{event} instead of a response")

    def data(self, stream):
        """The next bytes of its body; none at its end."""
        while True:
            event = self.next(stream)
            if isinstance(event, h2.events.DataReceived):
                if event.data:
                    return event.data
            elif isinstance(event, h2.events.StreamEnded):
                return b""
            elif isinstance(event, h2.events.StreamReset):
                raise Failed(f"stream {stream} was reset with {event.error_code}")

    def body(self, stream):
        whole = b""
        while piece := self.data(stream):
            whole += piece
        return whole

    def close(self):
        self.engine.close_connection()
        self.flush()
        self.socket.close()
