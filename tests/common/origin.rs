//! The server behind our own worker: raw connections that a test scripts, or one fixed answer. HTTP/2 never enters.

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;

use super::{HANG, Message, Peer};

/// Hands every connection to the test.
pub struct Origin {
    pub address: SocketAddr,
    connections: mpsc::Receiver<Peer>,
}

impl Origin {
    pub fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (told, connections) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let _ = stream.set_nodelay(true);
                if told.send(Peer::new(stream)).is_err() {
                    return;
                }
            }
        });
        Origin { address, connections }
    }

    #[track_caller]
    pub fn accept(&self) -> Peer {
        self.connections.recv_timeout(HANG).expect("nobody connects to the origin")
    }

    /// No connection waits now.
    #[track_caller]
    pub fn is_alone(&self) {
        assert!(self.connections.try_recv().is_err(), "somebody connected");
    }
}

/// Answers every request on every connection, one thread for each.
pub fn serving<A: AsRef<[u8]>>(answer: impl Fn(&Message) -> A + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let _ = stream.set_nodelay(true);
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut peer = Peer::new(stream);
                let _ = peer.stream.set_read_timeout(None);
                while let Some(mut request) = peer.try_head() {
                    if peer.body(&mut request).is_err() {
                        return;
                    }
                    peer.send_if_open(answer(&request));
                }
            });
        }
    });
    address
}
