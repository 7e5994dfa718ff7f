//! Targets of what guards the registry: the htpasswd file and tokens.

use std::sync::LazyLock;

use tokio::runtime::Runtime;
use wharf_core::access::{Access, AccessOptions, Htpasswd, Proof, SecretKeys, TokenRequest};
use wharf_meta::{Meta, SqliteOptions};
use wharf_oci::{Authorization, Scope};

/// Stands for a password in clear that slipped into the file.
const SECRET: &str = "hunter2hunter2";

/// A moment, in ms since 1970.
const NOW: i64 = 1_800_000_000_000;

pub(crate) fn htpasswd(input: &[u8]) {
    let read = Htpasswd::parse(input);
    assert!(read.problems().len() <= read.broken());
    assert!(read.len() + read.broken() <= input.split(|byte| *byte == b'\n').count());
    for problem in read.problems() {
        assert!(
            !problem.to_string().contains(SECRET),
            "a report that shows a password: {problem}"
        );
    }
    // Names may be shown.
    let is_name = |line: &[u8]| {
        line.split(|byte| *byte == b':')
            .next()
            .is_some_and(|name| String::from_utf8_lossy(name).contains(SECRET))
    };
    if !input.split(|byte| *byte == b'\n').any(is_name) {
        assert!(
            !format!("{read:?}").contains(SECRET),
            "debug output that shows a password"
        );
    }
}

/// A registry's access with one good token.
struct Door {
    runtime: Runtime,
    access: Access,
    token: String,
    _folder: tempfile::TempDir,
}

static DOOR: LazyLock<Door> = LazyLock::new(|| {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let (meta, _) =
        Meta::open(SqliteOptions::new(folder.path().join("meta.db"))).expect("a new database");
    let scopes = vec![Scope::repository("team/app", &["pull", "push"])];
    let (access, token) = runtime.block_on(async {
        let access = Access::open(AccessOptions::default(), SecretKeys::of_tests(), meta, NOW)
            .await
            .expect("access opens");
        let request = TokenRequest {
            proof: Proof::Nobody,
            scopes,
            offline: false,
        };
        let grant = access.grant_token(request, NOW).await.expect("a token");
        (access, grant.token.reveal().to_owned())
    });
    Door {
        runtime,
        access,
        token,
        _folder: folder,
    }
});

/// `{head}`, `{claims}` and `{signature}` in the input stand for the parts of a good token, whose key is new each time.
pub(crate) fn token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let door = &*DOOR;
    let mut text = text.to_owned();
    for (name, part) in ["{head}", "{claims}", "{signature}"]
        .iter()
        .zip(door.token.split('.'))
    {
        text = text.replace(name, part);
    }
    let authorization = Authorization::Bearer(text.clone());
    let caller = door
        .runtime
        .block_on(door.access.authenticate(Some(&authorization), NOW));
    assert_eq!(
        caller.is_ok(),
        text == door.token,
        "only the token that was issued is good: {text}"
    );
}
