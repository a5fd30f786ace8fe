//! A headless Chromium, driven by the WebDriver protocol (<https://www.w3.org/TR/webdriver2/>) of its chromedriver.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use serde_json::{json, Value};

use super::files::TempDir;
use super::process::{mortal, Process};
use super::{skipped, wait_for, Port, PATIENCE};

/// One window. Closed when it is dropped.
pub struct Browser {
    driver: Process,
    port: Port,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Opens a window of that size. `None`: there is no chromedriver here; then that has been said aloud.
    pub fn open(width: u32, height: u32, dark: bool) -> Option<Browser> {
        if Command::new("chromedriver")
            .arg("--version")
            .output()
            .is_err()
        {
            skipped("there is no chromedriver here");
            return None;
        }
        let port = Port::claim();
        let mut command = mortal("chromedriver");
        command.arg(format!("--port={}", port.number()));
        let driver = Process::start(&mut command);
        let profile = TempDir::new();
        let mut browser = Browser {
            driver,
            port,
            session: String::new(),
            _profile: profile,
        };
        wait_for("chromedriver answers", PATIENCE, || {
            browser.request("GET", "/status", None).is_some()
        });
        let mut args = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", browser._profile.path("profile")),
        ];
        if dark {
            args.push("--force-dark-mode".to_owned());
            args.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": {"args": args}}}});
        let made = browser
            .request("POST", "/session", Some(wanted))
            .expect("an answer");
        let session = made["sessionId"].as_str();
        browser.session = format!(
            "/session/{}",
            session.unwrap_or_else(|| panic!("no session: {made}"))
        );
        Some(browser)
    }

    /// Goes to that page.
    pub fn visit(&self, url: &str) {
        self.ask("POST", "/url", Some(json!({"url": url})));
    }

    /// What the body of a function of JavaScript returns.
    pub fn run(&self, script: &str) -> Value {
        self.ask(
            "POST",
            "/execute/sync",
            Some(json!({"script": script, "args": []})),
        )
    }

    /// What the window shows, as PNG.
    pub fn screenshot(&self) -> Vec<u8> {
        let text = self.ask("GET", "/screenshot", None);
        base64(text.as_str().expect("a picture"))
    }

    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let path = format!("{}{path}", self.session);
        let answer = self.request(method, &path, body).expect("an answer");
        assert!(answer.get("error").is_none(), "{path}: {answer}");
        answer
    }

    /// The `value` of the answer; `None` when there is nobody.
    fn request(&self, method: &str, path: &str, body: Option<Value>) -> Option<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port.number())).ok()?;
        stream.set_read_timeout(Some(3 * PATIENCE)).unwrap();
        let body = body.map_or(String::new(), |body| body.to_string());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()?;
        // It keeps the connection open, whatever it is asked for.
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line).ok()?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body).ok()?;
        let mut answer: Value = serde_json::from_slice(&body).ok()?;
        Some(answer["value"].take())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its session; the driver is ours to end.
        if !self.session.is_empty() {
            self.request("DELETE", &self.session, None);
        }
        self.driver.kill();
    }
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for digit in text.bytes().filter_map(digit) {
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
