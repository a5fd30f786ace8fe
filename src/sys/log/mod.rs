//! Where the log goes: stderr in the foreground, `--log-file` when given, syslog for a daemon without one.
//! `RUST_LOG` overrides the level that `-v` asks for. A thread of its own writes it (`writer`): logging never waits.

mod writer;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use env_logger::{Builder, Target};
use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::fcntl::{FcntlArg, OFlag};

use super::trusted::{self, Owner};
use super::SystemError;
use crate::config::LogFormat;

pub use writer::dropped;
use writer::{Queue, Sink};

/// The opened log; kept to open it again. Dropped, it waits a moment until all is written.
pub struct Logs {
    queue: Queue,
}

impl Logs {
    /// Opens the log and makes it the process's. `verbose` counts `-v`; `owner` gets a new file, so that it can still
    /// be opened again when root is given up.
    pub fn open(
        path: Option<&Path>,
        daemon: bool,
        verbose: u8,
        format: LogFormat,
        owner: Owner,
    ) -> Result<Logs, SystemError> {
        let mut builder = Builder::new();
        builder.filter_level(level(verbose)).parse_default_env();
        if format == LogFormat::Json {
            builder.format(|line, record| {
                let time = line.timestamp_millis().to_string();
                writeln!(line, "{}", json(record, Some(time)))
            });
        }
        let sink = match path {
            Some(path) => Sink::File(path.to_owned(), create(path, owner)?),
            None if daemon => Sink::Syslog,
            None => Sink::Stderr,
        };
        let is_syslog = matches!(sink, Sink::Syslog);
        if is_syslog {
            open_syslog();
        }
        let queue = Queue::start(sink).map_err(|error| SystemError::io("log", &error))?;
        builder.target(Target::Pipe(Box::new(queue.clone())));
        let filter = builder.build();
        let most = filter.filter();
        let logger: Box<dyn Log> = if is_syslog {
            let queue = queue.clone();
            Box::new(Syslog {
                filter,
                format,
                queue,
            })
        } else {
            Box::new(filter)
        };
        if log::set_boxed_logger(logger).is_ok() {
            log::set_max_level(most);
        }
        Ok(Logs { queue })
    }

    /// Opens `--log-file` again, so that it can be moved away. On failure the old one is used on.
    pub fn reopen(&self) {
        if !self.queue.reopen() {
            log::error!("--log-file: not opened again, its lines are not taken");
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.queue.flush();
    }
}

/// The message, then its words as `name=value`, as env_logger writes them.
fn text(record: &Record<'_>) -> String {
    let mut line = record.args().to_string();
    for (name, value) in words(record) {
        line += &format!(" {name}={value}");
    }
    line
}

/// One JSON object: `time` (UTC, RFC 3339), `level`, `message`, and the words of an event.
fn json(record: &Record<'_>, time: Option<String>) -> String {
    let mut line = serde_json::Map::new();
    line.extend(time.map(|time| ("time".to_owned(), time.into())));
    let level = record.level().as_str().to_ascii_lowercase();
    line.insert("level".into(), level.into());
    line.insert("message".into(), record.args().to_string().into());
    let words = words(record).into_iter();
    line.extend(words.map(|(name, value)| (name, value.into())));
    let line = serde_json::Value::Object(line).to_string();
    // JSON allows the rest of the control characters as they are; a terminal obeys them.
    let mut plain = String::with_capacity(line.len());
    for letter in line.chars() {
        match letter.is_control() {
            true => plain += &format!("\\u{:04x}", u32::from(letter)),
            false => plain.push(letter),
        }
    }
    plain
}

fn words(record: &Record<'_>) -> Vec<(String, String)> {
    struct Words(Vec<(String, String)>);
    impl<'kvs> VisitSource<'kvs> for Words {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
            self.0.push((key.to_string(), value.to_string()));
            Ok(())
        }
    }
    let mut words = Words(Vec::new());
    // It cannot fail: the visitor takes all.
    let _ = record.key_values().visit(&mut words);
    words.0
}

/// State changes are always worth a line; requests only with `-vv`, all there is with `-vvv`.
fn level(verbose: u8) -> LevelFilter {
    match verbose {
        0 | 1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}

fn create(path: &Path, owner: Owner) -> Result<File, SystemError> {
    let is_new = !path.exists();
    let opened = trusted::create(path, owner, || append_to(path));
    let (file, is_ours) = opened
        .map_err(|error| SystemError::io(format_args!("--log-file {}", path.display()), &error))?;
    if is_new && is_ours {
        // Without the right to give it away the file stays ours, and so do the ids.
        let _ = std::os::unix::fs::fchown(&file, owner.0, owner.1);
    }
    Ok(file)
}

/// Opens it without waiting: a FIFO that nobody reads is an error. The name itself must not be a link.
fn append_to(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(super::no_link)?;
    // Who writes may wait.
    nix::fcntl::fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file)
}

/// Connects to syslog now, while the process has all its rights.
fn open_syslog() {
    // SAFETY: the identity is a static string, as openlog keeps the pointer.
    unsafe {
        libc::openlog(
            c"magent".as_ptr(),
            libc::LOG_PID | libc::LOG_NDELAY,
            libc::LOG_DAEMON,
        );
    }
}

/// The C library's syslog; env_logger only decides what is logged.
struct Syslog {
    filter: env_logger::Logger,
    format: LogFormat,
    queue: Queue,
}

impl Log for Syslog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.filter.matches(record) {
            return;
        }
        let priority = match record.level() {
            Level::Error => libc::LOG_ERR,
            Level::Warn => libc::LOG_WARNING,
            Level::Info => libc::LOG_INFO,
            Level::Debug | Level::Trace => libc::LOG_DEBUG,
        };
        let line = match self.format {
            LogFormat::Text => text(record),
            // Syslog has its own time.
            LogFormat::Json => json(record, None),
        };
        self.queue.syslog(priority, &line);
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_command_no_terminal_in_json_either() {
        let said = "a\x1b[2J\u{9b}31m\x7f\n";
        let mut builder = Record::builder();
        let line = json(&builder.args(format_args!("{said}")).build(), None);
        assert!(!line.contains(char::is_control), "{line:?}");
        let back: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(back["message"], said);
    }

    #[test]
    fn a_line_of_json_holds_what_the_text_says() {
        let words = [("event", "server_down"), ("subject", "a:1")];
        let args = format_args!("server a:1: down: \"refused\"");
        let record = Record::builder()
            .level(Level::Warn)
            .args(args)
            .key_values(&words)
            .build();
        let line: serde_json::Value =
            serde_json::from_str(&json(&record, Some("now".into()))).unwrap();
        let expect = serde_json::json!({
            "time": "now", "level": "warn", "message": "server a:1: down: \"refused\"",
            "event": "server_down", "subject": "a:1",
        });
        assert_eq!(line, expect);
        assert_eq!(
            text(&record),
            "server a:1: down: \"refused\" event=server_down subject=a:1"
        );
    }
}
