//! Tells of every file below a folder, in one order always, so that a restarted lister goes on where its predecessor
//! was: at the number of messages ever sent.

use shoal_examples::Task;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> std::process::ExitCode {
    shoal_agent::run(|agent| {
        let folder = std::env::args_os().nth(1).ok_or("which folder? `lister FOLDER`")?;
        let tasks = agent.publish::<Task>("tasks")?;
        agent.ready()?;
        let mut files = Vec::new();
        walk(Path::new(&folder), &mut files)?;
        files.sort();
        for path in &files[usize::try_from(agent.sent(&tasks))?.min(files.len())..] {
            if agent.stopping() {
                break;
            }
            agent.send(&tasks, &Task { path: path.clone() })?;
        }
        Ok(())
    })
}

/// Collects the regular files below a folder whose names are UTF-8 and that can be read.
fn walk(folder: &Path, files: &mut Vec<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let path: PathBuf = entry.path();
        if kind.is_dir() {
            // A folder that cannot be read is left out.
            let _ = walk(&path, files);
        } else if kind.is_file()
            && fs::File::open(&path).is_ok()
            && let Some(path) = path.to_str()
        {
            files.push(path.to_owned());
        }
    }
    Ok(())
}
