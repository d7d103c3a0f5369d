//! One request to an edge's admin address, with blocking sockets. What is asked for never enters.

use super::Stop;
use crate::clock::{Now, now};
use crate::limits::{
    ADMIN_ANSWER_BYTES_MAX, ADMIN_ANSWER_MS_MAX, ADMIN_CONNECT_MS_MAX, READ_BYTES_LARGE, SECRET_FILE_BYTES_MAX,
};
use crate::pem::shown;
use crate::settings::{io_reason, plain, read_bounded};
use crate::wire::body::{BodyDecoder, Found};
use crate::wire::head::{Asked, parse_response};
use crate::wire::scan::{HeadScan, Side};
use crate::worker::tls::of_command;
use bytes::Bytes;
use rustls::StreamOwned;
use rustls::client::ClientConnection;
use rustls::pki_types::ServerName;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

/// Where the edge is asked, and what it is shown.
#[derive(clap::Args)]
pub(super) struct AdminArgument {
    /// The address of the edge's [admin], such as 127.0.0.1:9090 or https://edge.internal:9090
    #[arg(long = "admin", value_name = "ADDR")]
    address: String,
    #[command(flatten)]
    proof: Proof,
}

/// What an edge may want to see.
#[derive(clap::Args, Clone, Default)]
pub(super) struct Proof {
    /// A file with one line, the admin address's token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A PEM file with the authorities of its certificate [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A PEM file with a certificate to show to it
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// A PEM file with its private key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

impl AdminArgument {
    pub(super) fn new(address: &str, proof: Proof) -> AdminArgument {
        AdminArgument { address: address.to_owned(), proof }
    }
}

impl Proof {
    /// The line of a request that shows the token.
    fn authorization(&self) -> Result<String, Stop> {
        let Some(file) = &self.token_file else { return Ok(String::new()) };
        let name = shown(file);
        let text = match read_bounded(file, SECRET_FILE_BYTES_MAX) {
            Ok(Some(text)) => text,
            Ok(None) => {
                return Err(Stop::usage(format_args!("--token-file: {name} holds more than one line, a token")));
            }
            Err(error) => {
                return Err(Stop::usage(format_args!("--token-file: {name} cannot be read: {}", io_reason(&error))));
            }
        };
        let token = text.trim_ascii();
        if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
            return Err(Stop::usage(format_args!("--token-file: {name} does not hold one line, a token")));
        }
        Ok(format!("Authorization: Bearer {}\r\n", String::from_utf8_lossy(token)))
    }
}

/// Asks `path` of the admin address with `method`, and gives the body of a 2xx.
pub(super) fn ask(admin: &AdminArgument, method: &str, path: &str) -> Result<Vec<u8>, Stop> {
    exchange(admin, method, path, "")
}

/// Posts a form (application/x-www-form-urlencoded), and gives the body of a 2xx.
pub(super) fn post_form(admin: &AdminArgument, path: &str, form: &str) -> Result<Vec<u8>, Stop> {
    exchange(admin, "POST", path, form)
}

fn exchange(admin: &AdminArgument, method: &str, path: &str, form: &str) -> Result<Vec<u8>, Stop> {
    let (is_secure, host) = match admin.address.strip_prefix("https://") {
        Some(host) => (true, host),
        None => (false, admin.address.strip_prefix("http://").unwrap_or(&admin.address)),
    };
    let host = host.trim_end_matches('/');
    let addresses = resolve(host)?;
    let shown = plain(host, 100);
    let failed = |reason: String| {
        Stop::Failure(format!("no answer from {shown}: {reason}; is an edge running with this [admin] address?"))
    };
    let authorization = admin.proof.authorization()?;
    let tls = is_secure.then(|| session(host, &admin.proof)).transpose()?;
    let by = now().plus_ms(ADMIN_ANSWER_MS_MAX);
    let stream = connect(&addresses).map_err(|error| failed(io_reason(&error)))?;
    let mut stream = match tls {
        Some(session) => Either::Secure(Box::new(StreamOwned::new(session, Bounded { stream, by }))),
        None => Either::Plain(Bounded { stream, by }),
    };
    let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
    let kind = if form.is_empty() { "" } else { kind };
    let length = if method == "POST" { format!("Content-Length: {}\r\n", form.len()) } else { String::new() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}{kind}{length}Connection: close\r\n\r\n{form}"
    );
    stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).map_err(|error| failed(io_reason(&error)))?;
    let (status, body) = answer(&mut stream).map_err(failed)?;
    let text = String::from_utf8_lossy(&body);
    let text = plain(text.lines().next().unwrap_or(""), 200);
    match status {
        200..300 => Ok(body),
        401 => Err(Stop::Failure(format!("{shown} wants its token; name a file with it: --token-file FILE"))),
        400 => Err(Stop::usage(text)),
        _ => Err(Stop::Failure(format!(
            "{shown} answers {method} {path} with {status} {text}; is it the [admin] address?"
        ))),
    }
}

fn session(host: &str, proof: &Proof) -> Result<ClientConnection, Stop> {
    let identity = proof.certificate.as_deref().zip(proof.key.as_deref());
    let config = of_command(proof.ca_file.as_deref(), identity).map_err(|mistakes| Stop::mistakes(&mistakes))?;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(name).map_err(|_| Stop::usage("--admin: no certificate can name this host"))?;
    ClientConnection::new(config, name).map_err(|error| Stop::Failure(error.to_string()))
}

/// A connection with TLS or without.
enum Either {
    Plain(Bounded),
    Secure(Box<StreamOwned<ClientConnection, Bounded>>),
}

impl Read for Either {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Either::Plain(stream) => stream.read(into),
            Either::Secure(stream) => stream.read(into),
        }
    }
}

impl Write for Either {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Either::Plain(stream) => stream.write(bytes),
            Either::Secure(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Either::Plain(stream) => stream.flush(),
            Either::Secure(stream) => stream.flush(),
        }
    }
}

#[allow(clippy::disallowed_methods)] // a command has no core whose loop it could block
fn resolve(host: &str) -> Result<Vec<SocketAddr>, Stop> {
    let written = || Stop::usage("--admin is not an address; write host:port, such as 127.0.0.1:9090");
    let (name, port) = host.rsplit_once(':').ok_or_else(written)?;
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '?' | '#');
    if name.is_empty() || name.contains(odd) || port.parse::<u16>().is_err() {
        return Err(written());
    }
    match host.to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        Err(_) => Err(Stop::Failure(format!("{} is not a name that resolves; write 127.0.0.1:9090", plain(host, 100)))),
    }
}

/// The first address that answers; the error is the last one's.
fn connect(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let mut last = ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match TcpStream::connect_timeout(address, Duration::from_millis(ADMIN_CONNECT_MS_MAX)) {
            Ok(stream) => {
                stream.set_write_timeout(Some(Duration::from_millis(ADMIN_CONNECT_MS_MAX)))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A stream whose reads all end at one moment: a slow byte does not renew it.
struct Bounded {
    stream: TcpStream,
    by: Now,
}

impl Read for Bounded {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let left_ms = self.by.ms_since(now());
        if left_ms == 0 {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(Duration::from_millis(left_ms)))?;
        self.stream.read(into).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => ErrorKind::TimedOut.into(), // what Linux says when SO_RCVTIMEO passes
            _ => error,
        })
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes) // it has its own bound
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// Status and body of one response, of at most `ADMIN_ANSWER_BYTES_MAX`.
fn answer(from: &mut impl Read) -> Result<(u16, Vec<u8>), String> {
    let mut input = Vec::new();
    let mut scan = HeadScan::response();
    let head_end = loop {
        if let Some(range) = scan.scan(&input).map_err(|fault| fault.detail().to_owned())? {
            break range.end;
        }
        if read_more(from, &mut input)? == 0 {
            return Err("the connection ended before its answer".into());
        }
    };
    let body_bytes = input.split_off(head_end);
    let head = parse_response(Bytes::from(input), Asked::Other).map_err(|fault| fault.detail().to_owned())?;
    let mut decoder = BodyDecoder::new(head.body, Side::Response);
    let mut input = body_bytes;
    let mut body = Vec::new();
    loop {
        let step = decoder.step(&input).map_err(|fault| fault.detail().to_owned())?;
        input.drain(..step.skip);
        match step.found {
            Found::End { .. } => break,
            Found::Data { bytes } => {
                body.extend(input.drain(..bytes));
                if body.len() > ADMIN_ANSWER_BYTES_MAX {
                    return Err("the answer is larger than 16 MiB".into());
                }
            }
            Found::NeedMore => {
                if read_more(from, &mut input)? == 0 {
                    decoder.at_eof().map_err(|_| "the answer is cut off".to_owned())?;
                    break;
                }
            }
        }
    }
    Ok((head.status.as_u16(), body))
}

fn read_more(from: &mut impl Read, input: &mut Vec<u8>) -> Result<usize, String> {
    let mut piece = vec![0; READ_BYTES_LARGE];
    loop {
        match from.read(&mut piece) {
            Ok(bytes) => {
                input.extend_from_slice(&piece[..bytes]);
                return Ok(bytes);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(io_reason(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes in pieces of one size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let bytes = self.1.min(self.0.len());
            into[..bytes].copy_from_slice(&self.0[..bytes]);
            self.0 = &self.0[bytes..];
            Ok(bytes)
        }
    }

    #[track_caller]
    fn check(input: &str, want: Result<(u16, &str), &str>) {
        for piece in [1, 3, input.len().max(1)] {
            let got = answer(&mut Pieces(input.as_bytes(), piece));
            match want {
                Ok((status, body)) => assert_eq!(got, Ok((status, body.into())), "{input:?} by {piece}"),
                Err(what) => assert!(got.as_ref().is_err_and(|e| e.contains(what)), "{input:?} by {piece}: {got:?}"),
            }
        }
    }

    #[test]
    fn an_answer_ends_where_its_framing_says() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Ok((200, "hi")));
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more", Ok((200, "hi")));
        check("HTTP/1.1 200 OK\r\n\r\nto the end", Ok((200, "to the end")));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", Ok((200, "hi")));
        check("HTTP/1.1 204 No Content\r\n\r\n", Ok((204, "")));
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", Err("cut off"));
        check("HTTP/1.1 200 OK\r\n", Err("ended before"));
        check("", Err("ended before"));
        check("SSH-2.0-OpenSSH_9.6\r\n\r\n", Err("status line"));
    }

    #[test]
    fn an_answer_is_bounded() {
        struct Endless(bool);
        impl Read for Endless {
            fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
                let head: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
                if std::mem::take(&mut self.0) {
                    into[..head.len()].copy_from_slice(head);
                    return Ok(head.len());
                }
                into.fill(b'x');
                Ok(into.len())
            }
        }
        assert!(answer(&mut Endless(true)).is_err_and(|error| error.contains("larger")));
    }
}
