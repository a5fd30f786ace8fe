//! The model against a real memcached: the same random commands, the same bytes. Only clocks and versions of the two
//! differ, so times to live are long, and the version of each is what it gave.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::memcached::{Memcached, Session};
use super::profile::{Plan, Profile};
use super::rng::Rng;

/// A real server, killed with the test.
struct Real {
    child: Child,
    stream: TcpStream,
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start() -> Real {
    // A port that is free now is likely to be free in a moment; if not, another is tried.
    for _ in 0..20 {
        let free =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("there are free ports").port();
        let mut command = Command::new("memcached");
        command.args([
            "-l",
            "127.0.0.1",
            "-U",
            "0",
            "-u",
            "root",
            "-p",
            &port.to_string(),
        ]);
        // Its background thread holds items now and then; a number is written anew then, without the spaces.
        command.args(["-o", "no_lru_maintainer"]);
        let spawned = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = spawned.expect("memcached is installed (make deps)");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) && matches!(child.try_wait(), Ok(None)) {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                return Real { child, stream };
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("memcached does not start");
}

impl Real {
    /// What it answers, up to the reply to a closing command that nobody else sends.
    fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.stream.write_all(bytes).expect("memcached takes it");
        self.stream
            .write_all(b"mg the-last-one k\r\n")
            .expect("memcached takes it");
        let last = b"EN kthe-last-one\r\n";
        let mut reply = Vec::new();
        let mut piece = [0; 64 * 1024];
        while !reply.ends_with(last) {
            let count = self.stream.read(&mut piece).expect("memcached answers");
            assert!(count > 0, "memcached closed after {}", bytes.escape_ascii());
            reply.extend_from_slice(&piece[..count]);
        }
        reply.truncate(reply.len() - last.len());
        reply
    }
}

#[test]
fn the_model_answers_as_memcached_does() {
    let mut real = start();
    let unix = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("it is after 1970")
            .as_secs() as i64
    };
    let mut model = Memcached::new([1, 6, 18], 1, unix(), 1 << 20);
    model.env.started = unix() - 1;
    let mut session = Session::default();
    let mut rng = Rng::new(4711);
    let mut plan = Plan::draw(Profile::Calm.circumstances(), &mut rng);
    plan.short_times = false;
    plan.flushes = 60;
    plan.keys = 12;
    let mut generator = super::generate::Generator::new(rng.next(), &plan);
    for round in 0..4000 {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        generator.push(&mut bytes, &mut ends);
        let mut from = 0;
        // One at a time: an item whose value waits to be sent is held, too.
        for end in ends {
            let request = &bytes[from..end];
            from = end;
            if request.starts_with(b"stats") || request.starts_with(b"version") {
                continue;
            }
            let mut expected = Vec::new();
            model.set_now(unix());
            model.serve(&mut session, request, usize::MAX, &mut expected);
            let heard = real.ask(request);
            assert!(
                heard == expected || times_apart(&heard, &expected),
                "round {round}: {}\nmemcached: {}\nmodel:     {}",
                request.escape_ascii(),
                heard.escape_ascii(),
                expected.escape_ascii()
            );
            if let Some(token) = version_in(&expected) {
                let index = rng.index(plan.keys);
                generator.tokens[index] = token;
            }
        }
    }
}

/// A version, to be used for any key: right or wrong, both must judge it alike.
fn version_in(reply: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(reply).ok()?;
    let word = text
        .split([' ', '\r'])
        .find(|word| word.len() > 1 && word.starts_with('c'))?;
    word[1..].parse().ok()
}

/// Whether two replies differ only in seconds.
fn times_apart(one: &[u8], other: &[u8]) -> bool {
    let words = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let is_clock = |word: &&[u8]| {
            matches!(word.first(), Some(b't' | b'l')) && word[1..].iter().all(u8::is_ascii_digit)
        };
        let split = bytes.split(|byte| b" \r\n".contains(byte));
        split
            .filter(|word| !is_clock(word))
            .map(<[u8]>::to_vec)
            .collect()
    };
    words(one) == words(other)
}
