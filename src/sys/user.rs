//! Users and groups: names become ids before anything is opened, and the ids are taken on after everything that
//! needs root is open. What the kernel says afterwards is compared with what was asked for: a proxy that believes
//! it has dropped root and has not is worse than one that does not start.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{self, Gid, Group, Uid, User};

use super::SystemError;

/// Who to become. Made by [`Identity::resolve`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    uid: Option<Uid>,
    /// The group of `-g`.
    gid: Option<Gid>,
    /// The user's own group, taken without `-g`.
    primary: Option<Gid>,
    /// The name whose supplementary groups are taken; without one there are none but `gid`.
    groups_of: Option<CString>,
    /// The options, for messages.
    asked: String,
}

impl Identity {
    /// Looks the names of `-u` and `-g` up: names first, then numeric ids, as chown does it. A number needs no data base: an
    /// image without /etc/passwd has none.
    pub fn resolve(user: Option<&str>, group: Option<&str>) -> Result<Identity, SystemError> {
        let mut identity = Identity {
            uid: None,
            gid: None,
            primary: None,
            groups_of: None,
            asked: asked(user, group),
        };
        if let Some(text) = user {
            identity.take_user(text, group.is_some())?;
        }
        if let Some(text) = group {
            identity.gid = Some(find_group(text)?);
        }
        Ok(identity)
    }

    fn take_user(&mut self, text: &str, has_group: bool) -> Result<(), SystemError> {
        let what = format!("-u {text}");
        let failed = |error: Errno| SystemError::new(&what, error.desc());
        let number = number(text).map(Uid::from_raw);
        let mut found = unless_number(User::from_name(text), number.is_some()).map_err(failed)?;
        let uid = found.as_ref().map(|user| user.uid).or(number);
        if let (None, Some(uid)) = (&found, number) {
            found = unless_number(User::from_uid(uid), true).map_err(failed)?;
        }
        match (uid, found) {
            (None, _) => return Err(SystemError::new(what, "no such user")),
            (Some(_), None) if !has_group => {
                return Err(SystemError::new(
                    what,
                    "no such user, so the group is not known (give -g too)",
                ));
            }
            (uid, Some(user)) => {
                self.uid = uid;
                self.primary = Some(user.gid);
                self.groups_of = CString::new(user.name).ok();
            }
            (uid, None) => self.uid = uid,
        }
        Ok(())
    }

    /// Ids that files should belong to so that they can still be opened and removed afterwards.
    pub fn owner(&self) -> (Option<u32>, Option<u32>) {
        let gid = self.gid.or(self.primary);
        (self.uid.map(Uid::as_raw), gid.map(Gid::as_raw))
    }

    /// Takes the ids on, for good. Nothing happens when the process has them already, or stays root by `-u root`.
    pub fn assume(&self) -> Result<(), SystemError> {
        let uid = self.uid.unwrap_or_else(unistd::geteuid);
        let stays = self.uid.is_none() || (uid == unistd::geteuid() && uid == unistd::getuid());
        let own_group = if stays { None } else { self.primary };
        let gid = self.gid.or(own_group).unwrap_or_else(unistd::getegid);
        let same_group =
            self.gid.is_none() || (gid == unistd::getegid() && gid == unistd::getgid());
        if stays && same_group {
            return Ok(());
        }
        self.set_ids(uid, gid).map_err(|error| match error {
            Errno::EPERM => {
                SystemError::new(&self.asked, "not permitted to change to it (needs root)")
            }
            error => SystemError::new(&self.asked, error.desc()),
        })?;
        self.verify(uid, gid)
    }

    /// Groups first, then group, then user: each step needs the rights that the next one gives up.
    fn set_ids(&self, uid: Uid, gid: Gid) -> Result<(), Errno> {
        match &self.groups_of {
            Some(name) => unistd::initgroups(name, gid)?,
            None => unistd::setgroups(&[gid])?,
        }
        unistd::setresgid(gid, gid, gid)?;
        unistd::setresuid(uid, uid, uid)
    }

    fn verify(&self, uid: Uid, gid: Gid) -> Result<(), SystemError> {
        let failed = |error: Errno| SystemError::new(&self.asked, error.desc());
        let users = unistd::getresuid().map_err(failed)?;
        let groups = unistd::getresgid().map_err(failed)?;
        let taken = [users.real, users.effective, users.saved]
            .iter()
            .all(|&id| id == uid)
            && [groups.real, groups.effective, groups.saved]
                .iter()
                .all(|&id| id == gid);
        if !taken {
            return Err(SystemError::new(
                &self.asked,
                "the system did not take on all of these ids",
            ));
        }
        if !uid.is_root() && unistd::setuid(Uid::from_raw(0)).is_ok() {
            return Err(SystemError::new(&self.asked, "root could be regained"));
        }
        Ok(())
    }
}

fn asked(user: Option<&str>, group: Option<&str>) -> String {
    match (user, group) {
        (Some(user), Some(group)) => format!("-u {user} -g {group}"),
        (Some(user), None) => format!("-u {user}"),
        (None, Some(group)) => format!("-g {group}"),
        (None, None) => "-u".into(),
    }
}

fn find_group(text: &str) -> Result<Gid, SystemError> {
    let what = format!("-g {text}");
    let number = number(text).map(Gid::from_raw);
    let found = unless_number(Group::from_name(text), number.is_some())
        .map_err(|error| SystemError::new(&what, error.desc()))?;
    found
        .map(|group| group.gid)
        .or(number)
        .ok_or_else(|| SystemError::new(what, "no such group"))
}

/// An id; the largest number is none.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&id| id != u32::MAX)
}

/// What was found. A data base that is not there knows nobody, and one that fails is not needed for a number.
fn unless_number<T>(found: nix::Result<Option<T>>, is_number: bool) -> nix::Result<Option<T>> {
    match found {
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        Err(_) if is_number => Ok(None),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(user: Option<&str>, group: Option<&str>) -> String {
        match Identity::resolve(user, group) {
            Err(error) => error.to_string(),
            Ok(identity) => panic!("{identity:?}"),
        }
    }

    #[test]
    fn names_and_numbers() {
        let by_name = Identity::resolve(Some("root"), None).unwrap();
        let by_number = Identity::resolve(Some("0"), None).unwrap();
        assert_eq!(by_name.owner(), (Some(0), Some(0)));
        assert_eq!(by_number.owner(), by_name.owner());
        let group_only = Identity::resolve(None, Some("0")).unwrap();
        assert_eq!(group_only.owner(), (None, Some(0)));
        let no_names = Identity::resolve(Some("3999999999"), Some("3999999999")).unwrap();
        assert_eq!(no_names.owner(), (Some(3_999_999_999), Some(3_999_999_999)));
    }

    #[test]
    fn what_does_not_exist_is_an_error() {
        assert_eq!(
            error(Some("no-such-user"), None),
            "-u no-such-user: no such user"
        );
        assert_eq!(
            error(None, Some("no-such-group")),
            "-g no-such-group: no such group"
        );
        assert_eq!(
            error(Some("4294967295"), None),
            "-u 4294967295: no such user"
        );
        assert_eq!(
            error(Some("3999999999"), None),
            "-u 3999999999: no such user, so the group is not known (give -g too)"
        );
    }

    #[test]
    fn staying_who_one_is_needs_nothing() {
        let none = Identity::resolve(None, None).unwrap();
        assert_eq!(none.assume(), Ok(()));
        if unistd::geteuid().is_root() {
            assert_eq!(
                Identity::resolve(Some("root"), None).unwrap().assume(),
                Ok(())
            );
        }
    }
}
