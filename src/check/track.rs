//! The file that keepalived's `track_file` reads.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file with one number in it.
pub struct TrackFile {
    path: PathBuf,
}

impl TrackFile {
    /// The one at `path`; nothing is written yet.
    pub fn at(path: &Path) -> TrackFile {
        TrackFile {
            path: path.to_owned(),
        }
    }

    /// Puts the number there: written to a new file first, which takes its name, so a reader sees the old number or the new
    /// one, never half of one. The directory may be another user's: no file that is there already is opened.
    pub fn write(&self, number: u8) -> io::Result<()> {
        let mut new = OsString::from(&self.path);
        // Drawn anew each time, so nobody can have made it before.
        new.push(format!(".{:016x}", RandomState::new().hash_one(number)));
        let new = PathBuf::from(new);
        let mut file = File::create_new(&new)?;
        let written = writeln!(file, "{number}").and_then(|()| fs::rename(&new, &self.path));
        if written.is_err() {
            // What is said is why it could not be written.
            let _ = fs::remove_file(&new);
        }
        written
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
