//! System calls that neither the standard library nor `rustix` has, and the page cache.

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::Path;

use anyhow::{Context as _, Result};

/// Tells the kernel to begin writing a part of a file, without waiting for it.
pub(crate) fn begin_writing(file: BorrowedFd<'_>, offset: u64, length: u64) -> std::io::Result<()> {
    const WRITE: u32 = 2; // SYNC_FILE_RANGE_WRITE
    #[allow(unsafe_code)]
    // SAFETY: this is the signature of the C library's function on Linux with 64-bit offsets.
    unsafe extern "C" {
        fn sync_file_range(fd: i32, offset: i64, length: i64, flags: u32) -> i32;
    }
    // SAFETY: the call takes no pointers, and the descriptor is borrowed, so that it is open until it returns.
    #[allow(unsafe_code)]
    let done = unsafe { sync_file_range(file.as_raw_fd(), offset as i64, length as i64, WRITE) };
    if done == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Drops what the page cache holds of all files below a folder.
pub(crate) fn forget(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            forget(&entry.path())?;
        } else if kind.is_file() {
            let file = std::fs::File::open(entry.path())?;
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn writing_begins_for_a_file_and_for_nothing_else() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        begin_writing(file.as_fd(), 0, 1 << 20).unwrap();
        let (pipe, _) = std::io::pipe().unwrap();
        assert!(begin_writing(pipe.as_fd(), 0, 1).is_err());
    }
}
