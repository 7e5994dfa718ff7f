//! From the words of `strace` to steps on a disk.
//!
//! Wharf calls the kernel directly and not through libc, so a library put before it would see nothing; strace sees all.
//! A call has its effect when its end is told, a sync covers what ended before its begin is told, and an answer counts
//! from the begin of its sending: each the less favourable way. One thread may meet what another's call has done before
//! that call's end is told; then the call has its effect there. What cannot be followed (writing through a mapping,
//! rings, copies within the kernel) is an error and not a gap.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::disk::{Node, ROOT, Step};

/// Calls that are recorded.
const CALLS: &str = "openat,open,openat2,creat,write,pwrite64,pwritev,pwritev2,writev,sendto,sendmsg,ftruncate,truncate,\
     fallocate,fsync,fdatasync,syncfs,sync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,mkdir,mkdirat,\
     mmap,close,dup,dup2,dup3,lseek,copy_file_range,splice,sendfile,io_uring_setup,symlinkat";

/// The words that start a recorder; the program's command line follows.
pub(crate) fn recorder(strace: &Path, to: &Path) -> Vec<String> {
    let mut words = vec![strace.display().to_string()];
    let options = [
        "-f",
        "--seccomp-bpf",
        "-qq",
        // Paths of descriptors, peers of sockets; all bytes of all strings, all parts of all lists.
        "-yy",
        "-xx",
        "-v",
        "-s",
        "300000000",
        "-o",
    ];
    words.extend(options.map(str::to_owned));
    words.push(to.display().to_string());
    words.push("-e".to_owned());
    words.push(format!("trace={}", CALLS.replace(' ', "")));
    words
}

/// Follows one process after another over one folder.
pub(crate) struct Tracer {
    root: PathBuf,
    folders: HashMap<Node, BTreeMap<String, Node>>,
    nodes: usize,
    syncs: usize,
    open: HashMap<i32, Open>,
    /// Calls that have begun, by thread.
    begun: HashMap<u32, Begun>,
    /// The process ended within a call that changes something.
    cut: bool,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Copy)]
struct Open {
    node: Node,
    at: usize,
    append: bool,
    durable: bool,
}

/// A call whose end has not been told.
struct Begun {
    name: String,
    told: Vec<u8>,
    /// The sync that it is.
    sync: Option<usize>,
    /// Another thread has met what it does.
    met: bool,
}

impl Tracer {
    /// `root` is empty, and absolute without links.
    pub(crate) fn new(root: &Path) -> Tracer {
        Tracer {
            root: root.to_owned(),
            folders: HashMap::from([(ROOT, BTreeMap::new())]),
            nodes: 1,
            syncs: 0,
            open: HashMap::new(),
            begun: HashMap::new(),
            cut: false,
            steps: Vec::new(),
        }
    }

    /// Reads what a recorder wrote about one process.
    pub(crate) fn read(&mut self, trace: &[u8]) -> Result<()> {
        self.open.clear();
        self.begun.clear();
        self.cut = false;
        for line in trace.split(|byte| *byte == b'\n') {
            self.line(line).with_context(|| {
                let shown = String::from_utf8_lossy(&line[..line.len().min(400)]).into_owned();
                format!("in the recording: {shown}")
            })?;
        }
        Ok(())
    }

    /// Whether the process was killed within a call that changes something: nobody has heard how far it came.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
            || self
                .begun
                .values()
                .any(|call| !call.met && changes(&call.name, &call.told))
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        let Some(space) = line.iter().position(|byte| *byte == b' ') else {
            return Ok(());
        };
        let thread: u32 = text(&line[..space])?.parse().context("a thread's number")?;
        let rest = line[space..].trim_ascii();
        if rest.starts_with(b"+++") || rest.starts_with(b"---") {
            return Ok(());
        }
        const CUT: &[u8] = b"<unfinished ...>";
        if let Some(after) = rest.strip_prefix(b"<... ") {
            let Some(mut call) = self.begun.remove(&thread) else {
                bail!("a call ends that has not begun");
            };
            let Some(at) = find(after, b" resumed>") else {
                bail!("how does it resume?");
            };
            if call.met {
                return Ok(());
            }
            call.told.extend_from_slice(&after[at + 9..]);
            return self.whole(&call.name, &call.told, call.sync);
        }
        let Some(bracket) = rest.iter().position(|byte| *byte == b'(') else {
            return Ok(());
        };
        let name = text(&rest[..bracket])?.to_owned();
        let told = &rest[bracket + 1..];
        let sync = self.begins(&name, told)?;
        match told.strip_suffix(CUT) {
            Some(told) => {
                let begun = Begun {
                    name,
                    told: told.to_vec(),
                    sync,
                    met: false,
                };
                self.begun.insert(thread, begun);
                Ok(())
            }
            None => self.whole(&name, told, sync),
        }
    }

    /// A call begins: that is when descriptors are freed, answers leave, and syncs decide what they cover.
    fn begins(&mut self, name: &str, told: &[u8]) -> Result<Option<usize>> {
        match name {
            "close" => {
                self.open.remove(&number(told));
            }
            "write" | "writev" | "sendto" | "sendmsg" if is_tcp(told) => {
                let mut said = strings(told, 4096)?;
                said.make_ascii_lowercase();
                if let Some(at) = find(&said, b"x-request-id: call-") {
                    let call = i64::from(number(&said[at + 19..]));
                    let call = usize::try_from(call)?;
                    self.steps.push(Step::Answer { call });
                }
            }
            "fsync" | "fdatasync" => {
                let node = self.open.get(&number(told)).map(|open| open.node);
                // Whether a folder's names are its data is told by nobody, and ext4 acts as if they were not.
                let names_only = |node| name == "fdatasync" && self.folders.contains_key(&node);
                if let Some(node) = node.filter(|node| !names_only(*node)) {
                    return Ok(Some(self.sync(Some(node))));
                }
            }
            "syncfs" | "sync" => return Ok(Some(self.sync(None))),
            _ => {}
        }
        Ok(None)
    }

    fn sync(&mut self, node: Option<Node>) -> usize {
        self.syncs += 1;
        let sync = self.syncs;
        self.steps.push(Step::SyncBegin { sync, node });
        sync
    }

    /// A call has ended.
    fn whole(&mut self, name: &str, told: &[u8], sync: Option<usize>) -> Result<()> {
        let Some(at) = rfind(told, b" = ") else {
            // The process ended in it.
            return Ok(());
        };
        let result = told[at + 3..].trim_ascii();
        if result.starts_with(b"?") {
            self.cut |= changes(name, told);
            return Ok(());
        }
        // It failed.
        if result.starts_with(b"-") {
            return Ok(());
        }
        let told = told[..at].trim_ascii_end();
        let told = told.strip_suffix(b")").unwrap_or(told);
        let result = match result.strip_prefix(b"0x") {
            Some(_) => 0,
            None => number64(result),
        };
        self.acts(name, told, result, sync)
    }

    /// A call has its effect.
    fn acts(&mut self, name: &str, told: &[u8], result: i64, sync: Option<usize>) -> Result<()> {
        match name {
            "openat" | "open" | "openat2" | "creat" => self.opened(name, told, result),
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => {
                self.written(name, told, result)
            }
            "fsync" | "fdatasync" | "syncfs" | "sync" => {
                if let Some(sync) = sync {
                    self.steps.push(Step::SyncEnd { sync });
                }
                Ok(())
            }
            "ftruncate" => {
                if let Some(open) = self.open.get(&number(told)) {
                    let (node, length) = (open.node, last_number(told)?);
                    self.steps.push(Step::Resize { node, length });
                }
                Ok(())
            }
            "lseek" => {
                if let Some(open) = self.open.get_mut(&number(told)) {
                    open.at = usize::try_from(result)?;
                }
                Ok(())
            }
            "dup" | "dup2" | "dup3" => {
                if let Some(open) = self.open.get(&number(told)).copied() {
                    self.open.insert(i32::try_from(result)?, open);
                }
                Ok(())
            }
            "mkdir" | "mkdirat" => match self.paths(told)?.first() {
                // Another's call was taken for the one that made it.
                Some(path) if self.find(path)?.is_some() => Ok(()),
                Some(path) => {
                    let node = self.make(true);
                    self.link(path, node)
                }
                None => Ok(()),
            },
            "unlink" | "unlinkat" | "rmdir" => self.unlinked(told),
            "rename" | "renameat" | "renameat2" => self.renamed(told),
            "link" | "linkat" => self.linked(told),
            "fallocate" => self.allocated(told),
            "mmap" => {
                let shared =
                    find(told, b"MAP_SHARED").is_some() && find(told, b"PROT_WRITE").is_some();
                let descriptor = told
                    .split(|byte| *byte == b',')
                    .nth(4)
                    .map_or(-1, |word| number(word.trim_ascii()));
                if shared && self.open.contains_key(&descriptor) {
                    bail!("a file is written through a mapping, which cannot be followed");
                }
                Ok(())
            }
            "copy_file_range" | "splice" | "sendfile" => {
                let to = match name {
                    "sendfile" => number(told),
                    _ => told
                        .split(|byte| *byte == b',')
                        .nth(2)
                        .map_or(-1, |word| number(word.trim_ascii())),
                };
                if self.open.contains_key(&to) {
                    bail!("a file is written by {name}, which cannot be followed");
                }
                Ok(())
            }
            "io_uring_setup" => bail!("writes through a ring cannot be followed"),
            "truncate" | "symlinkat" if !self.paths(told)?.is_empty() => {
                bail!("{name} cannot be followed")
            }
            _ => Ok(()),
        }
    }

    fn make(&mut self, folder: bool) -> Node {
        let node = self.nodes;
        self.nodes += 1;
        if folder {
            self.folders.insert(node, BTreeMap::new());
        }
        self.steps.push(Step::Make { node, folder });
        node
    }

    fn link(&mut self, path: &Path, node: Node) -> Result<()> {
        let (folder, name) = self.place(path)?;
        self.entries(folder)?.insert(name.clone(), node);
        self.steps.push(Step::Link { folder, name, node });
        Ok(())
    }

    fn opened(&mut self, name: &str, told: &[u8], result: i64) -> Result<()> {
        let paths = self.paths(told)?;
        let Some(path) = paths.first() else {
            return Ok(());
        };
        let flag = |flag: &[u8]| find(told, flag).is_some();
        let node = if flag(b"O_TMPFILE") {
            self.make(false)
        } else {
            let known = self.meet(path)?;
            let made = name == "creat" || flag(b"O_CREAT");
            match known {
                Some(node) if !flag(b"O_EXCL") => {
                    if flag(b"O_TRUNC") || name == "creat" {
                        self.steps.push(Step::Resize { node, length: 0 });
                    }
                    node
                }
                _ if made => {
                    let node = self.make(false);
                    self.link(path, node)?;
                    node
                }
                Some(node) => node,
                None => bail!("{} was not there and is opened", path.display()),
            }
        };
        let open = Open {
            node,
            at: 0,
            append: flag(b"O_APPEND"),
            durable: flag(b"O_SYNC") || flag(b"O_DSYNC"),
        };
        self.open.insert(i32::try_from(result)?, open);
        Ok(())
    }

    fn written(&mut self, name: &str, told: &[u8], result: i64) -> Result<()> {
        let Some(open) = self.open.get(&number(told)).copied() else {
            return Ok(());
        };
        if open.append {
            bail!("a file is written with O_APPEND, which is not followed");
        }
        let length = usize::try_from(result)?;
        let mut bytes = strings(told, usize::MAX)?;
        if bytes.len() < length {
            bail!("{length} bytes were written and {} were told", bytes.len());
        }
        bytes.truncate(length);
        let end = told
            .iter()
            .rposition(|byte| matches!(byte, b'"' | b']'))
            .unwrap_or(0);
        // After the bytes: how many, then where, then flags.
        let mut words = told[end + 1..].split(|byte| *byte == b',').skip(2);
        let node = open.node;
        let at = if name.starts_with('p') {
            let word = words.next().context("an offset")?;
            usize::try_from(number64(word.trim_ascii()))?
        } else {
            if let Some(open) = self.open.get_mut(&number(told)) {
                open.at += length;
            }
            open.at
        };
        self.steps.push(Step::Write { node, at, bytes });
        if open.durable || find(&told[end..], b"SYNC").is_some() {
            let sync = self.sync(Some(node));
            self.steps.push(Step::SyncEnd { sync });
        }
        Ok(())
    }

    fn unlinked(&mut self, told: &[u8]) -> Result<()> {
        let paths = self.paths(told)?;
        let Some(path) = paths.first() else {
            return Ok(());
        };
        let (folder, name) = self.place(path)?;
        if self.entries(folder)?.remove(&name).is_none() {
            bail!("{} was not there and is removed", path.display());
        }
        self.steps.push(Step::Unlink { folder, name });
        Ok(())
    }

    fn renamed(&mut self, told: &[u8]) -> Result<()> {
        let paths = self.paths(told)?;
        let [from, to] = paths.as_slice() else {
            return Ok(());
        };
        let (from_folder, from_name) = self.place(from)?;
        let (to_folder, to_name) = self.place(to)?;
        let Some(node) = self.entries(from_folder)?.remove(&from_name) else {
            bail!("{} was not there and is renamed", from.display());
        };
        self.entries(to_folder)?.insert(to_name.clone(), node);
        if from_folder == to_folder {
            let (folder, from, to) = (from_folder, from_name, to_name);
            self.steps.push(Step::Rename { folder, from, to });
        } else {
            let (folder, name) = (to_folder, to_name);
            self.steps.push(Step::Link { folder, name, node });
            let (folder, name) = (from_folder, from_name);
            self.steps.push(Step::Unlink { folder, name });
        }
        Ok(())
    }

    fn linked(&mut self, told: &[u8]) -> Result<()> {
        // A file without a name gets one by its descriptor.
        let all = quoted(told)?;
        let descriptor = all.first().and_then(|path| {
            let number = text(path).ok()?.strip_prefix("/proc/self/fd/")?;
            self.open.get(&number.parse().ok()?).map(|open| open.node)
        });
        let paths = self.paths(told)?;
        match (descriptor, paths.as_slice()) {
            // Another's call was taken for the one that made it.
            (_, [.., to]) if self.find(to)?.is_some() => Ok(()),
            (Some(node), [to]) => self.link(to, node),
            (None, [from, to]) => match self.find(from)? {
                Some(node) => self.link(to, node),
                None => bail!("{} was not there and is linked", from.display()),
            },
            (None, []) => Ok(()),
            _ => bail!("a link into or out of the folder"),
        }
    }

    fn allocated(&mut self, told: &[u8]) -> Result<()> {
        let Some(open) = self.open.get(&number(told)).copied() else {
            return Ok(());
        };
        if find(told, b"FALLOC_FL_KEEP_SIZE").is_some() {
            return Ok(());
        }
        if find(told, b"FALLOC_FL").is_some() {
            bail!("this kind of fallocate is not followed");
        }
        let mut words = told.split(|byte| *byte == b',').skip(2);
        let mut next = || words.next().map_or(0, |word| number64(word.trim_ascii()));
        let end = usize::try_from(next() + next())?;
        // Zeros at the end, and nothing where bytes are already: a write of none beyond them.
        let (node, bytes) = (open.node, Vec::new());
        self.steps.push(Step::Write {
            node,
            at: end,
            bytes,
        });
        Ok(())
    }

    /// The paths below the root that a call names, relative to it.
    fn paths(&self, told: &[u8]) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        let mut base = None;
        let mut at = 0;
        while at < told.len() {
            match told[at] {
                // The folder of a descriptor, or of AT_FDCWD.
                b'<' => {
                    let end = at
                        + told[at..]
                            .iter()
                            .position(|byte| *byte == b'>')
                            .unwrap_or(0);
                    base = Some(decode(&told[at + 1..end.max(at + 1)])?);
                    at = end.max(at);
                }
                b'"' => {
                    let length = told[at + 1..].iter().position(|byte| *byte == b'"');
                    let end = at + 1 + length.context("an open quote")?;
                    let path = PathBuf::from(text(&decode(&told[at + 1..end])?)?);
                    let path = match &base {
                        Some(base) => Path::new(text(base)?).join(path),
                        None => path,
                    };
                    if let Some(path) = self.below(&path) {
                        paths.push(path);
                    }
                    at = end;
                }
                _ => {}
            }
            at += 1;
        }
        Ok(paths)
    }

    /// A path relative to the root, if it is below it and of interest. The log's index is made anew by each start, and
    /// sockets are no files.
    fn below(&self, path: &Path) -> Option<PathBuf> {
        let mut plain = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir => {
                    plain.pop();
                }
                Component::CurDir => {}
                part => plain.push(part),
            }
        }
        let path = plain.strip_prefix(&self.root).ok()?;
        (!is_left_out(path)).then(|| path.to_owned())
    }

    fn place(&mut self, path: &Path) -> Result<(Node, String)> {
        let folder = path.parent().context("a name in a folder")?;
        let node = self.meet(folder)?;
        let name = path.file_name().and_then(|name| name.to_str());
        match (node, name) {
            (Some(node), Some(name)) => Ok((node, name.to_owned())),
            _ => bail!("{} lies in no folder that was seen", path.display()),
        }
    }

    /// What a path names. If nothing yet, then what a call that has begun makes of it, or of a folder above.
    fn meet(&mut self, path: &Path) -> Result<Option<Node>> {
        while self.find(path)?.is_none() {
            let mut maker = None;
            let makes = |call: &Begun| {
                let name = call.name.as_str();
                ["mkdir", "rename", "link"]
                    .iter()
                    .any(|maker| name.starts_with(maker))
            };
            for (thread, call) in &self.begun {
                // The bytes of a write are no paths.
                if !call.met && makes(call) {
                    let made = self.paths(&call.told)?.pop();
                    if made.is_some_and(|made| path.starts_with(made)) {
                        maker = Some(*thread);
                    }
                }
            }
            let Some(call) = maker.and_then(|thread| self.begun.get_mut(&thread)) else {
                return Ok(None);
            };
            call.met = true;
            let (name, told) = (call.name.clone(), call.told.clone());
            self.acts(&name, &told, 0, None)?;
        }
        self.find(path)
    }

    fn find(&self, path: &Path) -> Result<Option<Node>> {
        let mut node = ROOT;
        for part in path.components() {
            let name = part.as_os_str().to_str().context("a name in UTF-8")?;
            let entries = self.folders.get(&node);
            match entries.and_then(|entries| entries.get(name)) {
                Some(next) => node = *next,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    fn entries(&mut self, folder: Node) -> Result<&mut BTreeMap<String, Node>> {
        self.folders
            .get_mut(&folder)
            .context("a folder that was seen")
    }
}

/// Whether a call that nobody saw the end of may have changed a file.
fn changes(name: &str, told: &[u8]) -> bool {
    !matches!(name, "close" | "fsync" | "fdatasync" | "lseek" | "mmap") && !is_tcp(told)
}

/// Files that no state holds.
pub(crate) fn is_left_out(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| name.ends_with("-shm") || name.starts_with("admin.sock"))
}

fn is_tcp(told: &[u8]) -> bool {
    find(&told[..told.len().min(40)], b"<TCP").is_some()
}

/// All quoted strings, one after another, until there are so many bytes.
fn strings(told: &[u8], enough: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for string in quoted_raw(told) {
        // Four characters for each byte.
        let wanted = string
            .len()
            .min(enough.saturating_sub(bytes.len()).saturating_mul(4));
        bytes.extend(decode(&string[..wanted])?);
    }
    Ok(bytes)
}

fn quoted(told: &[u8]) -> Result<Vec<Vec<u8>>> {
    quoted_raw(told).map(decode).collect()
}

fn quoted_raw(told: &[u8]) -> impl Iterator<Item = &[u8]> {
    told.split(|byte| *byte == b'"').skip(1).step_by(2)
}

/// `\x41\x42` as bytes; what is not in this form stays as it is.
fn decode(told: &[u8]) -> Result<Vec<u8>> {
    if !told.starts_with(b"\\x") {
        return Ok(told.to_vec());
    }
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    told.chunks(4)
        .map(|chunk| match chunk {
            [b'\\', b'x', high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect::<Option<Vec<u8>>>()
        .context("bytes in the form \\x41")
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).context("UTF-8")
}

/// The number that it begins with; -1 if it does with none.
fn number64(told: &[u8]) -> i64 {
    let digits = told.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text(&told[..digits])
        .ok()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(-1)
}

fn number(told: &[u8]) -> i32 {
    i32::try_from(number64(told)).unwrap_or(-1)
}

fn last_number(told: &[u8]) -> Result<usize> {
    let word = told.rsplit(|byte| *byte == b',').next().unwrap_or_default();
    Ok(usize::try_from(number64(word.trim_ascii()))?)
}

fn find(told: &[u8], word: &[u8]) -> Option<usize> {
    told.windows(word.len()).position(|window| window == word)
}

fn rfind(told: &[u8], word: &[u8]) -> Option<usize> {
    told.windows(word.len()).rposition(|window| window == word)
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
