//! What this machine must have of what a file names: folders, secrets.

use super::SECRET_BYTES_MAX;
use crate::config::keys::Span;
use std::path::PathBuf;

pub(super) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A path that has to be there when the file is read for a run or a check.
pub(in crate::config) struct Lookup {
    pub(in crate::config) span: Span,
    pub(in crate::config) key: String,
    pub(super) path: PathBuf,
    pub(super) wanted: Wanted,
}

/// What it is to be.
pub(super) enum Wanted {
    Folder,
    Secret,
    Anything,
}

impl Lookup {
    /// What is wrong, and what to do.
    pub(in crate::config) fn fault(&self) -> Option<(String, &'static str)> {
        let shown = self.path.display();
        let found = std::fs::metadata(&self.path);
        match (&self.wanted, found) {
            (_, Err(error)) => Some((format!("{shown}: {error}"), "correct the path, or make it")),
            (Wanted::Folder, Ok(found)) if !found.is_dir() => {
                Some((format!("{shown} is not a folder"), "name a folder"))
            }
            (Wanted::Secret, Ok(found)) if !found.is_file() => {
                Some((format!("{shown} is not a file"), "name a file"))
            }
            (Wanted::Secret, Ok(found)) if found.len() > SECRET_BYTES_MAX => {
                let what = format!("{shown} is larger than {SECRET_BYTES_MAX} bytes");
                Some((what, "hand over a key, and put the rest into a file"))
            }
            (Wanted::Secret, Ok(found)) if found.len() == 0 => {
                Some((format!("{shown} is empty"), "write the secret into it"))
            }
            (Wanted::Secret, Ok(_)) => {
                let error = std::fs::File::open(&self.path).err()?;
                Some((format!("{shown}: {error}"), "make it readable for who runs the supervisor"))
            }
            _ => None,
        }
    }
}
