//! What can be wrong in `[metadata]` and `[storage]` and is seen without asking a store.

use super::tests::Setup;

/// Found without asking anybody, with the key, and without what may be a password.
#[test]
fn a_database_that_cannot_be_meant_is_refused() {
    for (metadata, words) in [
        ("url = 'mysql://wharf@h/d'", "metadata.url: it is no URL"),
        ("url = 'postgres://h/d'", "metadata.url: it names no user"),
        (
            "url = 'postgres://wharf:hunter2@h/d?target_session_attrs=best'",
            "`target_session_attrs`",
        ),
        (
            "url = 'postgres://wharf:hunter2@h/d?colour=red'",
            "`colour`",
        ),
        (
            "url = 'postgres://wharf:hunter2@h/d?sslmode=maybe'",
            "sslmode=maybe is not known",
        ),
        ("lock_timeout = '0s'", "`metadata.lock_timeout` is 0"),
        (
            "statement_timeout = '0s'",
            "`metadata.statement_timeout` is 0",
        ),
    ] {
        let told = Setup::file(&format!("[metadata]\n{metadata}\n")).errors();
        assert!(told.contains(words), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    let good = "[metadata]\nurl = 'postgres://wharf@a:1,b:2/d?target_session_attrs=read-write'\n";
    assert!(Setup::file(good).load().is_ok());
}

/// What a URL cannot be is told where it is written, and not where it is used.
#[test]
fn addresses_of_stores_have_a_host_and_a_port_that_there_can_be() {
    let told = |endpoint: &str| {
        let text = format!(
            "[storage]\nkind = 's3'\n[storage.s3]\nbucket = 'b'\nendpoint = '{endpoint}'\n"
        );
        Setup::file(&text).load().map(drop).is_ok()
    };
    for good in [
        "https://s3.example",
        "http://10.0.0.1:9000/",
        "http://[::1]:9000",
        "https://store_1.local./path",
    ] {
        assert!(told(good), "{good}");
    }
    for bad in [
        "http://h:99999",
        "http://h:",
        "http://10.0.0.300",
        "http://a.b.1",
        "http://[::x]",
        "http://a%20b",
        "ftp://h",
    ] {
        assert!(!told(bad), "{bad}");
    }
}
