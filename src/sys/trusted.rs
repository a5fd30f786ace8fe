//! Files that are made while the process is still root, for the user that it will become. That user must not be able to turn
//! root's rights against others' files: a link that it planted, or a directory that it exchanged, would make root write to,
//! or give away, whatever the link leads to. So such a file is made with the user's own rights. Root's are used only where
//! that user can change nothing on the way to the file.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, AT_FDCWD};
use nix::unistd::{self, AccessFlags, Gid, Uid};

/// The user and group that the process will become; `None`: it stays who it is.
pub type Owner = (Option<u32>, Option<u32>);

/// As many links as Linux follows on one way.
const LINKS_MAX: usize = 40;

/// Makes what belongs at `path`, an absolute one, by `make`. With the rights of `owner` where that user may, else with the
/// process's own, if `owner` could not have planted anything there. True: it was made with the process's own rights, and is
/// still to be given to `owner`.
pub fn create<T>(
    path: &Path,
    owner: Owner,
    make: impl Fn() -> io::Result<T>,
) -> io::Result<(T, bool)> {
    let (Some(uid), gid) = owner else {
        return Ok((make()?, true));
    };
    let (uid, gid) = (Uid::from_raw(uid), gid.map(Gid::from_raw));
    if uid == unistd::geteuid() || !unistd::geteuid().is_root() {
        return Ok((make()?, true));
    }
    match as_user(uid, gid, &make)? {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let way = directories(path)?;
            if as_user(uid, gid, || way.iter().any(|at| is_open_to_me(at, path)))? {
                return Err(error);
            }
            Ok((make()?, true))
        }
        made => Ok((made?, false)),
    }
}

/// Does it with the rights of that user.
fn as_user<T>(uid: Uid, gid: Option<Gid>, work: impl FnOnce() -> T) -> io::Result<T> {
    let own = (unistd::getegid(), unistd::getgroups()?);
    let gid = gid.unwrap_or(own.0);
    let begin = || -> Result<(), Errno> {
        unistd::setgroups(&[gid])?;
        unistd::setegid(gid)?;
        unistd::seteuid(uid)
    };
    let begun = begin();
    let result = begun.is_ok().then(work);
    let restored = unistd::seteuid(Uid::from_raw(0))
        .and_then(|()| unistd::setegid(own.0))
        .and_then(|()| unistd::setgroups(&own.1));
    // Half of the way back would be neither the one nor the other.
    restored?;
    result.ok_or_else(|| begun.err().unwrap_or(Errno::EPERM).into())
}

/// Whether the present user could exchange what lies in that directory. In a sticky one, as `/tmp`, it cannot touch what
/// belongs to others, but can be the first to make the file itself.
fn is_open_to_me(directory: &Path, path: &Path) -> bool {
    let may_write =
        unistd::faccessat(AT_FDCWD, directory, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok();
    let is_sticky = || {
        fs::symlink_metadata(directory).is_ok_and(|there| there.permissions().mode() & 0o1000 != 0)
    };
    may_write && (path.parent() == Some(directory) || !is_sticky())
}

/// All directories in which a name of `path` is looked up, links in it included.
fn directories(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names: Vec<OsString> = names(path);
    let (mut at, mut passed, mut links) = (PathBuf::from("/"), Vec::new(), 0);
    while let Some(name) = names.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        passed.push(at.clone());
        let next = at.join(&name);
        match fs::read_link(&next) {
            Ok(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::ELOOP.into());
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                names.extend(self::names(&target));
            }
            Err(_) => at = next,
        }
    }
    Ok(passed)
}

/// The names in a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink, MetadataExt};

    const NOBODY: u32 = 65_534;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("magent-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_way_goes_through_links() {
        let folder = Folder::new("way");
        let at = |name: &str| folder.0.join(name);
        fs::create_dir(at("real")).unwrap();
        symlink(at("real"), at("absolute")).unwrap();
        symlink("absolute/../real", at("relative")).unwrap();
        let way = directories(&at("relative/file")).unwrap();
        assert_eq!(way.first(), Some(&PathBuf::from("/")));
        assert_eq!(way.last(), Some(&at("real")));
        assert!(way.contains(&folder.0), "{way:?}");
        symlink("round", at("round")).unwrap();
        assert!(directories(&at("round/file")).is_err());
    }

    /// Ids are the whole process's, and tests run side by side: each case has a process of its own.
    #[test]
    fn roots_rights_are_not_lent_to_a_link() {
        if !unistd::geteuid().is_root() {
            return;
        }
        // SAFETY: the child only makes system calls and allocates, and ends without unwinding.
        match unsafe { unistd::fork() }.unwrap() {
            unistd::ForkResult::Child => {
                let held = std::panic::catch_unwind(cases).is_ok();
                // SAFETY: ends this process at once.
                unsafe { libc::_exit(i32::from(!held)) }
            }
            unistd::ForkResult::Parent { child } => {
                let status = nix::sys::wait::waitpid(child, None).unwrap();
                assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
    }

    fn cases() {
        let folder = Folder::new("trusted");
        let at = |name: &str| folder.0.join(name);
        fs::create_dir(at("roots")).unwrap();
        fs::create_dir(at("theirs")).unwrap();
        chown(at("theirs"), Some(NOBODY), Some(NOBODY)).unwrap();
        let owner = (Some(NOBODY), Some(NOBODY));
        let make = |path: PathBuf| create(&path, owner, || fs::write(&path, "x"));
        // In root's folder by root, to be given away; in the user's by the user.
        assert!(make(at("roots/new")).unwrap().1);
        assert!(!make(at("theirs/new")).unwrap().1);
        assert_eq!(fs::metadata(at("theirs/new")).unwrap().uid(), NOBODY);
        // Links that the user planted lead nowhere that it could not go itself.
        symlink(at("roots/planted"), at("theirs/file")).unwrap();
        assert!(make(at("theirs/file")).is_err());
        symlink(at("roots"), at("theirs/folder")).unwrap();
        assert!(make(at("theirs/folder/planted")).is_err());
        assert!(!at("roots/planted").exists());
        assert!(unistd::geteuid().is_root());
    }
}
