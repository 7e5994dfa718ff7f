//! Whether the write-ahead log is whole, looked at before SQLite recovers it.
//!
//! SQLite takes the first frame whose checksum does not fit for the end of the log. After a crash it is: the last commits,
//! which nobody was promised, may be torn. But the writer syncs a commit before it writes the next one, but for
//! [`RELAXED_IN_A_ROW`]; so more commits behind a broken frame than may be without a sync prove that frames which were on
//! the disk have changed there; recovering would drop acknowledged writes without a word. The last commits alone can't be
//! told from torn ones.
//!
//! What is read here is the format of sqlite.org/fileformat2.html, section 4.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use super::writer::RELAXED_IN_A_ROW;
use crate::error::{Error, Result};

/// So many commits may be torn: those without a sync, and the one whose sync was under way.
const TORN: u64 = RELAXED_IN_A_ROW as u64 + 1;
const HEADER: usize = 32;
const FRAME: usize = 24;

/// Refuses a log that lost commits which were synced. The caller holds the
/// folder's lock, and nobody has the database open.
pub(super) fn check(path: &Path) -> Result<()> {
    let failed = |error: std::io::Error| Error::Io(format!("{}: {error}", path.display()));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    match lost(&mut BufReader::with_capacity(1 << 20, file)).map_err(failed)? {
        Log::Empty | Log::Whole => Ok(()),
        Log::Damaged { frame, commits } => Err(Error::Corrupt(format!(
            "frame {frame} of its log {} is broken, and {commits} commits stand behind it",
            path.display()
        ))),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Log {
    /// Without a header that counts.
    Empty,
    /// Up to commits that may be torn.
    Whole,
    /// So many commits stand from this frame on, which is the first broken one.
    Damaged { frame: u64, commits: u64 },
}

fn lost(log: &mut impl Read) -> std::io::Result<Log> {
    let mut header = [0; HEADER];
    if !filled(log, &mut header)? {
        return Ok(Log::Empty);
    }
    let magic = word(&header, 0);
    let big_endian = magic & 1 == 1;
    let mut sum = Sum(0, 0);
    sum.add(&header[..24], big_endian);
    let page = word(&header, 8) as usize;
    if magic & !1 != 0x377f_0682 || sum != Sum::stored(&header, 24) || !page.is_power_of_two() {
        return Ok(Log::Empty);
    }
    let salts = &header[16..24];
    let mut frame = vec![0; FRAME + page];
    let (mut number, mut broken, mut commits) = (0, None, 0);
    while filled(log, &mut frame)? {
        number += 1;
        let ours = &frame[8..16] == salts && word(&frame, 0) != 0;
        if broken.is_none() {
            sum.add(&frame[..8], big_endian);
            sum.add(&frame[FRAME..], big_endian);
            if ours && sum == Sum::stored(&frame, 16) {
                continue;
            }
            broken = Some(number);
        }
        // The frame of a commit says how large the database is then.
        if ours && word(&frame, 4) != 0 {
            commits += 1;
        }
    }
    Ok(match broken {
        Some(frame) if commits > TORN => Log::Damaged { frame, commits },
        _ => Log::Whole,
    })
}

/// Whether there was enough to fill the buffer.
fn filled(log: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match log.read_exact(buffer) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The running checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum(u32, u32);

impl Sum {
    fn stored(bytes: &[u8], at: usize) -> Sum {
        Sum(word(bytes, at), word(bytes, at + 4))
    }

    fn add(&mut self, bytes: &[u8], big_endian: bool) {
        let read = |part: &[u8]| {
            let part = [part[0], part[1], part[2], part[3]];
            match big_endian {
                true => u32::from_be_bytes(part),
                false => u32::from_le_bytes(part),
            }
        };
        for pair in bytes.chunks_exact(8) {
            self.0 = self.0.wrapping_add(read(&pair[..4])).wrapping_add(self.1);
            self.1 = self.1.wrapping_add(read(&pair[4..])).wrapping_add(self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of SQLite's own making with `commits` commits, two frames or more each.
    fn log(commits: usize) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let connection = rusqlite::Connection::open(folder.path().join("db")).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x);",
            )
            .unwrap();
        for _ in 1..commits {
            connection
                .execute("INSERT INTO t VALUES (zeroblob(9000))", [])
                .unwrap();
        }
        std::fs::read(folder.path().join("db-wal")).unwrap()
    }

    fn look(log: &[u8]) -> Log {
        lost(&mut &*log).unwrap()
    }

    /// Where each frame begins, and whether it ends a commit.
    fn frames(log: &[u8]) -> Vec<(usize, bool)> {
        (HEADER..log.len())
            .step_by(FRAME + 4096)
            .map(|at| (at, word(log, at + 4) != 0))
            .collect()
    }

    #[test]
    fn a_log_that_sqlite_wrote_is_whole_also_when_cut_anywhere() {
        let whole = log(6);
        assert_eq!(look(&whole), Log::Whole);
        for cut in (0..whole.len()).step_by(997) {
            assert!(
                matches!(look(&whole[..cut]), Log::Whole | Log::Empty),
                "{cut}"
            );
        }
        assert_eq!(look(&[]), Log::Empty);
        assert_eq!(look(&[0; 9000]), Log::Empty);
    }

    #[test]
    fn a_flipped_bit_before_the_last_commits_is_damage_and_in_them_may_be_a_tear() {
        let whole = log(6);
        let frames = frames(&whole);
        let commits: Vec<usize> = (0..frames.len()).filter(|&n| frames[n].1).collect();
        let last = commits[commits.len() - 1 - TORN as usize] + 1;
        for (number, &(at, _)) in frames.iter().enumerate() {
            // In the checksum, in the middle of the page, at its end.
            for byte in [at + 17, at + FRAME + 2_000, at + FRAME + 4_095] {
                let mut bad = whole.clone();
                bad[byte] ^= 0x10;
                match look(&bad) {
                    Log::Damaged { frame, .. } => {
                        assert!(number < last, "{number}");
                        assert_eq!(frame, number as u64 + 1);
                    }
                    Log::Whole => assert!(number >= last, "{number} of {last}"),
                    Log::Empty => panic!("{number}"),
                }
            }
        }
    }

    #[test]
    fn what_an_older_round_of_the_log_left_behind_is_no_damage() {
        let (new, old) = (log(2), log(8));
        let mut mixed = new.clone();
        mixed.extend_from_slice(&old[new.len()..]);
        assert_eq!(look(&mixed), Log::Whole);
    }
}
