//! What strace tells, line by line, and the steps that come of it.

use super::*;

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
}

fn steps(trace: &str) -> Result<Vec<Step>> {
    // What stands in ‹› is told as strace does.
    let mut told = String::new();
    for (at, part) in trace.split(['‹', '›']).enumerate() {
        told.push_str(&if at % 2 == 1 {
            hex(part)
        } else {
            part.to_owned()
        });
    }
    let mut tracer = Tracer::new(Path::new("/disk"));
    tracer.read(told.as_bytes())?;
    Ok(tracer.steps)
}

#[test]
fn a_durable_file_is_followed_from_its_name_to_the_answer() {
    let trace = r#"7 mkdirat(AT_FDCWD<‹/›>, "‹/disk/data›", 0700) = 0
7 openat(AT_FDCWD<‹/›>, "‹/disk/data/a›", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 5<‹/disk/data/a›>
8 pwritev(5<‹/disk/data/a›>, [{iov_base="‹he›", iov_len=2}, {iov_base="‹llo›", iov_len=3}], 2, 16) = 5
7 fdatasync(5<‹/disk/data/a›> <unfinished ...>
8 pwrite64(5<‹/disk/data/a›>, "‹late›", 4, 21) = 4
7 <... fdatasync resumed>) = 0
7 write(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, "‹HTTP/1.1 201 Created
X-Request-Id: call-17
›", 9 <unfinished ...>
7 <... write resumed>) = 9
7 linkat(4<‹/disk/data›>, "‹a›", 4<‹/disk/data›>, "‹b›", 0) = 0
7 unlink("‹/disk/data/../data/a›") = 0
7 ftruncate(5<‹/disk/data/b›>, 3) = 0
7 close(5<‹/disk/data/b›>) = 0
7 write(5<‹/elsewhere›>, "‹x›", 1) = 1
"#;
    let link = |folder, name: &str, node| Step::Link {
        folder,
        name: name.to_owned(),
        node,
    };
    let write = |at, bytes: &[u8]| Step::Write {
        node: 2,
        at,
        bytes: bytes.to_vec(),
    };
    let make = |node, folder| Step::Make { node, folder };
    let expected = [
        make(1, true),
        link(0, "data", 1),
        make(2, false),
        link(1, "a", 2),
        write(16, b"hello"),
        Step::SyncBegin {
            sync: 1,
            node: Some(2),
        },
        write(21, b"late"),
        Step::SyncEnd { sync: 1 },
        Step::Answer { call: 17 },
        link(1, "b", 2),
        Step::Unlink {
            folder: 1,
            name: "a".to_owned(),
        },
        Step::Resize { node: 2, length: 3 },
    ];
    assert_eq!(steps(trace).unwrap(), expected);
}

/// Two threads make one folder: the one that lost goes on before the end of the other's call is told.
#[test]
fn what_a_call_has_done_is_met_before_its_end() {
    let trace = r#"7 openat(AT_FDCWD<‹/›>, "‹/disk/a›", O_RDWR|O_CREAT|O_EXCL, 0600) = 5<‹/disk/a›>
7 openat(AT_FDCWD<‹/›>, "‹/disk/b›", O_RDWR|O_CREAT|O_EXCL, 0600) = 6<‹/disk/b›>
6 pwrite64(6<‹/disk/b›>, "\xff", 1, 0 <unfinished ...>
7 mkdir("‹/disk/to›", 0700 <unfinished ...>
8 mkdir("‹/disk/to›", 0700) = -1 EEXIST (File exists)
8 rename("‹/disk/a›", "‹/disk/to/a›" <unfinished ...>
9 openat(AT_FDCWD<‹/›>, "‹/disk/to/a›", O_RDONLY) = 7<‹/disk/to/a›>
8 <... rename resumed>) = 0
7 <... mkdir resumed>) = 0
7 rename("‹/disk/b›", "‹/disk/to/b›") = 0
"#;
    let steps = steps(trace).unwrap();
    let made = |step: &&Step| matches!(step, Step::Make { folder: true, .. });
    let linked = |step: &&Step| matches!(step, Step::Link { folder: 3, .. });
    assert_eq!(steps.iter().filter(made).count(), 1);
    assert_eq!(steps.iter().filter(linked).count(), 2);
    assert_eq!(steps.len(), 4 + 2 + 2 * 2, "{steps:?}");
}

#[test]
fn a_folders_names_need_fsync() {
    let trace = |call: &str| {
        let open = "7 openat(AT_FDCWD<‹/›>, \"‹/disk›\", O_RDONLY|O_CLOEXEC) = 5<‹/disk›>\n";
        steps(&format!("{open}7 {call}(5<‹/disk›>) = 0\n")).unwrap()
    };
    assert_eq!(trace("fdatasync"), []);
    assert_eq!(trace("fsync").len(), 2);
}

#[test]
fn what_failed_or_lies_elsewhere_is_no_step() {
    let trace = r#"7 openat(AT_FDCWD<‹/›>, "‹/other/a›", O_RDWR|O_CREAT, 0600) = 5<‹/other/a›>
7 pwrite64(5<‹/other/a›>, "‹x›", 1, 0) = 1
7 mkdir("‹/disk/a›", 0700) = -1 ENOSPC (No space left on device)
7 openat(AT_FDCWD<‹/disk›>, "‹wharf.db-shm›", O_RDWR|O_CREAT, 0600) = 6<‹/disk/wharf.db-shm›>
7 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 6<‹/disk/wharf.db-shm›>, 0) = 0x7f0000000000
7 +++ killed by SIGKILL +++
"#;
    assert_eq!(steps(trace).unwrap(), []);
}

#[test]
fn a_kill_within_a_write_is_seen() {
    let cut = |trace: &str| {
        let mut tracer = Tracer::new(Path::new("/disk"));
        tracer.read(trace.as_bytes()).unwrap();
        tracer.is_cut()
    };
    assert!(cut(
        "7 pwrite64(5</d>, \"\\x41\", 1, 0 <unfinished ...>) = ?\n"
    ));
    assert!(cut("7 pwrite64(5</d>, \"\\x41\", 1, 0 <unfinished ...>\n"));
    assert!(!cut("7 fdatasync(5</d> <unfinished ...>) = ?\n"));
}

#[test]
fn what_cannot_be_followed_is_an_error() {
    let open = "7 openat(AT_FDCWD<‹/disk›>, \"‹a›\", O_RDWR|O_CREAT, 0600) = 5<‹/disk/a›>\n";
    for call in [
        "7 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 5<‹/disk/a›>, 0) = 0x7f0000000000\n",
        "7 copy_file_range(6<‹/x›>, [0], 5<‹/disk/a›>, [0], 10, 0) = 10\n",
        "7 io_uring_setup(8, {}) = 9\n",
        "7 pwrite64(5<‹/disk/a›>, \"‹x›\"..., 100, 0) = 100\n",
        "7 unlink(\"‹/disk/none›\") = 0\n",
    ] {
        assert!(steps(&format!("{open}{call}")).is_err(), "{call}");
    }
}
