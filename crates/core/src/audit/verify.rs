//! Checks the whole log and names what is wrong with it.

use wharf_meta::audit::{Ends, EntryRow, Head, HeadRow, Walk};

use super::chain::{LogKeys, content, link};
use super::seal::{BREAK, standing};
use crate::error::Result;
use crate::registry::Registry;

/// Entries that are read at once.
const PAGE: u32 = 500;
/// Findings that are named one by one; the others are counted.
const MOST_FINDINGS: usize = 100;
/// How often it begins again because old entries were cut off meanwhile.
const ATTEMPTS: usize = 5;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The entry's place.
    pub seq: i64,
    /// What is wrong with it.
    pub what: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries looked at.
    pub entries: u64,
    /// The place of the first one that should be there; 0: none ever was.
    pub first: i64,
    /// The place of the last one.
    pub last: i64,
    /// The last one's hash: who keeps it elsewhere can tell later whether all up to here is still the same.
    pub head: String,
    /// What is wrong, by place; the first of them.
    pub findings: Vec<Finding>,
    /// How much is wrong.
    pub bad: u64,
    /// Entries that only the chain vouches for: they were signed with a key that is not given any more.
    pub by_other_key: u64,
}

impl Report {
    fn add(&mut self, seq: i64, what: impl Into<String>) {
        self.bad += 1;
        if self.findings.len() < MOST_FINDINGS {
            let what = what.into();
            self.findings.push(Finding { seq, what });
        }
    }

    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.bad == 0
    }
}

/// Checks every entry. With `expected`, a place and a hash that were noted earlier, also that the log still holds that.
pub async fn verify(registry: &Registry, expected: Option<&(i64, String)>) -> Result<Report> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let ends = registry.meta.read(Head).await?;
        let report = walk(registry, &ends, expected).await?;
        let after = registry.meta.read(Head).await?;
        let cut = |ends: &Ends| ends.head.as_ref().map(|head| head.cut_seq);
        if cut(&ends) == cut(&after) || attempt == ATTEMPTS {
            return Ok(report);
        }
    }
}

/// What is known of the log so far.
struct Check<'a> {
    keys: &'a LogKeys,
    report: Report,
    /// The place that comes next.
    next: i64,
    /// The hash of the entry before, if that is there.
    before: Option<Vec<u8>>,
    /// Entries whose signature no key made although they follow the one before; the first of them since the last break.
    unsigned: Option<i64>,
    /// Entries that are not what was written, for telling which was put in whose place.
    changed: Vec<EntryRow>,
}

async fn walk(
    registry: &Registry,
    ends: &Ends,
    expected: Option<&(i64, String)>,
) -> Result<Report> {
    let keys = &registry.access.log_keys;
    let head = ends.head.clone().unwrap_or_default();
    let wrong = standing(keys, ends).err();
    let vouched = ends.head.as_ref().is_some_and(|head| keys.knows_head(head));
    let mut check = Check {
        keys,
        report: Report {
            first: if head.seq > 0 { head.cut_seq + 1 } else { 0 },
            last: head.seq,
            head: hex(&head.hash),
            ..Report::default()
        },
        next: head.cut_seq + 1,
        before: Some(head.cut_hash.clone()),
        unsigned: None,
        changed: Vec::new(),
    };
    let mut after = head.cut_seq;
    let until = match vouched {
        true => head.seq,
        false => ends.last.as_ref().map_or(0, |(seq, _)| *seq),
    };
    let mut noted = expected.is_none_or(|(seq, _)| *seq <= head.cut_seq);
    'pages: loop {
        let walk = Walk { after, limit: PAGE };
        let entries = registry.meta.scan(walk).await?;
        let whole = entries.len() < PAGE as usize;
        for entry in entries {
            after = entry.seq;
            if entry.seq > until {
                break 'pages;
            }
            if let Some((seq, hash)) = expected
                && *seq == entry.seq
            {
                noted = hex(&entry.hash) == *hash;
            }
            check.entry(entry);
        }
        if whole {
            break;
        }
    }
    check.end(&head, vouched, wrong, ends);
    if !noted && let Some((seq, _)) = expected {
        let what = "is not the entry that was noted earlier: the log was put back to an older state or written anew";
        check.report.add(*seq, what);
    }
    Ok(check.report)
}

impl Check<'_> {
    fn entry(&mut self, entry: EntryRow) {
        self.report.entries += 1;
        if entry.seq > self.next {
            self.missing(self.next, entry.seq - 1);
            self.before = None;
        }
        self.next = entry.seq + 1;
        let known = self.keys.knows(&entry);
        if entry.action == BREAK && known {
            // It begins anew, and says why.
            self.report.add(
                entry.seq,
                format!(
                    "says that the log was not whole when it was written: {}",
                    entry.detail
                ),
            );
            self.before = Some(Vec::new());
        }
        let content = content(&entry);
        let follows = self
            .before
            .as_ref()
            .map(|before| link(before, &content) == entry.hash);
        match (known, follows) {
            (true, Some(true) | None) => {}
            // The one before was told of already, or its hash is not its own.
            (true, Some(false)) => {
                let last = self.report.findings.last().map(|finding| finding.seq);
                if last != Some(entry.seq - 1) {
                    self.report.add(
                        entry.seq,
                        "does not follow the one before: that one was changed",
                    );
                }
            }
            (false, Some(true)) => {
                self.report.by_other_key += 1;
                self.unsigned.get_or_insert(entry.seq);
            }
            (false, _) => {
                self.report.add(entry.seq, "was changed");
                if self.changed.len() < MOST_FINDINGS {
                    self.changed.push(entry.clone());
                }
            }
        }
        self.before = Some(entry.hash);
    }

    fn missing(&mut self, from: i64, to: i64) {
        let what = match from == to {
            true => "is missing".to_owned(),
            false => format!("is missing, with all up to {to}"),
        };
        self.report.add(from, what);
    }

    fn end(&mut self, head: &HeadRow, vouched: bool, wrong: Option<&str>, ends: &Ends) {
        let there = self.next - 1;
        let whole = vouched && there == head.seq && self.before.as_ref() == Some(&head.hash);
        if vouched && there < head.seq {
            let (from, to) = (there + 1, head.seq);
            let what = match from == to {
                true => "is missing: the end of the log was cut off".to_owned(),
                false => format!("is missing, with all up to {to}: the end of the log was cut off"),
            };
            self.report.add(from, what);
        }
        // What nobody signed counts only as far as a signed head stands behind it.
        if let Some(first) = self.unsigned.filter(|_| !whole) {
            self.report.by_other_key = 0;
            let what = "was changed, and the hashes from there on made anew";
            self.report.add(first, what);
        }
        if let Some(wrong) = wrong
            && (self.report.bad == 0 || !vouched)
        {
            self.report
                .add(head.seq, format!("where the log should end: {wrong}"));
        } else if let Some((last, _)) = &ends.last
            && vouched
            && *last > head.seq
        {
            self.report
                .add(head.seq + 1, "was put behind the end of the log");
        }
        self.moved();
        self.report.findings.sort_by_key(|finding| finding.seq);
    }

    /// Of entries that are not what was written: which of them are another one.
    fn moved(&mut self) {
        let places: Vec<i64> = self.changed.iter().map(|entry| entry.seq).collect();
        for entry in &self.changed {
            let was = places.iter().filter(|seq| **seq != entry.seq);
            let was = was.copied().find(|seq| {
                let there = EntryRow {
                    seq: *seq,
                    ..entry.clone()
                };
                self.keys.knows(&there)
            });
            let finding = self
                .report
                .findings
                .iter_mut()
                .find(|finding| finding.seq == entry.seq);
            if let (Some(was), Some(finding)) = (was, finding) {
                finding.what = format!("is not in its place: here stands what was entry {was}");
            }
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
