//! Whether a database may be used at all, seen without opening or touching it.
//!
//! SQLite itself cannot tell: opening a database recovers its log and makes files beside it. So the header is read here,
//! which costs the same whatever the database holds. [`crate::Meta::open`] calls this first; the server may call it
//! before it takes the folder's lock.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statfs};

use crate::error::{Error, Result};
use crate::migration;

/// "Whrf", in the header of every database of Wharf.
pub(crate) const APPLICATION_ID: i32 = 0x5768_7266;

/// Bytes of a page, as the header states them.
const PAGE: u16 = 4096;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No database: one would be made.
    Nothing,
    /// A database that this binary may use.
    Usable {
        /// Its schema; above [`crate::SCHEMA`] when a newer version left it usable for this one.
        schema: u32,
    },
}

/// Looks at the database file at `path` and at the folder around it. Refuses, with the reason and the way out, what must
/// not be used: a folder that cannot be written or lies on a network, a file that is no database, is another program's,
/// is damaged or too new.
pub fn inspect(path: &Path) -> Result<Found> {
    let folder = folder_of(path);
    if let Some(kind) = network(&folder)? {
        return Err(Error::Network { path: folder, kind });
    }
    writable(
        &folder,
        "make the folder writable for the user that runs the server, or choose another one (--data)",
    )?;
    let mut header = [0; 100];
    match File::open(path) {
        Ok(mut file) => {
            let size = file.metadata().map_err(|e| io(path, &e))?.len();
            let mut read = 0;
            while read < header.len() {
                match file.read(&mut header[read..]) {
                    Ok(0) => break,
                    Ok(n) => read += n,
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => return Err(io(path, &e)),
                }
            }
            writable(
                path,
                "the file and its folder must be writable for the user that runs the server",
            )?;
            check(path, &header[..read], size)
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let log = beside(path, "-wal");
            // An empty one has nothing that could be missing.
            if std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
                let reason = format!(
                    "{} is missing but its log {} is there",
                    path.display(),
                    log.display()
                );
                return Err(Error::Corrupt(reason));
            }
            Ok(Found::Nothing)
        }
        Err(e) => Err(io(path, &e)),
    }
}

/// The folder of a file; of a bare name, the current one.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The file with something appended to its name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn io(path: &Path, error: &std::io::Error) -> Error {
    Error::Io(format!("{}: {error}", path.display()))
}

fn writable(path: &Path, way_out: &str) -> Result<()> {
    access(path, Access::WRITE_OK | Access::READ_OK).map_err(|errno| Error::ReadOnly {
        what: path.to_owned(),
        reason: format!("{}; {way_out}", std::io::Error::from(errno)),
    })
}

/// Judges the first bytes of a database file (SQLite file format, section 1.3).
fn check(path: &Path, header: &[u8], size: u64) -> Result<Found> {
    let foreign = |reason: &str| Error::Foreign {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    if size == 0 {
        // Wharf makes databases aside and renames them when they are complete.
        return Err(Error::Corrupt(format!("{} is empty", path.display())));
    }
    if header.len() < 100 || !header.starts_with(b"SQLite format 3\0") {
        return Err(foreign("it is not a SQLite database"));
    }
    let number = |at: usize| {
        i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let application = number(68);
    if application != APPLICATION_ID {
        return Err(foreign(&format!(
            "it is a SQLite database of another program (application id {application:#x})"
        )));
    }
    // What never differs between our databases: SQLite would say less, or open it and refuse to write.
    let fixed = header[16..18] == PAGE.to_be_bytes()
        && header[18..20]
            .iter()
            .all(|version| (1..=2).contains(version))
        && header[21..24] == [64, 32, 32]
        && (1..=4).contains(&number(44))
        && (0..=3).contains(&number(56));
    if !fixed {
        let reason = format!(
            "the header of {} has values that it never had",
            path.display()
        );
        return Err(Error::Corrupt(reason));
    }
    truncated(path, &number, size)?;
    let schema = migration::Version::from_user_version(number(60));
    migration::usable(path, schema)?;
    Ok(Found::Usable {
        schema: schema.schema,
    })
}

/// A file shorter than its header says was cut, unless its log still has the rest.
fn truncated(path: &Path, number: &impl Fn(usize) -> i32, size: u64) -> Result<()> {
    let page = match number(16) as u32 >> 16 {
        1 => 65536,
        other => u64::from(other),
    };
    // The header's page count means something only when these two agree.
    let pages = if number(24) == number(92) {
        u64::from(number(28) as u32)
    } else {
        0
    };
    let log = std::fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len());
    if log == 0 && size < pages * page {
        return Err(Error::Corrupt(format!(
            "{} was cut: it has {size} bytes of {}",
            path.display(),
            pages * page
        )));
    }
    Ok(())
}

/// The name of the file system, if it is one over a network.
fn network(folder: &Path) -> Result<Option<String>> {
    let stat = statfs(folder).map_err(|errno| io(folder, &errno.into()))?;
    #[allow(
        clippy::unnecessary_cast,
        reason = "the type differs between platforms"
    )]
    let magic = stat.f_type as u32;
    if let Some(kind) = network_name(magic) {
        return Ok(Some(kind.to_owned()));
    }
    if magic == FUSE {
        let device = rustix::fs::stat(folder)
            .map_err(|errno| io(folder, &errno.into()))?
            .st_dev;
        let device = format!(
            "{}:{}",
            rustix::fs::major(device),
            rustix::fs::minor(device)
        );
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        return Ok(mount_type(&mounts, &device)
            .filter(|kind| is_network_fuse(kind))
            .map(str::to_owned));
    }
    Ok(None)
}

const FUSE: u32 = 0x6573_5546;

/// File systems over a network by the magic number of `statfs(2)`.
fn network_name(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b => "SMB",
        0xff53_4d42 => "CIFS",
        0xfe53_4d42 => "SMB2",
        0x5346_414f => "AFS",
        0x6b41_4653 => "kAFS",
        0x7375_7245 => "Coda",
        0x564c => "NCP",
        0x0102_1997 => "9P",
        0x00c3_6400 => "Ceph",
        0x0bd0_0bd0 => "Lustre",
        0x0116_1970 => "GFS2",
        0x7461_636f => "OCFS2",
        0x1983_0326 => "BeeGFS",
        0x4750_4653 => "GPFS",
        _ => return None,
    })
}

/// The file system type of a device in `/proc/self/mountinfo` (proc(5)).
fn mount_type<'a>(mounts: &'a str, device: &str) -> Option<&'a str> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (left.split(' ').nth(2)? == device)
            .then(|| right.split(' ').next())
            .flatten()
    })
}

fn is_network_fuse(kind: &str) -> bool {
    let name = kind.strip_prefix("fuse.").unwrap_or(kind);
    [
        "sshfs",
        "glusterfs",
        "s3fs",
        "rclone",
        "gcsfuse",
        "mount-s3",
        "juicefs",
        "ceph",
        "davfs",
        "curlftpfs",
        "smbnetfs",
    ]
    .iter()
    .any(|network| name.starts_with(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_named() {
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(0xff53_4d42), Some("CIFS"));
        for local in [
            0xef53_u32,
            0x5846_5342,
            0x9123_683e,
            0x0102_1994,
            0x2fc1_2fc1,
            0x794c_7630,
        ] {
            assert_eq!(network_name(local), None, "{local:#x}");
        }
    }

    #[test]
    fn fuse_is_told_by_its_mount() {
        let mounts = "22 1 253:0 / / rw shared:1 - ext4 /dev/vda rw\n\
                      40 22 0:55 / /mnt/a rw,nosuid shared:9 - fuse.sshfs host:/x rw\n\
                      41 22 0:56 / /mnt/b rw - fuse.mergerfs b rw\n";
        assert!(is_network_fuse(mount_type(mounts, "0:55").unwrap()));
        assert!(!is_network_fuse(mount_type(mounts, "0:56").unwrap()));
        assert_eq!(mount_type(mounts, "253:0"), Some("ext4"));
        assert_eq!(mount_type(mounts, "0:99"), None);
    }

    #[test]
    fn a_local_folder_is_no_network() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(network(folder.path()).unwrap(), None);
    }

    #[test]
    fn broken_headers_are_refused() {
        let path = Path::new("meta.db");
        assert!(matches!(check(path, &[], 0), Err(Error::Corrupt(_))));
        assert!(matches!(
            check(path, b"hello", 5),
            Err(Error::Foreign { .. })
        ));
        let mut header = [0; 100];
        header[..16].copy_from_slice(b"SQLite format 3\0");
        header[16..18].copy_from_slice(&4096_u16.to_be_bytes());
        assert!(matches!(
            check(path, &header, 4096),
            Err(Error::Foreign { .. })
        ));
        header[68..72].copy_from_slice(&APPLICATION_ID.to_be_bytes());
        assert!(matches!(check(path, &header, 4096), Err(Error::Corrupt(_))));
        header[18..24].copy_from_slice(&[2, 2, 0, 64, 32, 32]);
        header[47] = 4;
        header[59] = 1;
        header[60..64].copy_from_slice(
            &migration::Version {
                schema: 1,
                oldest: 1,
            }
            .to_user_version()
            .to_be_bytes(),
        );
        header[28..32].copy_from_slice(&2_u32.to_be_bytes());
        assert_eq!(check(path, &header, 8192), Ok(Found::Usable { schema: 1 }));
        assert!(
            matches!(check(path, &header, 8191), Err(Error::Corrupt(_))),
            "cut"
        );
        let newer = migration::Version {
            schema: 900,
            oldest: 899,
        };
        header[60..64].copy_from_slice(&newer.to_user_version().to_be_bytes());
        assert!(matches!(
            check(path, &header, 8192),
            Err(Error::Newer {
                schema: 900,
                oldest: 899,
                ..
            })
        ));
    }
}
