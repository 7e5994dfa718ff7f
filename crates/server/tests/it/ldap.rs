//! Directories as they should be, and as they should not: what a sign-in makes of each, and what `wharf ldap check` tells.

use std::io::Write as _;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use wharf::app::ldap::Ldap;
use wharf::config::{Inputs, load};
use wharf_core::access::Password;
use wharf_core::directory::{Directory as _, Fault, GROUPS, Person, Story, Verdict};
use wharf_testkit::directory::PAGE;
use wharf_testkit::{FakeLdap, Mood};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
const ALICE: &str = "uid=alice,ou=people,dc=example,dc=com";
/// Short, so that a test of a slow server is none.
const QUICK: &str = "connect_timeout = \"500ms\"\nread_timeout = \"500ms\"\n";

/// What a configuration makes.
fn open(config: &str) -> Ldap {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wharf.toml");
    std::fs::write(&file, config).expect("a file");
    let inputs = Inputs {
        file: Some(file),
        ..Inputs::default()
    };
    let loaded = load(&inputs).unwrap_or_else(|problems| panic!("{problems}"));
    Ldap::new(loaded.config.auth.ldap[0].settings()).expect("settings")
}

async fn with_alice() -> FakeLdap {
    let fake = FakeLdap::start(false).await;
    fake.person("alice", "right");
    fake
}

async fn sign_in(ldap: &Ldap, name: &str, password: &str) -> Result<Verdict, Fault> {
    ldap.sign_in(name, &Password::new(password), &mut Story::default())
        .await
}

#[track_caller]
fn proved(verdict: Result<Verdict, Fault>) -> Person {
    match verdict {
        Ok(Verdict::Proved(person)) => *person,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_the_directory_lets_in_and_another_does_not() {
    let fake = with_alice().await;
    let ldap = open(&fake.config(&[fake.url()], ""));
    let person = proved(sign_in(&ldap, "alice", "right").await);
    assert_eq!((person.name.as_str(), person.dn.as_str()), ("alice", ALICE));
    assert_eq!(person.subject, "entryuuid:id-alice");
    assert!(person.groups.is_empty() && !person.admin);
    assert_eq!(sign_in(&ldap, "alice", "wrong").await, Ok(Verdict::Wrong));
    assert_eq!(sign_in(&ldap, "bob", "right").await, Ok(Verdict::Unknown));
    // The account that searches is nobody who signs in.
    assert_eq!(
        sign_in(&ldap, "search", "search-pw").await,
        Ok(Verdict::Unknown)
    );
}

/// Case folding: who is `alice` to the directory is one person here, however it was typed, and gets the name that the directory has.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_capitals_is_the_same_person() {
    let fake = with_alice().await;
    let ldap = open(&fake.config(&[fake.url()], ""));
    let one = proved(sign_in(&ldap, "alice", "right").await);
    assert_eq!(proved(sign_in(&ldap, "ALICE", "right").await), one);
    // Found by the server, and yet another name: what a server takes for equal is not for it to say.
    fake.add(
        "uid=x,dc=example,dc=com",
        Some("right"),
        &[("uid", &["mallory"]), ("mail", &["bob"])],
    );
    let by_mail = open(&fake.config(&[fake.url()], "user_attribute = \"mail\"\n"));
    assert_eq!(proved(sign_in(&by_mail, "BOB", "right").await).name, "bob");
}

/// LDAP injection: nothing that is typed reaches the directory as anything but a name, and what cannot be a name not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_a_filter_finds_nobody() {
    let fake = with_alice().await;
    let ldap = open(&fake.config(&[fake.url()], ""));
    for name in [
        "*",
        "a*",
        "alice)(uid=*",
        "*)(|(uid=*",
        "alice\0",
        "\\61lice",
        "alice ",
        ALICE,
        "",
        "alice)(&",
    ] {
        assert_eq!(
            sign_in(&ldap, name, "right").await,
            Ok(Verdict::Unknown),
            "{name:?}"
        );
    }
    assert_eq!(fake.connections(), 0);
}

/// An empty password: the directory would say yes.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_none_never_reaches_the_directory() {
    let fake = with_alice().await;
    let ldap = open(&fake.config(&[fake.url()], ""));
    let long = "x".repeat(2_000);
    for password in ["", "\0", "right\0", long.as_str()] {
        assert_eq!(
            sign_in(&ldap, "alice", password).await,
            Ok(Verdict::Unknown)
        );
    }
    assert_eq!(fake.binds(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_name_costs_what_a_known_one_does() {
    let fake = with_alice().await;
    let ldap = open(&fake.config(&[fake.url()], ""));
    let mut cost = Vec::new();
    for name in ["alice", "nobody"] {
        let before = (fake.binds().len(), fake.searches().len());
        let _ = sign_in(&ldap, name, "wrong").await;
        let _ = sign_in(&ldap, name, "wrong").await;
        cost.push((
            fake.binds().len() - before.0,
            fake.searches().len() - before.1,
        ));
    }
    // The first one brought the search account's bind.
    assert_eq!(cost, [(3, 2), (2, 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_two_entries_is_nobodys() {
    let fake = with_alice().await;
    fake.add(
        "uid=alice,ou=guests,dc=example,dc=com",
        Some("right"),
        &[("uid", &["alice"])],
    );
    let ldap = open(&fake.config(&[fake.url()], ""));
    let verdict = sign_in(&ldap, "alice", "right").await;
    assert!(
        matches!(&verdict, Ok(Verdict::Unusable(why)) if why.contains("several")),
        "{verdict:?}"
    );
    // Nobody's password was tried.
    assert_eq!(fake.binds().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_locked_there_is_not_let_in_and_not_found_again() {
    let fake = with_alice().await;
    let ldap = open(&fake.config(&[fake.url()], ""));
    let subject = proved(sign_in(&ldap, "alice", "right").await).subject;
    assert_eq!(ldap.again(&subject).await.unwrap().unwrap().name, "alice");
    let ids: (&str, &[&str]) = ("entryUUID", &["id-alice"]);
    fake.add(
        ALICE,
        Some("right"),
        &[("uid", &["alice"]), ids, ("userAccountControl", &["514"])],
    );
    assert!(matches!(
        sign_in(&ldap, "alice", "right").await,
        Ok(Verdict::Locked(_))
    ));
    assert_eq!(ldap.again(&subject).await, Ok(None));
    // Renamed and moved: the same one.
    fake.remove(ALICE);
    fake.add(
        "uid=alicia,ou=sales,dc=example,dc=com",
        Some("right"),
        &[("uid", &["alicia"]), ids],
    );
    assert_eq!(ldap.again(&subject).await.unwrap().unwrap().name, "alicia");
    // Somebody else who gets the old name is somebody else.
    fake.add(
        ALICE,
        Some("new"),
        &[("uid", &["alice"]), ("entryUUID", &["id-other"])],
    );
    assert_ne!(
        proved(sign_in(&ldap, "alice", "new").await).subject,
        subject
    );
    fake.remove("uid=alicia,ou=sales,dc=example,dc=com");
    assert_eq!(ldap.again(&subject).await, Ok(None));
    fake.behave(Mood::Cut);
    assert!(ldap.again(&subject).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lasting_id_the_name_is_who_one_is() {
    let fake = FakeLdap::start(false).await;
    fake.add(
        "uid=Bob,dc=example,dc=com",
        Some("right"),
        &[("uid", &["Bob"])],
    );
    let ldap = open(&fake.config(&[fake.url()], "filter = \"(uid=*)\"\n"));
    let bob = proved(sign_in(&ldap, "bob", "right").await);
    assert_eq!(bob.subject, "dn:uid=bob,dc=example,dc=com");
    assert_eq!(ldap.again(&bob.subject).await.unwrap().unwrap(), bob);
    fake.remove("uid=Bob,dc=example,dc=com");
    assert_eq!(ldap.again(&bob.subject).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_and_each_password_has_one_of_its_own() {
    let fake = with_alice().await;
    let ldap = open(&fake.config(&[fake.url()], ""));
    for _ in 0..10 {
        proved(sign_in(&ldap, "alice", "right").await);
        assert_eq!(sign_in(&ldap, "alice", "wrong").await, Ok(Verdict::Wrong));
    }
    assert_eq!(fake.connections(), 2);
    // A server that closed what was kept is no dead one.
    let twin = fake.twin(false).await;
    drop(twin);
    fake.behave(Mood::Cut);
    assert!(sign_in(&ldap, "alice", "right").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_checked_from_the_first_byte_and_after_start_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    for tls in [true, false] {
        let fake = FakeLdap::start(tls).await;
        fake.person("alice", "right");
        let ca = folder.path().join(format!("{tls}.pem"));
        std::fs::write(&ca, fake.ca.pem()).expect("a file");
        let (url, start) = match tls {
            true => (fake.tls_url(), ""),
            false => (
                fake.url().replace("127.0.0.1", "localhost"),
                "start_tls = true\n",
            ),
        };
        let trusted = open(&fake.config(
            std::slice::from_ref(&url),
            &format!("{start}ca_file = {ca:?}\n"),
        ));
        proved(sign_in(&trusted, "alice", "right").await);
        let binds = fake.binds().len();
        let untrusted = open(&fake.config(&[url], start));
        let fault = sign_in(&untrusted, "alice", "right").await.unwrap_err();
        assert!(fault.cure.contains("ca_file"), "{fault}");
        // No password went to whom nobody vouches for.
        assert_eq!(fake.binds().len(), binds);
    }
}

/// What somebody on the way puts between StartTLS and TLS is not taken for the server's word.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_before_tls_counts_for_nothing() {
    let fake = with_alice().await;
    fake.behave(Mood::Injects);
    let ldap = open(&fake.config(&[fake.url()], "start_tls = true\n"));
    let fault = sign_in(&ldap, "alice", "right").await.unwrap_err();
    assert!(
        fault.what.contains("between StartTLS and TLS") || fault.what.contains("TLS"),
        "{fault}"
    );
    assert_eq!(fake.binds(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_nonsense_is_told_so_in_bounded_time() {
    for (mood, told) in [
        (Mood::Silent, "read_timeout"),
        (Mood::Slow(100), "read_timeout"),
        (Mood::Cut, "ended the connection"),
        (
            Mood::Says(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
            "not LDAP",
        ),
        (
            Mood::Says(vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
            "not LDAP",
        ),
        (Mood::Says([0x30; 4_000].to_vec()), "not LDAP"),
        (Mood::Says(vec![0x30, 0x80, 0, 0]), "not LDAP"),
        (
            Mood::Says(vec![0x30, 0x05, 0x02, 0x01, 0x01, 0x61, 0x00]),
            "not LDAP",
        ),
        (
            Mood::Says(vec![0x30, 0x05, 0x02, 0x01, 0x00, 0x78, 0x00]),
            "not LDAP",
        ),
        (Mood::Binds(51), "busy"),
        (Mood::Binds(49), "does not let the search account"),
        (Mood::Searches(10), "referral"),
        (Mood::Searches(32), "noSuchObject"),
        (Mood::Searches(2_000), "result code 2000"),
        (Mood::Confused, "not asked"),
        (Mood::Endless, "more than 16 MiB"),
    ] {
        let fake = with_alice().await;
        fake.behave(mood.clone());
        let more = if mood == Mood::Endless { "" } else { QUICK };
        let ldap = open(&fake.config(&[fake.url()], more));
        let begun = Instant::now();
        let fault = sign_in(&ldap, "alice", "s3cret-guess").await.unwrap_err();
        assert!(fault.to_string().contains(told), "{mood:?}: {fault}");
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{mood:?}: {:?}",
            begun.elapsed()
        );
        assert!(!format!("{fault:?}").contains("s3cret-guess"), "{fault}");
        // It is left alone for a while, so that nobody else waits for it.
        let (begun, connections) = (Instant::now(), fake.connections());
        assert!(sign_in(&ldap, "alice", "right").await.is_err());
        assert!(begun.elapsed() < Duration::from_millis(300), "{mood:?}");
        assert_eq!(fake.connections(), connections, "{mood:?}");
        // And it is asked again by itself.
        fake.behave(Mood::Good);
        let end = Instant::now() + Duration::from_secs(30);
        while !matches!(
            sign_in(&ldap, "alice", "right").await,
            Ok(Verdict::Proved(_))
        ) {
            assert!(Instant::now() < end, "{mood:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_server_is_gone_the_next_is_asked() {
    let first = with_alice().await;
    let second = first.twin(false).await;
    let ldap = open(&first.config(&[first.url(), second.url()], QUICK));
    proved(sign_in(&ldap, "alice", "right").await);
    assert_eq!(second.connections(), 0);
    first.behave(Mood::Silent);
    let begun = Instant::now();
    proved(sign_in(&ldap, "alice", "right").await);
    assert!(begun.elapsed() < Duration::from_secs(4));
    // The next one does not wait for the dead one.
    let begun = Instant::now();
    proved(sign_in(&ldap, "alice", "right").await);
    assert!(begun.elapsed() < Duration::from_millis(400));
    // A wrong password is an answer, and nobody is asked for a second opinion.
    let asked = first.binds().len();
    assert_eq!(sign_in(&ldap, "alice", "wrong").await, Ok(Verdict::Wrong));
    assert_eq!(first.binds().len(), asked);
    // The favourite comes back.
    first.behave(Mood::Good);
    let (end, before) = (
        Instant::now() + Duration::from_secs(30),
        first.searches().len(),
    );
    while first.searches().len() == before {
        assert!(Instant::now() < end);
        proved(sign_in(&ldap, "alice", "right").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    first.stop();
    proved(sign_in(&ldap, "alice", "right").await);
}

/// A search account that cannot sign in must not lock itself out by trying.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_search_password_is_not_tried_all_the_time() {
    let fake = with_alice().await;
    let ldap = open(
        &fake
            .config(&[fake.url()], "")
            .replace("search-pw", "wrong-pw"),
    );
    for _ in 0..20 {
        let fault = sign_in(&ldap, "alice", "right").await.unwrap_err();
        assert!(
            fault.cure.contains("search_password") && !fault.to_string().contains("wrong-pw"),
            "{fault}"
        );
    }
    assert_eq!(fake.binds().len(), 1);
}

/// More sign-ins than there are places wait their turn, and those that a slow server keeps waiting end.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_takes_no_more_connections_than_allowed() {
    let fake = with_alice().await;
    let ldap = std::sync::Arc::new(open(&fake.config(&[fake.url()], "connections = 3\n")));
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let ldap = ldap.clone();
        crowd.spawn(async move { proved(sign_in(&ldap, "alice", "right").await) });
    }
    assert_eq!(crowd.join_all().await.len(), 50);
    assert!(fake.connections() <= 6, "{}", fake.connections());
}

async fn with_groups() -> FakeLdap {
    let fake = with_alice().await;
    fake.add("ou=groups,dc=example,dc=com", None, &[]);
    fake.group("developers", &[ALICE]);
    fake.group(
        "all",
        &[
            "cn=developers,ou=groups,dc=example,dc=com",
            "cn=rings,ou=groups,dc=example,dc=com",
        ],
    );
    // A circle.
    fake.group("rings", &["cn=all,ou=groups,dc=example,dc=com"]);
    fake.group("others", &["uid=bob,ou=people,dc=example,dc=com"]);
    fake.add(
        "cn=developers,ou=elsewhere,dc=example,dc=com",
        None,
        &[
            ("cn", &["impostors"]),
            ("objectClass", &["groupOfNames"]),
            ("member", &[ALICE]),
        ],
    );
    fake
}

const SEARCHED: &str =
    "group_base_dn = \"ou=groups,dc=example,dc=com\"\ngroup_member_attribute = \"member\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_searched_by_their_members_and_those_around_them() {
    let fake = with_groups().await;
    let groups = async |more: &str| {
        let ldap = open(&fake.config(&[fake.url()], &format!("{SEARCHED}{more}")));
        let person = proved(sign_in(&ldap, "alice", "right").await);
        (person.groups.join(" "), person.admin)
    };
    assert_eq!(groups("").await, ("developers".to_owned(), false));
    assert_eq!(
        groups("nested = \"walk\"\n").await.0,
        "all developers rings"
    );
    assert_eq!(
        groups("nested = \"chain\"\n").await.0,
        "all developers rings"
    );
    assert_eq!(
        groups("nested = \"walk\"\ngroups = [\"*s\"]\n").await.0,
        "developers rings"
    );
    assert!(groups("admin_group = \"Developers\"\n").await.1);
    assert!(
        groups("admin_group = \"cn=developers, ou=groups, dc=example, dc=com\"\n")
            .await
            .1
    );
    assert!(
        !groups("admin_group = \"cn=developers,ou=elsewhere,dc=example,dc=com\"\n")
            .await
            .1
    );
    assert!(!groups("admin_group = \"all\"\n").await.1);
    assert!(groups("admin_group = \"all\"\nnested = \"walk\"\n").await.1);
    assert_eq!(groups("group_filter = \"(cn=nothing)\"\n").await.0, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_named_by_the_entry_too() {
    let fake = with_groups().await;
    let named: (&str, &[&str]) = (
        "memberOf",
        &[
            "cn=developers,ou=groups,dc=example,dc=com",
            "cn=developers,ou=elsewhere,dc=example,dc=com",
            "nonsense",
            "gid=7,ou=groups,dc=example,dc=com",
        ],
    );
    fake.add(
        "gid=7,ou=groups,dc=example,dc=com",
        None,
        &[
            ("cn", &["seven"]),
            ("memberOf", &["cn=all,ou=groups,dc=example,dc=com"]),
        ],
    );
    fake.add(ALICE, Some("right"), &[("uid", &["alice"]), named]);
    let groups = async |more: &str| {
        let more = format!(
            "group_base_dn = \"ou=groups,dc=example,dc=com\"\nmember_of = \"memberOf\"\n{more}"
        );
        let ldap = open(&fake.config(&[fake.url()], &more));
        proved(sign_in(&ldap, "alice", "right").await)
            .groups
            .join(" ")
    };
    assert_eq!(groups("").await, "developers seven");
    assert_eq!(groups("nested = \"walk\"\n").await, "all developers seven");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_unix_name_their_members() {
    let fake = with_alice().await;
    fake.add(
        "cn=staff,dc=example,dc=com",
        None,
        &[
            ("cn", &["staff"]),
            ("objectClass", &["posixGroup"]),
            ("memberUid", &["alice"]),
        ],
    );
    let more = "group_member_attribute = \"memberUid\"\ngroup_member = \"name\"\n";
    let ldap = open(&fake.config(&[fake.url()], more));
    assert_eq!(
        proved(sign_in(&ldap, "alice", "right").await).groups,
        ["staff"]
    );
}

/// Huge groups, and huge numbers of them.
/// Spec: LDAP-2.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_gives_page_by_page_is_read_to_its_end() {
    let fake = with_alice().await;
    for at in 0..2 * PAGE {
        fake.group(&format!("g{at}"), &[ALICE]);
    }
    fake.group("last", &[ALICE]);
    let ldap = open(&fake.config(
        &[fake.url()],
        "group_member_attribute = \"member\"\ngroups = [\"last\"]\n",
    ));
    let before = fake.searches().len();
    assert_eq!(
        proved(sign_in(&ldap, "alice", "right").await).groups,
        ["last"]
    );
    assert_eq!(
        fake.searches().len() - before,
        1 + 3,
        "herself, and three pages"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_too_many_groups_is_in_a_bounded_number() {
    let fake = with_alice().await;
    let crowd: Vec<String> = (0..5_000)
        .map(|at| format!("uid=u{at},ou=people,dc=example,dc=com"))
        .collect();
    let mut members: Vec<&str> = crowd.iter().map(String::as_str).collect();
    members.push(ALICE);
    fake.group("crowd", &members);
    let ldap = open(&fake.config(
        &[fake.url()],
        "group_member_attribute = \"member\"\nnested = \"walk\"\n",
    ));
    assert_eq!(
        proved(sign_in(&ldap, "alice", "right").await).groups,
        ["crowd"]
    );
    for at in 0..GROUPS + 200 {
        fake.group(&format!("g{at}"), &[ALICE]);
    }
    assert_eq!(
        proved(sign_in(&ldap, "alice", "right").await).groups.len(),
        GROUPS
    );
    // Those that are named count, wherever they stand, and however many others there are.
    for (filter, counts) in [("nested = \"off\"\n", true), ("nested = \"walk\"\n", false)] {
        let last = format!("g{}", GROUPS + 199);
        let ldap = open(&fake.config(
            &[fake.url()],
            &format!("group_member_attribute = \"member\"\ngroups = [\"{last}\"]\nadmin_group = \"{last}\"\n{filter}"),
        ));
        let alice = proved(sign_in(&ldap, "alice", "right").await);
        assert_eq!(alice.groups == [last], counts, "{filter}{:?}", alice.groups);
        assert_eq!(alice.admin, counts, "{filter}");
    }
    // A chain without end.
    let deep = with_alice().await;
    deep.group("d0", &[ALICE]);
    for at in 1..50 {
        deep.group(
            &format!("d{at}"),
            &[&format!("cn=d{},ou=groups,dc=example,dc=com", at - 1)],
        );
    }
    let ldap = open(&deep.config(
        &[deep.url()],
        "group_member_attribute = \"member\"\nnested = \"walk\"\n",
    ));
    assert_eq!(
        proved(sign_in(&ldap, "alice", "right").await).groups.len(),
        11
    );
}

fn run(config: &str, words: &[&str], input: &str) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wharf.toml");
    std::fs::write(&file, config).expect("a file");
    let mut child = std::process::Command::new(WHARF)
        .args(words)
        .arg("--config")
        .arg(&file)
        .current_dir(folder.path())
        .env("XDG_CONFIG_HOME", folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a program");
    // A command that refuses its words reads nothing.
    let _ = child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(input.as_bytes());
    child.wait_with_output().expect("an end")
}

async fn check(
    config: String,
    words: &'static [&'static str],
    input: &'static str,
) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(move || run(&config, words, input))
        .await
        .expect("a thread");
    let told = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(told).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_of_a_sign_in_can_be_seen() {
    let fake = with_groups().await;
    let config = fake.config(
        &[fake.url()],
        &format!("{SEARCHED}nested = \"walk\"\nfilter = \"(objectClass=top)\"\n"),
    );
    let (code, told) = check(
        config.clone(),
        &["ldap", "check", "alice", "--password-stdin"],
        "right\n",
    )
    .await;
    assert_eq!(code, Some(0), "{told}");
    for part in [
        "was reached, without TLS",
        "the search account cn=search,dc=example,dc=com was let in",
        "(&(objectClass=top)(uid=alice))",
        ALICE,
        "accepts the password",
        "entryuuid:id-alice",
        "at depth 1",
        "groups that count: all, developers, rings",
        "alice can sign in.",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let (code, told) = check(
        config.clone(),
        &["ldap", "check", "alice", "--password-stdin"],
        "guessed-it",
    )
    .await;
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("!!  the server refuses this password") && told.contains("help: "),
        "{told}"
    );
    assert!(
        !told.contains("guessed-it") && !told.contains("search-pw"),
        "{told}"
    );
    let (code, told) = check(config.clone(), &["ldap", "check", "nobody"], "").await;
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("no entry has this name") && told.contains("no directory knows nobody"),
        "{told}"
    );
    let (code, told) = check(
        config.clone(),
        &["ldap", "check", "alice", "--password-stdin"],
        "\n",
    )
    .await;
    assert_eq!(code, Some(2), "{told}");
    let (code, told) = check(
        config.clone(),
        &["ldap", "check", "alice", "--directory", "other"],
        "",
    )
    .await;
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("\"other\""), "{told}");
    let (code, told) = check(String::new(), &["ldap", "check", "alice"], "").await;
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("--config"), "{told}");
    fake.behave(Mood::Binds(49));
    let (code, told) = check(config, &["ldap", "check", "alice"], "").await;
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("help: see `search_dn` and `search_password`"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_checked_against_each_server() {
    let fake = with_alice().await;
    let gone = fake.twin(false).await;
    gone.stop();
    let good = fake.config(&[fake.url()], "");
    let (code, told) = check(good, &["config", "check", "--online"], "").await;
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("The directory corp can be searched at ldap://127.0.0.1"),
        "{told}"
    );
    let both = fake.config(&[fake.url(), gone.url()], QUICK);
    let (code, told) = check(both, &["config", "check", "--online"], "").await;
    assert_ne!(code, Some(0), "{told}");
    assert!(
        told.contains("can be searched at") && told.contains("(`urls`)"),
        "{told}"
    );
    let elsewhere = fake.config(&[fake.url()], "").replace(
        "base_dn = \"dc=example,dc=com\"",
        "base_dn = \"dc=nowhere\"",
    );
    let (code, told) = check(elsewhere, &["config", "check", "--online"], "").await;
    assert_ne!(code, Some(0), "{told}");
    assert!(
        told.contains("dc=nowhere") && told.contains("`base_dn`"),
        "{told}"
    );
}
