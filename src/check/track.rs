//! The file that keepalived's `track_file` reads.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file with one number in it.
pub struct TrackFile {
    path: PathBuf,
    /// Written first, and renamed: a reader sees the old number or the new one, never half of one.
    new: PathBuf,
}

impl TrackFile {
    /// The one at `path`; nothing is written yet.
    pub fn at(path: &Path) -> TrackFile {
        let mut new = OsString::from(path);
        new.push(".new");
        TrackFile {
            path: path.to_owned(),
            new: new.into(),
        }
    }

    /// Puts the number there.
    pub fn write(&self, number: u8) -> io::Result<()> {
        fs::write(&self.new, format!("{number}\n"))?;
        fs::rename(&self.new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_replaced_and_nothing_is_left_behind() {
        let directory = std::env::temp_dir().join(format!("magent-track-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("t");
        let file = TrackFile::at(&path);
        for number in [0, 2, 1] {
            file.write(number).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{number}\n"));
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(&directory).unwrap();
        assert!(file.write(0).is_err());
    }
}
