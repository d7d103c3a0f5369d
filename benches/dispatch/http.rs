//! HTTP/1.1 as far as the tool speaks it: the request that it sends and gets back, and the answers that proxies give.
//! Sockets never enter. What is not understood is an error of that connection, never a guess.

use std::io::Write as _;

use super::trace::Planned;

/// The origin that all requests go to, and that the workers register.
pub const HOST: &str = "dispatch.example";

/// What a worker answers.
pub const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
/// The body in it.
pub const BODY: &[u8] = b"ok\n";
/// What it answers to a request that is not the generator's.
pub const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";

/// The field with the request's number.
pub const NUMBER: &str = "x-number";
/// The field with the service time in microseconds.
pub const SERVICE: &str = "x-service-us";

/// Replaces `out` by the request.
pub fn write_request(out: &mut Vec<u8>, number: u64, planned: &Planned) {
    out.clear();
    let (priority, service) = (planned.class.priority(), planned.service_us);
    write!(
        out,
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nPriority: {priority}\r\nX-Service-Us: {service}\r\nX-Number: {number}\r\n\r\n"
    )
    .expect("memory takes it");
}

/// Bytes of the first head in `bytes`, with its blank line; `None` while it is not complete.
pub fn head_len(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The order that a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub number: u64,
    pub service_us: u32,
}

/// Reads a request's head; `None` if it is no order.
pub fn order(head: &[u8]) -> Option<Order> {
    Some(Order {
        number: decimal(field(head, NUMBER)?)?,
        service_us: u32::try_from(decimal(field(head, SERVICE)?)?).ok()?,
    })
}

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerHead {
    pub status: u16,
    pub body_bytes: usize,
    /// The other side closes after it.
    pub closes: bool,
}

/// Reads an answer's head; `None` if it cannot be read or has a body without a length.
pub fn answer(head: &[u8]) -> Option<AnswerHead> {
    let status = head.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    let status = u16::try_from(decimal(status)?).ok()?;
    let body_bytes = match field(head, "content-length") {
        Some(length) => usize::try_from(decimal(length)?).ok()?,
        None if status == 204 => 0,
        None => return None,
    };
    let closes = field(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    Some(AnswerHead { status, body_bytes, closes })
}

/// The value of the first field with this name, which is in lower case.
pub fn field<'h>(head: &'h [u8], name: &str) -> Option<&'h [u8]> {
    let lines = head.split(|&byte| byte == b'\n').skip(1);
    lines.filter_map(|line| line.split_at_checked(name.len())).find_map(|(own, rest)| {
        let value = rest.strip_prefix(b":").filter(|_| own.eq_ignore_ascii_case(name.as_bytes()))?;
        Some(value.trim_ascii())
    })
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
#[allow(unused)] // see main.rs
mod tests {
    use super::super::trace::Class;
    use super::*;

    #[test]
    fn a_worker_reads_the_order_that_was_written_however_the_names_are_spelt() {
        let mut request = Vec::new();
        let planned = Planned { due_ns: 0, service_us: 4_711, class: Class::Background };
        write_request(&mut request, 12, &planned);
        assert_eq!(head_len(&request), Some(request.len()));
        let want = Some(Order { number: 12, service_us: 4_711 });
        assert_eq!(order(&request), want);
        assert_eq!(order(&request.to_ascii_lowercase()), want);
        assert_eq!(order(&request.to_ascii_uppercase()), want);
        assert_eq!(field(&request, "priority"), Some(b"u=6".as_slice()));
        for cut in 0..request.len() {
            assert_eq!(head_len(&request[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_request_without_its_numbers_is_no_order() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nX-Number: 1\r\nX-Service-Us: \r\n\r\n",
            "",
            "GET / HTTP/1.1\r\nX-Number: 1\r\nX-Service-Us: 99999999999\r\n\r\n",
            "x-number: 1\r\nx-service-us: 1\r\n",
        ] {
            assert_eq!(order(head.as_bytes()), None, "{head:?}");
        }
    }

    #[track_caller]
    fn check(head: &str, want: Option<(u16, usize, bool)>) {
        let want = want.map(|(status, body_bytes, closes)| AnswerHead { status, body_bytes, closes });
        assert_eq!(answer(head.as_bytes()), want, "{head:?}");
    }

    #[test]
    fn an_answer_has_a_status_and_a_length_or_is_not_understood() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Some((200, 3, false)));
        check(
            "HTTP/1.1 503 \r\nretry-after: 1\r\ncontent-length:17\r\nConnection: Close\r\n\r\n",
            Some((503, 17, true)),
        );
        check("HTTP/1.0 204 No Content\r\n\r\n", Some((204, 0, false)));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None);
        check("HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n", None);
        check("HTTP/1.1 2x0 OK\r\nContent-Length: 3\r\n\r\n", None);
        check("HTTP/2 200\r\nContent-Length: 3\r\n\r\n", None);
        check("", None);
    }
}
