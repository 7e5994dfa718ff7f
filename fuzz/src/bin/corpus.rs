//! Brings corpora from libFuzzer's folders, one file for each input, into files of one line for each, and back.
//!
//! `corpus unpack <target> <folder>` writes seeds and corpus of a target into a folder for libFuzzer to start from;
//! `corpus pack <folder> [bytes]` prints a folder's inputs as lines, the shortest first, up to so many bytes.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::process::ExitCode;

use wharf_fuzz::seeds::escape;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["unpack", target, folder] => unpack(target, Path::new(folder)),
        ["pack", folder] => pack(Path::new(folder), usize::MAX),
        ["pack", folder, limit] => match limit.parse() {
            Ok(limit) => pack(Path::new(folder), limit),
            Err(error) => Err(std::io::Error::other(format!(
                "{limit} is no number of bytes: {error}"
            ))),
        },
        _ => Err(std::io::Error::other(
            "usage: corpus unpack <target> <folder> | corpus pack <folder> [bytes]",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn unpack(target: &str, folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    for input in wharf_fuzz::target(target).inputs() {
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        fs::write(folder.join(format!("{:016x}", hasher.finish())), input)?;
    }
    Ok(())
}

fn pack(folder: &Path, limit: usize) -> std::io::Result<()> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder)? {
        lines.push(escape(&fs::read(entry?.path())?));
    }
    lines.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    lines.dedup();
    let mut left = limit;
    for line in lines.iter().filter(|line| !line.is_empty()) {
        match left.checked_sub(line.len() + 1) {
            Some(rest) => left = rest,
            None => break,
        }
        println!("{line}");
    }
    Ok(())
}
