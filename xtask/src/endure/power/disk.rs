//! What lies on a disk whose cache is lost: a model of files and folders, made of what was synced and what was not.
//!
//! A change is *pending* until a sync that began after it has ended. When the power goes, POSIX promises nothing about
//! pending changes: each may have arrived, in parts, in any order, one file's before another's; a file's length without
//! its bytes; a name without its file's bytes, or the other way round. Only a rename within one folder is taken to be one
//! step, as every file system does it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::endure::random::Random;

/// A file or folder, whatever its names.
pub(crate) type Node = usize;

/// The folder that was there before the recording.
pub(crate) const ROOT: Node = 0;

/// One thing that happened, in the order of the recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A new file or folder, without a name so far.
    Make { node: Node, folder: bool },
    /// A name for a node, in place of whatever had it.
    Link {
        folder: Node,
        name: String,
        node: Node,
    },
    /// A name is gone.
    Unlink { folder: Node, name: String },
    /// Another name within the folder.
    Rename {
        folder: Node,
        from: String,
        to: String,
    },
    /// Bytes.
    Write {
        node: Node,
        at: usize,
        bytes: Vec<u8>,
    },
    /// A length.
    Resize { node: Node, length: usize },
    /// Everything done to the node so far will be durable when this sync ends. `None`: to all nodes.
    SyncBegin { sync: usize, node: Option<Node> },
    /// The sync of this number has ended well.
    SyncEnd { sync: usize },
    /// An answer begins to leave the server.
    Answer { call: usize },
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Resize(usize),
    Link(String, Node),
    Unlink(String),
    Rename(String, String),
}

#[derive(Clone, Debug)]
enum Durable {
    File(Vec<u8>),
    Folder(BTreeMap<String, Node>),
}

#[derive(Clone, Debug)]
struct Item {
    durable: Durable,
    /// In order, with their times.
    pending: Vec<(usize, Change)>,
}

/// Everything below the root.
pub(crate) struct Disk {
    items: Vec<Item>,
    syncs: HashMap<usize, (usize, Option<Node>)>,
    time: usize,
    /// Syncs do nothing: a disk that lies. For proving that a loss is noticed.
    pub(crate) lies: bool,
}

impl Disk {
    /// An empty root.
    pub(crate) fn new() -> Disk {
        let root = Item {
            durable: Durable::Folder(BTreeMap::new()),
            pending: Vec::new(),
        };
        Disk {
            items: vec![root],
            syncs: HashMap::new(),
            time: 0,
            lies: false,
        }
    }

    /// The time of the last step.
    pub(crate) fn time(&self) -> usize {
        self.time
    }

    /// Goes on by one step.
    pub(crate) fn apply(&mut self, step: &Step) {
        self.time += 1;
        let (node, change) = match step {
            Step::Make { folder, .. } => {
                let durable = match folder {
                    true => Durable::Folder(BTreeMap::new()),
                    false => Durable::File(Vec::new()),
                };
                self.items.push(Item {
                    durable,
                    pending: Vec::new(),
                });
                return;
            }
            Step::SyncBegin { sync, node } => {
                self.syncs.insert(*sync, (self.time, *node));
                return;
            }
            Step::SyncEnd { sync } => {
                if let Some((began, node)) = self.syncs.remove(sync)
                    && !self.lies
                {
                    match node {
                        Some(node) => self.items[node].settle(began),
                        None => self.items.iter_mut().for_each(|item| item.settle(began)),
                    }
                }
                return;
            }
            Step::Answer { .. } => return,
            Step::Link { folder, name, node } => (*folder, Change::Link(name.clone(), *node)),
            Step::Unlink { folder, name } => (*folder, Change::Unlink(name.clone())),
            Step::Rename { folder, from, to } => {
                (*folder, Change::Rename(from.clone(), to.clone()))
            }
            Step::Write { node, at, bytes } => {
                let (at, bytes) = (*at, bytes.clone());
                (*node, Change::Write { at, bytes })
            }
            Step::Resize { node, length } => (*node, Change::Resize(*length)),
        };
        self.items[node].pending.push((self.time, change));
    }

    /// What may be found after the power went now.
    pub(crate) fn cut(&self, loss: Loss, random: &mut Random) -> Remains {
        let mut remains = Remains::default();
        self.collect(ROOT, PathBuf::new(), loss, random, &mut remains);
        remains
    }

    fn collect(
        &self,
        node: Node,
        path: PathBuf,
        loss: Loss,
        random: &mut Random,
        remains: &mut Remains,
    ) {
        match &self.items[node].durable {
            Durable::File(durable) => {
                remains.names.push((path, node));
                // All names of a file have the same bytes.
                remains.files.entry(node).or_insert_with(|| {
                    let mut file = durable.clone();
                    let fate = loss.fate(false, random);
                    for (time, change) in &self.items[node].pending {
                        happen_to_file(&mut file, change, fate.of(*time, random), random);
                    }
                    file
                });
            }
            Durable::Folder(durable) => {
                let mut entries = durable.clone();
                let fate = loss.fate(true, random);
                for (time, change) in &self.items[node].pending {
                    if fate.of(*time, random) == Arrival::Whole {
                        happen_to_folder(&mut entries, change);
                    }
                }
                remains.folders.push(path.clone());
                for (name, node) in entries {
                    self.collect(node, path.join(name), loss, random, remains);
                }
            }
        }
    }
}

impl Item {
    /// What was pending before `began` is durable.
    fn settle(&mut self, began: usize) {
        let (settled, rest) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|(time, _)| *time <= began);
        self.pending = rest;
        let settled: Vec<(usize, Change)> = settled;
        for (_, change) in &settled {
            match &mut self.durable {
                Durable::File(file) => {
                    let mut never = Random::new(0, 0);
                    happen_to_file(file, change, Arrival::Whole, &mut never);
                }
                Durable::Folder(entries) => happen_to_folder(entries, change),
            }
        }
    }
}

fn happen_to_folder(entries: &mut BTreeMap<String, Node>, change: &Change) {
    match change {
        Change::Link(name, node) => {
            entries.insert(name.clone(), *node);
        }
        Change::Unlink(name) => {
            entries.remove(name);
        }
        Change::Rename(from, to) => {
            if let Some(node) = entries.remove(from) {
                entries.insert(to.clone(), node);
            }
        }
        Change::Write { .. } | Change::Resize(_) => {}
    }
}

fn happen_to_file(file: &mut Vec<u8>, change: &Change, arrival: Arrival, random: &mut Random) {
    match (change, arrival) {
        (Change::Resize(length), Arrival::Whole | Arrival::LengthOnly) => file.resize(*length, 0),
        (Change::Write { at, bytes }, Arrival::Whole) => put(file, *at, bytes),
        (Change::Write { at, bytes }, Arrival::LengthOnly) => {
            let end = at + bytes.len();
            if file.len() < end {
                file.resize(end, 0);
            }
        }
        (Change::Write { at, bytes }, Arrival::Torn(sector)) => {
            let end = at + bytes.len();
            let begin = file.len();
            if random.chance(50) && begin < end {
                file.resize(end, 0);
                // What lay there before on the disk, now and then.
                if random.chance(30) {
                    file[begin.max(*at)..].fill(0xa5);
                }
            }
            let prefix = random.chance(30).then(|| at + random.below(bytes.len()));
            let mut from = *at;
            while from < end {
                let to = end.min((from / sector + 1) * sector);
                let arrives = match prefix {
                    Some(prefix) => to <= prefix,
                    None => random.chance(50),
                };
                if arrives {
                    put(file, from, &bytes[from - at..to - at]);
                }
                from = to;
            }
        }
        _ => {}
    }
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(bytes);
}

/// How a cut treats what was pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// All of it is lost.
    All,
    /// Nothing is.
    Nothing,
    /// Everything after this time is.
    After(usize),
    /// Names arrived, and the lengths of files, but none of their bytes.
    Bytes,
    /// Bytes arrived, but no names.
    Names,
    /// Each file and folder has a fate of its own.
    Random,
}

/// What happens to the pending changes of one file or folder.
#[derive(Clone, Copy, Debug)]
enum Fate {
    All(Arrival),
    Until(usize),
    /// Each change by itself arrives so many times of a hundred; this often in parts.
    Each {
        arrives: usize,
        torn: usize,
    },
}

/// What becomes of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    Lost,
    Whole,
    LengthOnly,
    /// In units of so many bytes.
    Torn(usize),
}

impl Loss {
    fn fate(self, folder: bool, random: &mut Random) -> Fate {
        match self {
            Loss::All => Fate::All(Arrival::Lost),
            Loss::Nothing => Fate::All(Arrival::Whole),
            Loss::After(time) => Fate::Until(time),
            Loss::Bytes if folder => Fate::All(Arrival::Whole),
            Loss::Bytes => Fate::All(Arrival::LengthOnly),
            Loss::Names if folder => Fate::All(Arrival::Lost),
            Loss::Names => Fate::All(Arrival::Whole),
            Loss::Random => match random.below(4) {
                0 => Fate::All(Arrival::Lost),
                1 => Fate::All(Arrival::Whole),
                _ => Fate::Each {
                    arrives: *random.pick(&[10, 50, 90]).unwrap_or(&50),
                    torn: *random.pick(&[0, 30, 80]).unwrap_or(&0),
                },
            },
        }
    }
}

impl Fate {
    fn of(self, time: usize, random: &mut Random) -> Arrival {
        match self {
            Fate::All(arrival) => arrival,
            Fate::Until(last) if time <= last => Arrival::Whole,
            Fate::Until(_) => Arrival::Lost,
            Fate::Each { arrives, torn } => {
                if random.chance(torn) {
                    Arrival::Torn(if random.chance(50) { 512 } else { 4096 })
                } else if random.chance(arrives) {
                    Arrival::Whole
                } else if random.chance(10) {
                    Arrival::LengthOnly
                } else {
                    Arrival::Lost
                }
            }
        }
    }
}

/// A state after a cut.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    /// Relative to the root, which is the first; parents before children.
    pub(crate) folders: Vec<PathBuf>,
    /// Names of files; two of one node are links.
    pub(crate) names: Vec<(PathBuf, Node)>,
    pub(crate) files: HashMap<Node, Vec<u8>>,
}

impl Remains {
    /// Makes it a real folder at `root`, which does not exist.
    pub(crate) fn write(&self, root: &Path) -> Result<()> {
        for folder in &self.folders {
            let path = root.join(folder);
            std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let mut first: HashMap<Node, PathBuf> = HashMap::new();
        for (name, node) in &self.names {
            let path = root.join(name);
            let done = match first.get(node) {
                Some(other) => std::fs::hard_link(other, &path),
                None => std::fs::write(&path, &self.files[node]),
            };
            done.with_context(|| format!("making {}", path.display()))?;
            first.entry(*node).or_insert(path);
        }
        Ok(())
    }

    /// The bytes of a file by its name.
    pub(crate) fn read(&self, path: &Path) -> Option<&[u8]> {
        let (_, node) = self.names.iter().find(|(name, _)| name == path)?;
        self.files.get(node).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(node: Node) -> Step {
        let folder = false;
        Step::Make { node, folder }
    }

    fn link(name: &str, node: Node) -> Step {
        let name = name.to_owned();
        let folder = ROOT;
        Step::Link { folder, name, node }
    }

    fn write(node: Node, at: usize, bytes: &[u8]) -> Step {
        let bytes = bytes.to_vec();
        Step::Write { node, at, bytes }
    }

    fn sync(node: Node, sync: usize) -> [Step; 2] {
        let node = Some(node);
        [Step::SyncBegin { sync, node }, Step::SyncEnd { sync }]
    }

    fn disk(steps: impl IntoIterator<Item = Step>, lies: bool) -> Disk {
        let mut disk = Disk::new();
        disk.lies = lies;
        steps.into_iter().for_each(|step| disk.apply(&step));
        disk
    }

    fn left(disk: &Disk, loss: Loss, name: &str) -> Option<Vec<u8>> {
        let remains = disk.cut(loss, &mut Random::new(1, 1));
        remains.read(Path::new(name)).map(<[u8]>::to_vec)
    }

    #[test]
    fn what_was_synced_stays_and_nothing_else_must() {
        let mut steps = vec![make(1), link("a", 1), write(1, 0, b"old")];
        steps.extend(sync(1, 0));
        let unnamed = disk(steps.clone(), false);
        assert_eq!(
            left(&unnamed, Loss::All, "a"),
            None,
            "its name was not synced"
        );
        assert_eq!(left(&unnamed, Loss::Nothing, "a").unwrap(), b"old");
        steps.extend(sync(ROOT, 1));
        steps.push(write(1, 3, b"new"));
        let synced = disk(steps.clone(), false);
        assert_eq!(left(&synced, Loss::All, "a").unwrap(), b"old");
        assert_eq!(left(&synced, Loss::Bytes, "a").unwrap(), b"old\0\0\0");
        assert_eq!(left(&synced, Loss::Nothing, "a").unwrap(), b"oldnew");
        // The same on a disk that lies: the loss of what was synced is seen.
        assert_eq!(left(&disk(steps, true), Loss::All, "a"), None);
    }

    #[test]
    fn a_sync_covers_what_was_done_before_it_began() {
        let steps = [
            make(1),
            link("a", 1),
            Step::SyncBegin {
                sync: 0,
                node: None,
            },
            write(1, 0, b"late"),
            Step::SyncEnd { sync: 0 },
        ];
        assert_eq!(left(&disk(steps, false), Loss::All, "a").unwrap(), b"");
    }

    #[test]
    fn a_rename_is_one_step_and_lost_without_the_folders_sync() {
        let mut steps = vec![make(1), link("new", 1), write(1, 0, b"x")];
        steps.extend(sync(1, 0));
        steps.extend(sync(ROOT, 1));
        let (from, to) = ("new".to_owned(), "a".to_owned());
        let folder = ROOT;
        steps.push(Step::Rename { folder, from, to });
        let disk = disk(steps, false);
        assert_eq!(left(&disk, Loss::All, "new").unwrap(), b"x");
        assert_eq!(left(&disk, Loss::All, "a"), None);
        assert_eq!(left(&disk, Loss::Nothing, "a").unwrap(), b"x");
        assert_eq!(left(&disk, Loss::Nothing, "new"), None);
    }

    #[test]
    fn torn_writes_keep_whole_sectors_and_touch_no_others() {
        let mut steps = vec![make(1), link("a", 1), write(1, 0, &[1; 4096])];
        steps.extend(sync(1, 0));
        steps.extend(sync(ROOT, 1));
        steps.push(write(1, 100, &[2; 3000]));
        let disk = disk(steps, false);
        let mut torn = 0;
        for seed in 0..200 {
            let remains = disk.cut(Loss::Random, &mut Random::new(seed, 0));
            let file = remains.read(Path::new("a")).unwrap();
            assert_eq!(file.len(), 4096);
            assert!(
                file[..100]
                    .iter()
                    .chain(&file[3100..])
                    .all(|byte| *byte == 1)
            );
            for sector in file[512..3072].chunks(512) {
                assert!(sector.iter().all(|byte| *byte == sector[0]));
            }
            torn += usize::from(file[100..3100].contains(&1) && file[100..3100].contains(&2));
        }
        // About one in twelve: half of the fates are by change, a third of those tear, half of these within sectors of 512.
        assert!(torn > 5, "{torn}");
    }

    #[test]
    fn links_of_one_file_are_links_again() {
        let steps = [make(1), link("a", 1), link("b", 1), write(1, 0, b"x")];
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let remains = disk(steps, false).cut(Loss::Nothing, &mut Random::new(1, 1));
        remains.write(&root).unwrap();
        std::fs::write(root.join("a"), "y").unwrap();
        assert_eq!(std::fs::read(root.join("b")).unwrap(), b"y");
    }
}
