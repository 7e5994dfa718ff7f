//! What is set up wrongly: `wharf serve` and `wharf config check --online` find it before anything is used, say the same
//! sentence, and write nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wharf_core::access::SecretKeys;
use wharf_testkit::s3::{ACCESS_KEY, BUCKET, Fault, Kind, S3, SECRET_KEY, Saying};
use wharf_testkit::test_server::{self, TestDatabase, TestServer as Database};
use wharf_testkit::{Content, Process, TestOptions, Version};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

/// Longest wait for something that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a configuration, and the commands on it.
pub(crate) struct Setup {
    folder: TempDir,
    data: PathBuf,
}

impl Setup {
    pub(crate) fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("wharf.toml"), config).unwrap();
        let data = folder.path().join("data");
        Self { folder, data }
    }

    /// Over a data folder that is there.
    pub(crate) fn over(config: &str, data: PathBuf) -> Self {
        let setup = Self::new(config);
        Self { data, ..setup }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(WHARF);
        command.args(args).arg("--config").arg("wharf.toml");
        command.arg("--data").arg(&self.data);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    pub(crate) async fn check(&self) -> (i32, String) {
        told(run(self.command(&["config", "check", "--online"])).await)
    }

    /// A start that is refused.
    async fn serve(&self) -> (i32, String) {
        let command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        told(run(command).await)
    }

    /// Both commands refuse, with one and the same sentence, which has these words.
    pub(crate) async fn both_say(&self, words: &[&str]) {
        let (code, checked) = self.check().await;
        assert_eq!(code, 3, "{checked}");
        let (code, served) = self.serve().await;
        assert_eq!(code, 3, "{served}");
        let (checked, served) = (error(&checked), error(&served));
        assert_eq!(checked, served);
        for word in words {
            assert!(checked.contains(word), "{word}: {checked}");
        }
        // One sentence, and nothing of the program's own language.
        for noise in [
            "Some(",
            "Error {",
            "error: error",
            "Generic ",
            "kind:",
            "\\n",
        ] {
            assert!(!checked.contains(noise), "{noise}: {checked}");
        }
        assert!(!checked.contains(SECRET_KEY) && !checked.contains("pass word"));
    }
}

/// The process ends by itself; if not, its output is what is wrong.
async fn run(mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let id = child.id();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output());
    match tokio::time::timeout(PATIENCE, output).await {
        Ok(output) => output.unwrap().unwrap(),
        Err(_) => {
            let _ = Command::new("kill").arg(id.to_string()).status();
            panic!("{command:?} does not end");
        }
    }
}

fn told(output: Output) -> (i32, String) {
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    (output.status.code().unwrap_or(-1), text)
}

/// The last line that begins with `error: `.
fn error(text: &str) -> &str {
    let errors: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(errors.len(), 1, "{text}");
    errors[0]
}

fn bucket(endpoint: &str, bucket: &str, access_key: &str, secret: &str) -> String {
    format!(
        "[storage]\nkind = \"s3\"\n[storage.s3]\nbucket = {bucket:?}\nendpoint = {endpoint:?}\npath_style = true\n\
         access_key_id = {access_key:?}\nsecret_access_key = {secret:?}\n"
    )
}

fn database(url: &str) -> String {
    format!("[metadata]\nurl = {url:?}\n")
}

/// What somebody does to a database, which is none of the registry's operations.
fn change(verb: &str, what: &str) -> String {
    [verb, what].join(" ")
}

/// All rows of all tables of a database, in a few characters.
fn rows(database: &TestDatabase) -> String {
    let ask = [
        "SELECT",
        "md5(CAST(database_to_xml(true, true, '') AS TEXT))",
    ]
    .join(" ");
    let rows = database.server().text(database.name(), &ask);
    format!("{} {}", database.tables(), rows.unwrap_or_default())
}

/// Names, lengths and contents of all files below a folder.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            // A socket has none.
            false => found.push((path.clone(), std::fs::read(&path).unwrap_or_default())),
        }
    }
    found.sort();
    found
}

fn say(status: u16, body: &'static str) -> Saying {
    Saying {
        status,
        header: None,
        body,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_used_is_told_alike_by_start_and_check() {
    let s3 = S3::start().await;
    let endpoint = s3.endpoint();
    let good = bucket(&endpoint, BUCKET, ACCESS_KEY, SECRET_KEY);
    for (config, words) in [
        (
            bucket(&endpoint, BUCKET, "nobody", SECRET_KEY),
            [
                "`storage.s3.access_key_id`: the store does not know these credentials",
                "administrator",
            ],
        ),
        (
            bucket(&endpoint, BUCKET, ACCESS_KEY, "wrong"),
            [
                "`storage.s3.secret_access_key`: it is not the secret",
                "cut or added character",
            ],
        ),
        (
            bucket(&endpoint, "absent", ACCESS_KEY, SECRET_KEY),
            [
                "`storage.s3.bucket`: there is no bucket of this name",
                "make it",
            ],
        ),
    ] {
        Setup::new(&config).both_say(&words).await;
    }
    for (saying, words) in [
        (
            say(
                400,
                "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-central-1</Region></Error>",
            ),
            [
                "`storage.s3.region`: the bucket is in the region eu-central-1",
                "write region = \"eu-central-1\"",
            ],
        ),
        (
            Saying {
                header: Some(("x-amz-bucket-region", "eu-west-3")),
                ..say(301, "<Error><Code>PermanentRedirect</Code></Error>")
            },
            [
                "`storage.s3.region`: the bucket is in the region eu-west-3",
                "write region = \"eu-west-3\"",
            ],
        ),
        (
            say(403, "<Error><Code>AccessDenied</Code></Error>"),
            [
                "`storage.s3.bucket`: the credentials may not use it",
                "they need the rights to",
            ],
        ),
    ] {
        s3.fault(None, 0, u32::MAX, Fault::Say(saying));
        Setup::new(&good).both_say(&words).await;
        s3.heal();
    }
    s3.set_clock(-1_200);
    s3.fault(
        None,
        0,
        u32::MAX,
        Fault::Say(say(403, "<Error><Code>RequestTimeTooSkewed</Code></Error>")),
    );
    let words = [
        "this machine's clock is 20 minutes ahead of the store's",
        "set the clocks (NTP)",
    ];
    Setup::new(&good).both_say(&words).await;
    s3.heal();
    s3.set_clock(0);
    assert_eq!(s3.objects().len(), 0);
    // What somebody else keeps there.
    std::fs::write(s3.folder().join(BUCKET).join("theirs"), "theirs").unwrap();
    let words = [
        "`storage.s3.bucket`: the bucket has objects in it and no mark",
        "`prefix` of its own",
    ];
    Setup::new(&good).both_say(&words).await;
    assert_eq!(s3.objects(), [Path::new("theirs")]);
    let writes = [
        Kind::Put,
        Kind::Begin,
        Kind::Part,
        Kind::Complete,
        Kind::Delete,
    ];
    assert!(writes.iter().all(|kind| s3.count(*kind) == 0));
}

/// The store refuses the write before it looks at the condition. What is there is served all the same; a bucket that is to be filled
/// has to take something.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_may_only_be_read_is_told_by_check_and_start() {
    let s3 = Arc::new(S3::start().await);
    let options = TestOptions {
        s3: Some(s3.clone()),
        on_file: true,
        ..TestOptions::default()
    };
    let mut server = Process::start(Path::new(WHARF), options).await;
    let client = server.admin(Version::Http1);
    let content = Content::random(300_000);
    client.push_blob("team/app", &content).await;
    let config = bucket(&s3.endpoint(), BUCKET, ACCESS_KEY, SECRET_KEY);
    let mut setup = Setup::new(&config);
    setup.data = server.folder().join("data");
    let bytes = || files(&s3.folder().join(BUCKET));
    let before = bytes();
    s3.take_counts();
    let (code, checked) = setup.check().await;
    assert_eq!(code, 0, "{checked}");
    assert!(!checked.contains("does not say"), "{checked}");
    assert_eq!(s3.count(Kind::Put), 1);
    assert_eq!(bytes(), before);

    let denied = say(403, "<Error><Code>AccessDenied</Code></Error>");
    let sentence = "`storage.s3.bucket`: the credentials may read it and not write to it, so nothing can be pushed; give them the \
                    rights to put and delete objects";
    for kind in [Kind::Put, Kind::Begin, Kind::Delete] {
        s3.fault(kind, 0, u32::MAX, Fault::Say(denied));
    }
    let (code, checked) = setup.check().await;
    assert_eq!(code, 3, "{checked}");
    let checked = error(&checked);
    assert!(checked.contains(sentence), "{checked}");
    assert!(checked.ends_with("(the store: AccessDenied)"), "{checked}");
    server.terminate().await;
    server.again().await;
    let output = server.output();
    assert!(output.contains(sentence), "{output}");
    let client = server.admin(Version::Http1);
    let path = format!("/v2/team/app/blobs/{}", content.digest);
    let got = client.get(&path).send().await.expect_status(200);
    assert!(got.body == content.bytes);
    s3.heal();

    // A store that has no conditional writes, and one that takes no notice of them.
    let unknown = say(501, "<Error><Code>NotImplemented</Code></Error>");
    s3.fault(Kind::Put, 0, u32::MAX, Fault::Say(unknown));
    let (code, checked) = setup.check().await;
    assert_eq!(code, 0, "{checked}");
    assert_eq!(bytes().len(), before.len());
    let words = "Whether it may be written to, the store does not say.";
    assert!(checked.contains(words), "{checked}");
    s3.heal();
    server.terminate().await;
    let before = bytes();
    s3.ignore_conditions();
    let (code, checked) = setup.check().await;
    assert_eq!(code, 0, "{checked}");
    assert_eq!(bytes(), before, "the mark is what it was");
}

/// A store that is full when the mark is to be written.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_told_at_the_first_start() {
    let s3 = S3::start().await;
    let full = say(507, "<Error><Code>XMinioStorageFull</Code></Error>");
    s3.fault(Kind::Put, 0, u32::MAX, Fault::Say(full));
    let setup = Setup::new(&bucket(&s3.endpoint(), BUCKET, ACCESS_KEY, SECRET_KEY));
    let (code, told) = setup.serve().await;
    assert_eq!(code, 3, "{told}");
    let told = error(&told);
    assert!(
        told.contains("`storage.s3.bucket`: the store is full"),
        "{told}"
    );
    assert!(told.contains("raise the quota"), "{told}");
}

/// Found before an empty database gets a table, or one of an older version is migrated.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_in_a_database_beside_the_bucket_of_another_installation() {
    let s3 = Arc::new(S3::start().await);
    let options = TestOptions {
        s3: Some(s3.clone()),
        ..TestOptions::default()
    };
    let mut first = Process::start(Path::new(WHARF), options).await;
    first.terminate().await;
    let objects = s3.objects();
    s3.take_counts();
    let words = [
        "`storage.s3.bucket`: the bucket belongs to another installation (",
        "name another bucket",
    ];
    let config = bucket(&s3.endpoint(), BUCKET, ACCESS_KEY, SECRET_KEY);
    Setup::new(&config).both_say(&words).await;
    let empty = test_server::shared().empty("");
    let setup = Setup::new(&(database(&empty.url()) + &config));
    setup.both_say(&words).await;
    assert_eq!(empty.tables(), "");
    let of_another = test_server::shared().database();
    let before = rows(&of_another);
    let setup = Setup::new(&(database(&of_another.url()) + &config));
    setup.both_say(&words).await;
    assert_eq!(rows(&of_another), before);
    assert_eq!(s3.objects(), objects);
    assert_eq!(
        s3.take_counts().into_keys().collect::<Vec<_>>(),
        [Kind::Get]
    );
}

/// Both see an empty bucket; one gets it, the other says whose it is now.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_installations_that_start_at_once_for_one_bucket_one_serves() {
    let s3 = S3::start().await;
    s3.fault(Kind::Put, 0, 2, Fault::Delay(Duration::from_secs(4)));
    let config = bucket(&s3.endpoint(), BUCKET, ACCESS_KEY, SECRET_KEY);
    let setups = [Setup::new(&config), Setup::new(&config)];
    let start = |setup: &Setup| {
        let mut command = setup.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.env("WHARF_ADMIN_PASSWORD", "correct-horse-battery");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut children: Vec<_> = setups.iter().map(start).collect();
    let started = Instant::now();
    let lost = loop {
        let ended = |child: &mut std::process::Child| child.try_wait().unwrap().is_some();
        if let Some(at) = children.iter_mut().position(ended) {
            break at;
        }
        assert!(started.elapsed() < PATIENCE, "both serve");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let loser = children.remove(lost);
    let (code, told) = told(loser.wait_with_output().unwrap());
    assert_eq!(code, 3, "{told}");
    assert!(
        error(&told).contains("belongs to another installation ("),
        "{told}"
    );
    let socket = &setups[1 - lost].data;
    while !files(socket)
        .iter()
        .any(|(path, _)| path.ends_with("admin.sock"))
    {
        assert!(started.elapsed() < PATIENCE, "nobody serves");
        assert!(children[0].try_wait().unwrap().is_none(), "neither serves");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    children[0].kill().unwrap();
    children[0].wait().unwrap();
    let mark = s3.folder().join(BUCKET).join("wharf-installation");
    let mark = std::fs::read_to_string(mark).unwrap();
    assert!(
        told.contains(&format!("({})", mark.trim())),
        "{mark}: {told}"
    );
}

/// A server that asks for passwords, of which one is known.
fn strict(folder: &TempDir) -> &'static Database {
    let rules = folder.path().join("hba");
    let admit = "host all wharf 127.0.0.1/32 trust\nhost all limited,reader 127.0.0.1/32 trust\n\
                 host all secret 127.0.0.1/32 scram-sha-256\nhost all nobody 127.0.0.1/32 trust\n";
    std::fs::write(&rules, admit).unwrap();
    crate::postgres_reach::give(&rules);
    crate::postgres_reach::give(folder.path());
    let setting = format!("hba_file={}", rules.display());
    let server: &'static Database =
        tokio::task::block_in_place(|| Box::leak(Box::new(Database::start(&[&setting]))));
    let roles = "CREATE ROLE limited LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE barred LOGIN; \
                 CREATE ROLE secret LOGIN PASSWORD 'pass word'";
    server.sql("postgres", roles).unwrap();
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_is_told_alike_by_start_and_check() {
    let folder = tempfile::tempdir().unwrap();
    let server = strict(&folder);
    let url = |user: &str, database: &str, more: &str| {
        format!(
            "postgres://{user}@127.0.0.1:{}/{database}?{more}",
            server.port()
        )
    };
    let plain = "sslmode=disable";
    let whole = server.database();
    let empty = server.empty("");
    let foreign = server.empty("");
    foreign.make_foreign();
    let newer = server.database();
    newer.sql(&change(
        "INSERT",
        "INTO migration (number, name, checksum, oldest) VALUES (9999, 'x', '00', 9999)",
    ));
    let read_only = server.database();
    read_only.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader");
    let older = server.database();
    older.sql(&change(
        "DELETE",
        "FROM migration WHERE number = (SELECT max(number) FROM migration); GRANT ALL ON ALL TABLES IN SCHEMA public TO limited; \
         GRANT CREATE ON SCHEMA public TO limited",
    ));
    let half = server.database();
    half.sql(&change(
        "INSERT",
        "INTO setting (key, value) VALUES ('copy.unfinished', 'x')",
    ));
    let secret = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("password_file = {:?}\n", path.to_str().unwrap())
    };
    let wrong = secret("wrong", "not it\n");
    let databases = [&whole, &empty, &foreign, &newer, &read_only, &older, &half];
    let before: Vec<String> = databases.iter().map(|database| rows(database)).collect();
    for (config, words) in [
        (
            database(&url("secret", whole.name(), plain)) + &wrong,
            [
                "metadata.password_file: postgres://127.0.0.1",
                "give the password that the server has",
            ],
        ),
        (
            database(&url("secret:not-it", whole.name(), plain)),
            [
                "metadata.url: postgres://127.0.0.1",
                "give the password that the server has",
            ],
        ),
        (
            database(&url("secret", whole.name(), plain)),
            [
                "asks for the password of secret",
                "name a file that holds it in metadata.password_file",
            ],
        ),
        (
            database(&url("nobody", whole.name(), plain)),
            [
                "role \"nobody\" does not exist",
                "make this user on the server",
            ],
        ),
        (
            database(&url("barred", whole.name(), plain)),
            [
                "no pg_hba.conf entry",
                "let the server's pg_hba.conf admit this user",
            ],
        ),
        (
            database(&url("wharf", "absent", plain)),
            [
                "database \"absent\" does not exist",
                "make the database (CREATE DATABASE",
            ],
        ),
        (
            database(&url("wharf", whole.name(), "sslmode=require")),
            ["server does not support TLS", "sslmode=disable"],
        ),
        (
            database(&url("limited", empty.name(), plain)),
            [
                "metadata.url: the user limited may not make tables in the schema public",
                "GRANT CREATE ON SCHEMA",
            ],
        ),
        (
            database(&url("reader", read_only.name(), plain)),
            [
                "metadata.url: the user lacks rights on",
                "GRANT SELECT, INSERT, UPDATE, DELETE",
            ],
        ),
        (
            database(&url("limited", older.name(), plain)),
            [
                "has to be migrated, and the user limited does not own",
                "start once as the owner",
            ],
        ),
        (
            database(&url("wharf", newer.name(), plain)),
            [
                "has schema 9999 and may only be used by versions that know schema 9999",
                "Start the newer version",
            ],
        ),
        (
            database(&url("wharf", foreign.name(), plain)),
            [
                "the database holds tables of something else, such as somebody_elses",
                "give Wharf a database of its own",
            ],
        ),
        (
            database(&url("wharf", half.name(), plain)),
            ["a copy that broke off", "run `wharf metadata copy` again"],
        ),
    ] {
        Setup::new(&config).both_say(&words).await;
    }
    let after: Vec<String> = databases.iter().map(|database| rows(database)).collect();
    assert_eq!(after, before);
}

/// The file that should hold a secret is what is wrong, not the log-in.
#[tokio::test]
async fn a_secret_that_cannot_be_read_is_told_with_key_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let (absent, empty) = (folder.path().join("absent"), folder.path().join("empty"));
    std::fs::write(&empty, "\n").unwrap();
    let s3 = "[storage]\nkind = \"s3\"\n[storage.s3]\nbucket = \"b\"\naccess_key_id = \"a\"\n";
    let metadata = "[metadata]\nurl = \"postgres://wharf@127.0.0.1:9/wharf\"\n";
    for (config, key, file, why) in [
        (metadata, "metadata.password_file", &absent, "No such file"),
        (
            metadata,
            "metadata.password_file",
            &folder.path().to_owned(),
            "directory",
        ),
        (
            s3,
            "storage.s3.secret_access_key_file",
            &absent,
            "No such file",
        ),
        (s3, "storage.s3.secret_access_key_file", &empty, "is empty"),
    ] {
        let (_, name) = key.rsplit_once('.').unwrap();
        let setup = Setup::new(&format!("{config}{name} = {:?}\n", file.to_str().unwrap()));
        let (check, serve) = (setup.check().await, setup.serve().await);
        assert_eq!(check.0, 2, "{}", check.1);
        assert_eq!(check, serve);
        for word in [key, file.to_str().unwrap(), why] {
            assert!(check.1.contains(word), "{word}: {}", check.1);
        }
    }
}

/// What is asked is read: no table gets a row, no bucket an object, and the sentences say what was found.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_good_stores_says_what_was_found_and_writes_nothing() {
    let s3 = Arc::new(S3::start().await);
    let config = bucket(&s3.endpoint(), BUCKET, ACCESS_KEY, SECRET_KEY);
    let empty = test_server::shared().empty("");
    let (code, told) = Setup::new(&(database(&empty.url()) + &config))
        .check()
        .await;
    assert_eq!(code, 0, "{told}");
    for words in [
        "can be used (PostgreSQL ",
        "as the user wharf, without TLS); it is empty, and the first start makes its tables.",
        "The bucket can be used: it is empty",
        "nothing was written",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!((empty.tables(), s3.objects().len()), (String::new(), 0));
    let counts = s3.take_counts();
    assert_eq!(
        counts
            .keys()
            .filter(|kind| !matches!(kind, Kind::Get | Kind::List))
            .count(),
        0
    );

    // In use, in both engines.
    let on_server = Arc::new(test_server::shared().database());
    for database in [None, Some(on_server)] {
        let s3 = Arc::new(S3::start().await);
        let key = match &database {
            Some(_) => format!("[access]\nsecret_key = \"{}\"\n", SecretKeys::make()),
            None => String::new(),
        };
        let options = TestOptions {
            on_file: database.is_none(),
            database: database.clone(),
            s3: Some(s3.clone()),
            config: key.clone(),
            ..TestOptions::default()
        };
        let mut server = Process::start(Path::new(WHARF), options).await;
        let client = server.admin(Version::Http1);
        client
            .push_blob("team/app", &Content::random(300_000))
            .await;
        let url = database
            .as_ref()
            .map(|database| self::database(&database.url()) + &key);
        let url = url.unwrap_or_default();
        let config = bucket(&s3.endpoint(), BUCKET, ACCESS_KEY, SECRET_KEY) + &url;
        let mut setup = Setup::new(&config);
        setup.data = server.folder().join("data");
        for running in [true, false] {
            if !running {
                server.terminate().await;
            }
            let state = || {
                let mut state = files(&server.folder().join("data"));
                // The index of the log is shared memory, in which each reader leaves its mark.
                state.retain(|(path, _)| !path.ends_with("wharf.db-shm"));
                (database.as_ref().map(|database| rows(database)), state)
            };
            let before = (!running).then(&state);
            let (code, told) = setup.check().await;
            assert_eq!(code, 0, "{told}");
            assert!(told.contains("can be used"), "{told}");
            assert!(
                told.contains("which this is; another one is refused"),
                "{told}"
            );
            assert!(
                told.contains(&format!("its schema is {}", wharf_meta::SCHEMA)),
                "{told}"
            );
            assert_eq!((!running).then(&state), before);
        }
        // The same bucket is another's for a registry that begins anew.
        let words = [
            "`storage.s3.bucket`: the bucket belongs to another installation (",
            "name another bucket",
        ];
        let config = bucket(&s3.endpoint(), BUCKET, ACCESS_KEY, SECRET_KEY);
        Setup::new(&config).both_say(&words).await;
        // And an empty one is none for a registry with blobs.
        let other = S3::start().await;
        let mut setup =
            Setup::new(&(bucket(&other.endpoint(), BUCKET, ACCESS_KEY, SECRET_KEY) + &url));
        setup.data = server.folder().join("data");
        let words = [
            "`storage.s3.bucket`: the bucket is empty, and this registry has blobs elsewhere",
            "wharf storage copy",
        ];
        setup.both_say(&words).await;
        assert_eq!(other.objects().len(), 0);
    }
}

/// More than a minute apart is told, by both; the database's clock is its own function here.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_are_a_warning_at_start_and_check() {
    let s3 = Arc::new(S3::start().await);
    s3.set_clock(600);
    let database = Arc::new(test_server::shared().database());
    database.sql(
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS \
         $$ SELECT pg_catalog.clock_timestamp() - INTERVAL '7 minutes' $$",
    );
    let name = database.name();
    database.sql(&format!(
        "ALTER DATABASE {name} SET search_path TO public, pg_catalog"
    ));
    let config =
        bucket(&s3.endpoint(), BUCKET, ACCESS_KEY, SECRET_KEY) + &self::database(&database.url());
    let (code, told) = Setup::new(&config).check().await;
    assert_eq!(code, 0, "{told}");
    let sentences = [
        "metadata.url: this machine's clock is 7 minutes ahead of the database's",
        "`storage.s3.endpoint`: this machine's clock is 10 minutes behind the object store's",
    ];
    for sentence in sentences {
        assert!(
            told.contains(sentence) && told.contains("set the clocks (NTP)"),
            "{told}"
        );
    }
    let options = TestOptions {
        database: Some(database),
        s3: Some(s3),
        ..TestOptions::default()
    };
    let server = Process::start(Path::new(WHARF), options).await;
    for sentence in sentences {
        assert!(server.output().contains(sentence), "{}", server.output());
    }
}

/// Files that are no database of this program, or a later one's.
#[tokio::test]
async fn a_database_file_that_cannot_be_used_is_told_alike_by_start_and_check() {
    let setup = Setup::new("");
    let file = setup.data.join("wharf.db");
    std::fs::create_dir(&setup.data).unwrap();
    let newer = || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wharf.db");
        let options = wharf_meta::SqliteOptions::new(&path);
        wharf_meta::Meta::open(options).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[60..64].copy_from_slice(&((40_000u32 << 16) | 40_000).to_be_bytes());
        bytes
    };
    for (content, words) in [
        (
            b"hello".repeat(100),
            [
                "is not Wharf's: it is not a SQLite database",
                "choose another data folder",
            ],
        ),
        (
            newer(),
            [
                "has schema 40000 and may only be used by versions that know",
                "Start the newer version",
            ],
        ),
        (Vec::new(), ["wharf.db is empty", "restore the last backup"]),
    ] {
        std::fs::write(&file, &content).unwrap();
        let before = files(&setup.data);
        setup.both_say(&words).await;
        assert_eq!(files(&setup.data), before);
    }
    // No folder yet, and a place where none can be.
    let fresh = Setup::new("");
    let (code, told) = fresh.check().await;
    assert!(code == 0 && told.contains("There is no database"), "{told}");
    assert!(!fresh.data.exists());
    std::fs::write(&fresh.data, "a file").unwrap();
    let words = ["the data folder", "choose another one with --data"];
    fresh.both_say(&words).await;
}
