//! The little of HTTP/1.1 (RFC 9112) that scrapers, probes and browsers need: GET and HEAD, one after the other on a
//! connection, heads of a bounded size. The head is read by `httparse`.

use std::io::{self, Write};

/// Longest head of a question, in bytes.
const HEAD_MAX: usize = 8 * 1024;

/// Most header lines.
const HEADERS_MAX: usize = 64;

/// What a browser may do with an answer: show it by itself, with what came from here, and nothing else.
const STRICT: &str = "X-Content-Type-Options: nosniff\r\n\
    Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
    X-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n";

/// What was asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    target: String,
    /// The Host header, without the port; in lower case.
    pub host: Option<String>,
    /// The Accept header names OpenMetrics.
    pub wants_open_metrics: bool,
    head_only: bool,
    close: bool,
    /// It cannot be answered but by this status.
    refused: Option<(u16, &'static str)>,
}

impl Question {
    /// The path, without what follows a question mark.
    pub fn path(&self) -> &str {
        self.target.split(['?', '#']).next().unwrap_or_default()
    }
}

/// What is answered.
#[derive(Debug)]
pub struct Answer {
    status: u16,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Answer {
    /// A body of that type.
    pub fn new(status: u16, content_type: &'static str, body: String) -> Answer {
        Answer {
            status,
            content_type,
            body: body.into_bytes(),
        }
    }

    /// One line of plain text.
    pub fn text(status: u16, line: &str) -> Answer {
        Answer::new(status, "text/plain; charset=utf-8", format!("{line}\n"))
    }

    /// JSON.
    pub fn json(text: String) -> Answer {
        Answer::new(200, "application/json", text)
    }

    /// A part of the page.
    pub fn page(content_type: &'static str, text: &str) -> Answer {
        Answer::new(200, content_type, text.to_owned())
    }
}

/// One connection: what came of questions, and what is still to be sent.
#[derive(Debug, Default)]
pub struct Conn {
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    /// Nothing more is read; it is closed when all is sent.
    closing: bool,
}

impl Conn {
    /// Takes bytes that came.
    pub fn received(&mut self, bytes: &[u8]) {
        if !self.closing {
            self.input.extend_from_slice(bytes);
        }
    }

    /// Whether it is over: all was sent, and nothing more will be answered.
    pub fn is_over(&self) -> bool {
        self.closing && self.output.is_empty()
    }

    /// The next whole question.
    pub fn next_question(&mut self) -> Option<Question> {
        if self.closing || !self.output.is_empty() {
            return None;
        }
        let (question, used) = parse(&self.input)?;
        self.input.drain(..used);
        self.closing = question.close;
        Some(question)
    }

    /// Puts the answer behind what is to be sent.
    pub fn answer(&mut self, question: &Question, answer: Answer) {
        let answer = match question.refused {
            Some((status, line)) => Answer::text(status, line),
            None => answer,
        };
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             {STRICT}{}{}\r\n",
            answer.status,
            reason(answer.status),
            answer.content_type,
            answer.body.len(),
            if answer.status == 405 { "Allow: GET, HEAD\r\n" } else { "" },
            if question.close { "Connection: close\r\n" } else { "" },
        );
        self.output.extend_from_slice(head.as_bytes());
        if !question.head_only {
            self.output.extend_from_slice(&answer.body);
        }
    }

    /// Writes what is to be sent. False: the writer takes no more now.
    pub fn write_to<W: Write>(&mut self, writer: &mut W) -> io::Result<bool> {
        while self.sent < self.output.len() {
            match writer.write(&self.output[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        self.output = Vec::new();
        Ok(true)
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// The question at the start of `bytes` and how long it is; `None` while it is not whole.
fn parse(bytes: &[u8]) -> Option<(Question, usize)> {
    let refuse = |status, line| {
        let question = Question {
            target: String::new(),
            host: None,
            wants_open_metrics: false,
            head_only: false,
            close: true,
            refused: Some((status, line)),
        };
        Some((question, bytes.len()))
    };
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let used = match request.parse(bytes) {
        Ok(httparse::Status::Complete(used)) if used <= HEAD_MAX => used,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_MAX => return None,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return refuse(431, "the head is too long"),
        Err(httparse::Error::Version) => return refuse(505, "HTTP/1.0 or 1.1, please"),
        Err(_) => return refuse(400, "not an HTTP request"),
    };
    let header = |name: &str| {
        let found = request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).to_ascii_lowercase())
    };
    let count = |name: &str| {
        let headers = request.headers.iter();
        headers
            .filter(|header| header.name.eq_ignore_ascii_case(name))
            .count()
    };
    // Whoever stands in between may have taken the other one for true (RFC 9112, 3.2 and 6.3).
    let is_ambiguous = count("host") > 1
        || count("content-length") + count("transfer-encoding") > 1
        || header("content-length").is_some_and(|length| !is_number(&length));
    let connection = header("connection").unwrap_or_default();
    let has_body = header("transfer-encoding").is_some()
        || header("content-length").is_some_and(|length| length.trim() != "0");
    let method = request.method.unwrap_or_default();
    let head_only = method == "HEAD";
    let refused = if is_ambiguous {
        Some((400, "not an HTTP request"))
    } else if has_body {
        Some((413, "no body, please"))
    } else if method != "GET" && !head_only {
        Some((405, "GET or HEAD, please"))
    } else {
        None
    };
    let question = Question {
        target: request.path.unwrap_or_default().to_owned(),
        host: header("host").map(|host| without_port(&host).to_owned()),
        wants_open_metrics: header("accept")
            .is_some_and(|accept| accept.contains("application/openmetrics-text")),
        head_only,
        close: refused.is_some()
            || connection.contains("close")
            || (request.version == Some(0) && !connection.contains("keep-alive")),
        refused,
    };
    Some((question, used))
}

fn is_number(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `name:80`, `name`, `[::1]:80` or `[::1]` without the port and the brackets.
fn without_port(host: &str) -> &str {
    let host = host.trim();
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(bytes: &[u8]) -> String {
        let mut conn = Conn::default();
        conn.received(bytes);
        let mut out = Vec::new();
        while let Some(question) = conn.next_question() {
            let path = question.path().to_owned();
            conn.answer(&question, Answer::text(200, &path));
            conn.write_to(&mut out).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    fn status(bytes: &[u8]) -> String {
        ask(bytes).lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn questions_are_answered_in_turn() {
        let said = ask(b"GET /a?x=1 HTTP/1.1\r\nHost: h\r\n\r\nHEAD /b HTTP/1.1\r\n\r\nGET /c HTTP/1.1\r\nConnection: close\r\n\r\nGET /d HTTP/1.1\r\n\r\n");
        assert_eq!(said.matches("200 OK").count(), 3);
        assert!(said.contains("\r\n\r\n/a\n"), "{said}");
        assert!(!said.contains("/b\n") && said.ends_with("/c\n"), "{said}");
        assert!(said.contains("Connection: close"));
    }

    #[test]
    fn what_is_not_served_is_refused_and_closed() {
        assert_eq!(
            status(b"POST / HTTP/1.1\r\n\r\n"),
            "HTTP/1.1 405 Method Not Allowed"
        );
        assert_eq!(status(b"get key\r\n"), "HTTP/1.1 400 Bad Request");
        assert_eq!(
            status(b"GET / HTTP/2.0\r\n\r\n"),
            "HTTP/1.1 505 HTTP Version Not Supported"
        );
        assert_eq!(
            status(b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"),
            "HTTP/1.1 413 Content Too Large"
        );
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HEAD_MAX));
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(HEADERS_MAX + 1)
        );
        for head in [long, many] {
            assert_eq!(
                status(head.as_bytes()),
                "HTTP/1.1 431 Request Header Fields Too Large"
            );
        }
        let endless = format!("GET /{}", "x".repeat(HEAD_MAX));
        assert_eq!(
            status(endless.as_bytes()),
            "HTTP/1.1 431 Request Header Fields Too Large"
        );
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for headers in [
            "Content-Length: 0\r\nContent-Length: 5\r\n",
            "Content-Length: 0\r\nContent-Length: 0\r\n",
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: +0\r\n",
            "Content-Length: 0, 0\r\n",
            "Content-Length:\r\n",
            "Host: a\r\nHost: b\r\n",
        ] {
            let said =
                ask(format!("GET /a HTTP/1.1\r\n{headers}\r\nGET /b HTTP/1.1\r\n\r\n").as_bytes());
            assert!(
                said.starts_with("HTTP/1.1 400 ") && said.contains("Connection: close"),
                "{headers}: {said}"
            );
            assert!(!said.contains("/b"), "{headers}: {said}");
        }
    }

    #[test]
    fn the_host_without_its_port() {
        for (header, host) in [
            ("Name:80", "name"),
            ("name", "name"),
            ("[::1]:80", "::1"),
            ("[::1]", "::1"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("", ""),
        ] {
            let (question, _) =
                parse(format!("GET / HTTP/1.1\r\nHost: {header}\r\n\r\n").as_bytes()).unwrap();
            assert_eq!(question.host.as_deref(), Some(host), "{header}");
        }
    }

    #[test]
    fn half_a_head_waits() {
        let head = b"GET / HTTP/1.1\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n";
        let mut conn = Conn::default();
        for &byte in &head[..head.len() - 1] {
            conn.received(&[byte]);
            assert_eq!(conn.next_question(), None);
        }
        conn.received(&head[head.len() - 1..]);
        assert!(conn.next_question().unwrap().wants_open_metrics);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            ask(&bytes);
        }
    }
}
