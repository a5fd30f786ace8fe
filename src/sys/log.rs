//! Where the log goes: stderr in the foreground, `--log-file` when given, syslog for a daemon without one.
//! `RUST_LOG` overrides the level that `-v` asks for.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::SystemError;

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
        owner: (Option<u32>, Option<u32>),
    ) -> Result<Logs, SystemError> {
        let mut builder = Builder::new();
        builder.filter_level(level(verbose)).parse_default_env();
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
            None if daemon => Box::new(Syslog::open(logger)),
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
}

impl Syslog {
    fn open(filter: env_logger::Logger) -> Syslog {
        // SAFETY: the identity is a static string, as openlog keeps the pointer. It opens the connection now, while
        // the process has all its rights.
        unsafe {
            libc::openlog(
                c"magent".as_ptr(),
                libc::LOG_PID | libc::LOG_NDELAY,
                libc::LOG_DAEMON,
            );
        }
        Syslog { filter }
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
        if let Ok(text) = CString::new(record.args().to_string().replace('\0', "?")) {
            // SAFETY: both strings end with NUL and outlive the call, and the format takes exactly one of them.
            unsafe { libc::syslog(priority, c"%s".as_ptr(), text.as_ptr()) };
        }
    }

    fn flush(&self) {}
}
