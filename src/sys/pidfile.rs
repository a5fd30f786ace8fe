//! `--pidfile`: a locked file with the process id. The lock, not the number in it, says whether the owner lives: a
//! file left behind by a crash is simply taken over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::trusted::{self, Owner};
use super::SystemError;

/// How long to wait for a holder that may be about to end: a restart starts the new process while the old one still
/// lets its last requests finish.
const PATIENCE: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(20);

/// The pid file of this process: removed when dropped.
pub struct PidFile {
    path: PathBuf,
    file: Option<Flock<File>>,
    /// Not another process's.
    ours: bool,
}

impl PidFile {
    /// Opens, locks and writes the file. An error when a living process holds it.
    ///
    /// A link is not followed, and what is no plain file with one name is left alone: root's number must not land in another
    /// file. `owner`: who the process will become.
    pub fn create(path: &Path, owner: Owner) -> Result<PidFile, SystemError> {
        let what = format!("--pidfile {}", path.display());
        let failed = |error: &io::Error| SystemError::io(&what, error);
        let patient_until = Instant::now() + PATIENCE;
        loop {
            let (file, _) = trusted::create(path, owner, || open(path)).map_err(|e| failed(&e))?;
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((mut file, Errno::EWOULDBLOCK)) if Instant::now() >= patient_until => {
                    return Err(held(&what, &mut file));
                }
                Err((_, Errno::EWOULDBLOCK)) => {
                    thread::sleep(PAUSE);
                    continue;
                }
                Err((_, error)) => return Err(failed(&error.into())),
            };
            // Its last owner may have removed it between open and lock: then this is no longer the file at that path.
            if !is_at(&file, path) {
                if Instant::now() >= patient_until {
                    return Err(SystemError::new(&what, "somebody keeps replacing it"));
                }
                thread::sleep(PAUSE);
                continue;
            }
            let written = file
                .set_len(0)
                .and_then(|()| writeln!(file, "{}", std::process::id()));
            written.map_err(|e| failed(&e))?;
            return Ok(PidFile {
                path: path.to_owned(),
                file: Some(file),
                ours: true,
            });
        }
    }
}

impl PidFile {
    /// The pid file of a magent whose place this process takes, with its lock; not written to yet.
    pub fn inherit(path: &Path, file: OwnedFd) -> io::Result<PidFile> {
        // The lock belongs to the open file, which both have: taking it again succeeds.
        let locked = Flock::lock(File::from(file), FlockArg::LockExclusiveNonblock);
        let file = locked.map_err(|(_, error)| io::Error::from(error))?;
        Ok(PidFile {
            path: path.to_owned(),
            file: Some(file),
            ours: false,
        })
    }

    /// From now on it is this process's: writes its id.
    pub fn rewrite(&mut self) -> io::Result<()> {
        self.ours = true;
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.rewind()?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(|file| file.as_fd())
    }

    /// Another process has it now: it is not removed.
    pub fn leave(mut self) {
        self.ours = false;
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else {
            return;
        };
        if !self.ours {
            // Dropped, it would take the lock from the other as well. The end of the process closes it.
            std::mem::forget(file);
        } else if is_at(&file, &self.path) && fs::remove_file(&self.path).is_err() {
            // The ids that made it in a directory of root's are gone. An empty file claims nothing.
            let _ = file.set_len(0);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(super::no_link)?;
    let there = file.metadata()?;
    if !there.is_file() || there.nlink() > 1 {
        return Err(io::Error::other("not a plain file of one name"));
    }
    Ok(file)
}

fn held(what: &str, file: &mut File) -> SystemError {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    match text.trim().parse::<u32>() {
        Ok(pid) => SystemError::new(what, format_args!("held by the running process {pid}")),
        Err(_) => SystemError::new(what, "held by a running process"),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_locked_removed() {
        let path = std::env::temp_dir().join(format!("magent-pidfile-{}", std::process::id()));
        fs::write(&path, "123456 left behind by a crash, and longer\n").unwrap();
        let held = PidFile::create(&path, (None, None)).unwrap();
        let pid = std::process::id();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{pid}\n"));
        let error = PidFile::create(&path, (None, None))
            .err()
            .map(|e| e.to_string());
        let expected = format!(
            "--pidfile {}: held by the running process {pid}",
            path.display()
        );
        assert_eq!(error, Some(expected));
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn neither_a_link_nor_a_device_is_written_to() {
        let folder = std::env::temp_dir().join(format!("magent-pidlink-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (link, target) = (folder.join("link"), folder.join("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let why = |path: &Path| {
            let error = PidFile::create(path, (None, None)).err();
            error.map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(why(&link).ends_with("is a symbolic link (name the file itself)"));
        assert!(!target.exists(), "made through a dangling link");
        fs::write(&target, "precious").unwrap();
        let second = folder.join("second");
        fs::hard_link(&target, &second).unwrap();
        assert!(why(&link).ends_with("is a symbolic link (name the file itself)"));
        assert!(why(&second).ends_with("not a plain file of one name"));
        assert!(why(Path::new("/dev/null")).ends_with("not a plain file of one name"));
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = PidFile::create(Path::new("/nonexistent/x.pid"), (None, None))
            .err()
            .map(|e| e.to_string());
        assert_eq!(
            error.as_deref(),
            Some("--pidfile /nonexistent/x.pid: No such file or directory")
        );
    }
}
