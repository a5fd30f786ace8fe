//! Where the log goes: stderr in the foreground, `--log-file` when given, syslog for a daemon without one.
//! `RUST_LOG` overrides the level that `-v` asks for.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use env_logger::{Builder, Target};
use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::SystemError;
use crate::config::LogFormat;

/// The opened log; kept to open it again.
pub struct Logs {
    file: Option<(PathBuf, Arc<Mutex<File>>)>,
}

impl Logs {
    /// Opens the log and makes it the process's. `verbose` counts `-v`; `owner` gets a new file, so that it can still
    /// be opened again when root is given up.
    pub fn open(
        path: Option<&Path>,
        daemon: bool,
        verbose: u8,
        format: LogFormat,
        owner: (Option<u32>, Option<u32>),
    ) -> Result<Logs, SystemError> {
        let mut builder = Builder::new();
        builder.filter_level(level(verbose)).parse_default_env();
        if format == LogFormat::Json {
            builder.format(|line, record| {
                let time = line.timestamp_millis().to_string();
                writeln!(line, "{}", json(record, Some(time)))
            });
        }
        let mut logs = Logs { file: None };
        if let Some(path) = path {
            let file = Arc::new(Mutex::new(create(path, owner)?));
            logs.file = Some((path.to_owned(), Arc::clone(&file)));
            builder.target(Target::Pipe(Box::new(Shared(file))));
        } else {
            builder.target(Target::Stderr);
        }
        let logger = builder.build();
        let most = logger.filter();
        let logger: Box<dyn Log> = match path {
            None if daemon => Box::new(Syslog::open(logger, format)),
            _ => Box::new(logger),
        };
        if log::set_boxed_logger(logger).is_ok() {
            log::set_max_level(most);
        }
        Ok(logs)
    }

    /// Opens `--log-file` again, so that it can be moved away. On failure the old one is used on.
    pub fn reopen(&self) {
        let Some((path, file)) = &self.file else {
            return;
        };
        match append_to(path) {
            Ok(new) => {
                if let Ok(mut file) = file.lock() {
                    *file = new;
                }
                log::info!("log file opened again");
            }
            Err(error) => log::error!("--log-file {}: {}", path.display(), super::reason(&error)),
        }
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
    serde_json::Value::Object(line).to_string()
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

fn create(path: &Path, owner: (Option<u32>, Option<u32>)) -> Result<File, SystemError> {
    let is_new = !path.exists();
    let file = append_to(path)
        .map_err(|error| SystemError::io(format_args!("--log-file {}", path.display()), &error))?;
    if is_new {
        // Without the right to give it away the file stays ours, and so do the ids.
        let _ = std::os::unix::fs::fchown(&file, owner.0, owner.1);
    }
    Ok(file)
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// A file that can be replaced under the logger.
struct Shared(Arc<Mutex<File>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.lock() {
            Ok(mut file) => file.write(bytes),
            Err(_) => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The C library's syslog; env_logger only decides what is logged.
struct Syslog {
    filter: env_logger::Logger,
    format: LogFormat,
}

impl Syslog {
    fn open(filter: env_logger::Logger, format: LogFormat) -> Syslog {
        // SAFETY: the identity is a static string, as openlog keeps the pointer. It opens the connection now, while
        // the process has all its rights.
        unsafe {
            libc::openlog(
                c"magent".as_ptr(),
                libc::LOG_PID | libc::LOG_NDELAY,
                libc::LOG_DAEMON,
            );
        }
        Syslog { filter, format }
    }
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
        if let Ok(text) = CString::new(line.replace('\0', "?")) {
            // SAFETY: both strings end with NUL and outlive the call, and the format takes exactly one of them.
            unsafe { libc::syslog(priority, c"%s".as_ptr(), text.as_ptr()) };
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

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
