//! The htpasswd file: `name:bcrypt-hash` lines that others may edit while the registry runs (BASIC-2).
//!
//! Broken lines are reported by number and reason, never by content: a line in disorder may hold a password in clear.
//! The lines that are in order keep working. The server asks [`HtpasswdFile::poll`] about once a second.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::password::StoredHash;
use super::policy::{ADMIN, check_user_name};
use super::principal::Source;
use super::user::User;

/// Largest file that is read, in bytes: some 150,000 users.
const LARGEST_FILE: u64 = 16 << 20;
/// Most broken lines that are told apart; the others are only counted.
const MOST_PROBLEMS: usize = 100;
/// Slowest bcrypt cost that is checked: more would hold a thread for over ten seconds for each attempt.
const HIGHEST_COST: u32 = 17;

/// A line that is not used, and why. Never holds the line's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and the way out.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// What a file says.
#[derive(Debug, Default)]
pub struct Htpasswd {
    users: HashMap<Arc<str>, Arc<User>>,
    problems: Vec<Problem>,
    broken: usize,
    usual_cost: Option<u32>,
}

impl Htpasswd {
    /// Reads a file's content. Comments, blank lines, a byte-order mark and Windows line ends are fine; of two lines
    /// for one user the first counts, as in Apache.
    pub fn parse(bytes: &[u8]) -> Self {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut read = Self::default();
        let mut lines = HashMap::new();
        let mut costs: HashMap<u32, usize> = HashMap::new();
        for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let number = at + 1;
            let parsed = std::str::from_utf8(line)
                .map_err(|_| "the line is not UTF-8".to_owned())
                .and_then(parse_line);
            let entry = match parsed {
                Ok(None) => continue,
                Ok(Some((name, ..))) if lines.contains_key(name) => Err(format!(
                    "the user already stands in line {}, and that one counts; remove one",
                    lines[name]
                )),
                other => other,
            };
            match entry {
                Ok(None) => {}
                Ok(Some((name, hash, cost))) => {
                    lines.insert(name, number);
                    *costs.entry(cost).or_default() += 1;
                    let user = User::new(name, Source::Htpasswd, StoredHash::Bcrypt(hash.into()));
                    read.users.insert(user.name().clone(), Arc::new(user));
                }
                Err(reason) => {
                    read.broken += 1;
                    if read.problems.len() < MOST_PROBLEMS {
                        read.problems.push(Problem {
                            line: number,
                            reason,
                        });
                    }
                }
            }
        }
        read.usual_cost = costs
            .into_iter()
            .max_by_key(|&(cost, users)| (users, cost))
            .map(|(cost, _)| cost);
        read
    }

    /// How many users can sign in.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether nobody can sign in.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The first broken lines, at most a hundred.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many lines are broken.
    pub fn broken(&self) -> usize {
        self.broken
    }

    /// The bcrypt cost of most users, which an unknown user costs too.
    pub(crate) fn usual_cost(&self) -> Option<u32> {
        self.usual_cost
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name)
    }
}

/// Name, hash and cost of one line; none for a comment or a blank line.
fn parse_line(line: &str) -> Result<Option<(&str, &str, u32)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, rest) = line
        .split_once(':')
        .ok_or("there is no colon; a line is name:hash, as `htpasswd -nB NAME` prints it")?;
    check_user_name(name)?;
    if name == ADMIN {
        return Err(format!(
            "{ADMIN:?} is the registry's own administrator, whose password `wharf admin reset-password` sets; choose another name"
        ));
    }
    // Apache ignores what stands behind a further colon.
    let hash = rest.split_once(':').map_or(rest, |(hash, _)| hash);
    let cost = bcrypt_cost(hash)?;
    Ok(Some((name, hash, cost)))
}

/// The cost of a bcrypt hash in good order.
fn bcrypt_cost(hash: &str) -> Result<u32, String> {
    let other = |kind: &str| {
        format!("the hash is {kind}, but only bcrypt is accepted; make it with `htpasswd -B`")
    };
    let kinds = [
        ("$2a$", None),
        ("$2b$", None),
        ("$2y$", None),
        ("$2x$", Some("of bcrypt's faulty form $2x$")),
        ("$apr1$", Some("Apache's MD5")),
        ("$1$", Some("MD5")),
        ("$5$", Some("SHA-256 crypt")),
        ("$6$", Some("SHA-512 crypt")),
        ("$y$", Some("yescrypt")),
        ("$argon2", Some("argon2")),
        ("{SHA}", Some("unsalted SHA-1")),
        ("{SSHA}", Some("SHA-1")),
    ];
    match kinds.iter().find(|(prefix, _)| hash.starts_with(prefix)) {
        Some((_, None)) => {}
        Some((_, Some(kind))) => return Err(other(kind)),
        None if hash.is_empty() => {
            return Err("there is no hash; make one with `htpasswd -B`".into());
        }
        None => return Err(other("crypt or plain text")),
    }
    let parts: bcrypt::HashParts = hash
        .parse()
        .map_err(|_| "the bcrypt hash is damaged; make it again with `htpasswd -B`")?;
    match parts.get_cost() {
        cost @ 4..=HIGHEST_COST => Ok(cost),
        cost => Err(format!(
            "bcrypt cost {cost} is not between 4 and {HIGHEST_COST}; make the hash with `htpasswd -B -C 10`"
        )),
    }
}

/// The file cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error("htpasswd file {}: {reason}", path.display())]
pub struct HtpasswdError {
    /// The file as configured.
    pub path: PathBuf,
    /// What is wrong, and the way out.
    pub reason: String,
}

/// What tells one state of a file from another. The change time is there because two writes within a tick of a coarse
/// clock can have the same modification time, size and inode.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

#[derive(Debug)]
struct Watched {
    loaded: Stamp,
    changed: Option<Stamp>,
    unreadable: bool,
}

/// A file that is read again when it changes.
#[derive(Debug)]
pub(crate) struct HtpasswdFile {
    path: PathBuf,
    content: ArcSwap<Htpasswd>,
    watched: Mutex<Watched>,
}

impl HtpasswdFile {
    /// Reads the file for the first time; blocks. Broken lines are no error, a missing file is.
    pub(crate) fn open(path: &Path) -> Result<Self, HtpasswdError> {
        let (stamp, content) = read(path).map_err(|error| HtpasswdError {
            path: path.into(),
            reason: match error.kind() {
                io::ErrorKind::NotFound => {
                    "it does not exist; make it with `htpasswd -cB FILE NAME`, or leave --htpasswd out".into()
                }
                _ => error.to_string(),
            },
        })?;
        report(path, &content);
        let watched = Watched {
            loaded: stamp,
            changed: None,
            unreadable: false,
        };
        Ok(Self {
            path: path.into(),
            content: ArcSwap::from_pointee(content),
            watched: Mutex::new(watched),
        })
    }

    /// What the file said when it was last in order.
    pub(crate) fn content(&self) -> Arc<Htpasswd> {
        self.content.load_full()
    }

    /// Looks whether the file changed and reads it again; blocks. True when there is new content.
    ///
    /// A change counts once two looks in a row have found the same state: a file that is just being written is
    /// truncated first, and would lock everybody out for a moment. While the file is missing or unreadable its last
    /// content stays in force, and the log says so.
    pub(crate) fn poll(&self) -> bool {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let found = std::fs::metadata(&self.path).map(|metadata| stamp(&metadata));
        let content = match found {
            Ok(stamp) if stamp == watched.loaded && !watched.unreadable => {
                watched.changed = None;
                return false;
            }
            Ok(stamp) if watched.changed != Some(stamp) => {
                watched.changed = Some(stamp);
                return false;
            }
            Ok(_) => read(&self.path),
            Err(error) => Err(error),
        };
        watched.changed = None;
        match content {
            Ok((stamp, content)) => {
                *watched = Watched {
                    loaded: stamp,
                    changed: None,
                    unreadable: false,
                };
                tracing::info!(file = %self.path.display(), users = content.len(), "htpasswd file read again");
                report(&self.path, &content);
                self.content.store(Arc::new(content));
                true
            }
            Err(error) => {
                if !watched.unreadable {
                    tracing::error!(file = %self.path.display(), %error, "htpasswd file cannot be read; its last content stays in force until it can");
                }
                watched.unreadable = true;
                false
            }
        }
    }
}

fn report(path: &Path, content: &Htpasswd) {
    for problem in content.problems() {
        tracing::warn!(file = %path.display(), line = problem.line, "htpasswd line ignored: {}", problem.reason);
    }
    if content.broken() > content.problems().len() {
        tracing::warn!(file = %path.display(), lines = content.broken(), "htpasswd lines ignored in all");
    }
}

fn read(path: &Path) -> io::Result<(Stamp, Htpasswd)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::other("it is larger than 16 MiB"));
    }
    Ok((stamp(&metadata), Htpasswd::parse(&bytes)))
}

fn stamp(metadata: &std::fs::Metadata) -> Stamp {
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        modified,
        (metadata.ctime(), metadata.ctime_nsec()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";

    fn problems(read: &Htpasswd) -> Vec<(usize, &str)> {
        read.problems()
            .iter()
            .map(|problem| (problem.line, problem.reason.as_str()))
            .collect()
    }

    /// Spec: BASIC-2.
    #[test]
    fn comments_blank_lines_and_windows_files_are_fine() {
        let text = format!(
            "\u{feff}# people\r\n\r\n  \nalice:{HASH}\r\n  # more\nbob smith:{HASH}:ignored\nüml@x.example:{HASH}"
        );
        let read = Htpasswd::parse(text.as_bytes());
        assert_eq!((read.len(), problems(&read)), (3, vec![]));
        for name in ["alice", "bob smith", "üml@x.example"] {
            assert_eq!(read.get(name).unwrap().hash().unwrap().as_str(), HASH);
        }
        assert!(Htpasswd::parse(b"").is_empty());
    }

    /// Spec: BASIC-2.
    #[test]
    fn broken_lines_are_told_by_number_and_reason_and_the_others_work() {
        let rest = &HASH[3..];
        let cases: [(String, &str); 19] = [
            ("no colon here".into(), "no colon"),
            (format!(":{HASH}"), "name is empty"),
            ("carol:".into(), "no hash"),
            // The next five as the tool's other options print them.
            (
                "carol:$apr1$Qbkc3Ox/$8jCDBQJw6GPD5eY9ZiLjo/".into(),
                "Apache's MD5",
            ),
            (
                "carol:{SHA}6dcfXufJLW3J6S/9rRe4vUlBj5g=".into(),
                "unsalted SHA-1",
            ),
            ("carol:POXZ0A4ACfu5w".into(), "crypt or plain text"),
            ("carol:$6$FkfztRyYWBirDSNM$/StIE6Oq0".into(), "SHA-512"),
            ("carol:$5$DKppJF/aA.hVZ0dm$paii8lfXq".into(), "SHA-256"),
            ("carol:plain-text-password".into(), "crypt or plain text"),
            (format!("carol:$2x{rest}"), "faulty form"),
            (format!("carol:{}", &HASH[..59]), "damaged"),
            (format!("carol:{HASH}x"), "damaged"),
            (format!("carol:{}!{}", &HASH[..20], &HASH[21..]), "damaged"),
            (format!("carol:$2y$31{}", &HASH[6..]), "cost 31"),
            (format!("carol:$2y$03{}", &HASH[6..]), "cost 3 "),
            (format!("anonymous:{HASH}"), "reserved"),
            (format!("admin:{HASH}"), "administrator"),
            (format!("a\u{7}b:{HASH}"), "control character"),
            (format!("alice:{HASH}"), "line 1"),
        ];
        let lines: Vec<_> = cases.iter().map(|(line, _)| line.as_str()).collect();
        let text = format!("alice:{HASH}\n{}\nbob:{HASH}\n", lines.join("\n"));
        let mut bytes = text.into_bytes();
        bytes.extend(b"dave\xff:x\n");
        let read = Htpasswd::parse(&bytes);
        assert_eq!(read.len(), 2);
        assert!(read.get("alice").is_some() && read.get("bob").is_some());
        let found = problems(&read);
        assert_eq!(found.len(), cases.len() + 1);
        for (at, ((line, reason), (text, expected))) in found.iter().zip(&cases).enumerate() {
            assert_eq!(*line, at + 2);
            assert!(reason.contains(expected), "{text:?}: {reason}");
            assert!(!reason.contains("plain-text-password") && !reason.contains("no colon here"));
        }
        assert_eq!(found.last().unwrap(), &(22, "the line is not UTF-8"));
    }

    #[test]
    fn a_flood_of_broken_lines_is_counted_not_kept() {
        let read = Htpasswd::parse("nonsense\n".repeat(100_000).as_bytes());
        assert_eq!(
            (read.broken(), read.problems().len()),
            (100_000, MOST_PROBLEMS)
        );
    }

    #[test]
    fn an_unknown_user_costs_what_most_users_cost() {
        let with = |cost: &str| format!("{}{cost}{}", &HASH[..4], &HASH[6..]);
        let text = format!("a:{}\nb:{}\nc:{}\n", with("12"), with("05"), with("05"));
        assert_eq!(Htpasswd::parse(text.as_bytes()).usual_cost(), Some(5));
        assert_eq!(Htpasswd::parse(b"").usual_cost(), None);
    }

    #[test]
    fn files_that_cannot_be_used_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let missing = HtpasswdFile::open(&folder.path().join("none"))
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("none") && missing.contains("htpasswd -cB"),
            "{missing}"
        );
        let directory = HtpasswdFile::open(folder.path()).unwrap_err().to_string();
        assert!(directory.contains("not a regular file"), "{directory}");
        let large = folder.path().join("large");
        File::create(&large)
            .unwrap()
            .set_len(LARGEST_FILE + 1)
            .unwrap();
        let large = HtpasswdFile::open(&large).unwrap_err().to_string();
        assert!(large.contains("16 MiB"), "{large}");
    }

    #[test]
    fn a_replaced_file_is_noticed_even_with_the_same_time_and_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        std::fs::write(&path, format!("alice:{HASH}\n")).unwrap();
        let file = HtpasswdFile::open(&path).unwrap();
        assert!(!file.poll() && !file.poll());
        let next = folder.path().join("next");
        std::fs::write(&next, format!("carol:{HASH}\n")).unwrap();
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        File::options()
            .write(true)
            .open(&next)
            .unwrap()
            .set_modified(modified)
            .unwrap();
        std::fs::rename(&next, &path).unwrap();
        assert!(!file.poll(), "once could be a file half written");
        assert!(file.poll());
        assert!(file.content().get("carol").is_some() && file.content().get("alice").is_none());
        assert!(!file.poll());
    }

    proptest::proptest! {
        #[test]
        fn no_file_breaks_the_parser(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..500)) {
            let read = Htpasswd::parse(&bytes);
            let lines = bytes.split(|byte| *byte == b'\n').count();
            proptest::prop_assert!(read.len() + read.broken() <= lines);
        }
    }
}
