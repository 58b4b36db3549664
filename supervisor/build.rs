//! Links the release binary with everything in it and at a fixed address, where the C library's archives are there for that
//! (docs/decisions/0012): nothing is to be looked up or relocated at a start, so pages stay shared and ends are short.
//! `SHOAL_LINK=dynamic` leaves it as it would be.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// What the standard library asks the linker for.
const LIBRARIES: [&str; 6] = ["c", "m", "dl", "rt", "pthread", "util"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SHOAL_LINK");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|is| is == value);
    let here = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    let native = env::var("HOST").is_ok() && env::var("HOST") == env::var("TARGET");
    if !here || !native || !is("PROFILE", "release") || is("SHOAL_LINK", "dynamic") {
        return;
    }
    let folder = PathBuf::from(env::var("OUT_DIR").unwrap_or_default()).join("archives");
    // Where an archive is lacking, the libraries are looked up at each start, as everywhere.
    if let Ok(true) = gather(&folder) {
        // The linker looks into this folder first, and finds no shared library in it.
        for argument in [&format!("-L{}", folder.display()), "-no-pie", "-static"] {
            println!("cargo:rustc-link-arg-bins={argument}");
        }
    }
}

/// Gathers the archives in a folder; whether all are there.
fn gather(folder: &Path) -> io::Result<bool> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    for library in LIBRARIES {
        let name = format!("lib{library}.a");
        let said = Command::new("cc").arg(format!("-print-file-name={name}")).output()?;
        let path = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
        if !path.is_absolute() || !path.exists() {
            return Ok(false);
        }
        symlink(path, folder.join(name))?;
    }
    // What unwinds is in two archives, which need the C library behind them.
    fs::write(folder.join("libgcc_s.a"), "GROUP ( -lgcc_eh -lgcc -lc )\n")?;
    Ok(true)
}
