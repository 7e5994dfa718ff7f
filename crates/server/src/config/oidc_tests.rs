//! What can be wrong in an `[[auth.oidc]]`: each error names the key and the way out.

use super::tests::Setup;
use super::validate::check_files;

const SERVER: &str = "[server]\nexternal_url = 'https://reg.example'\n";
const GOOD: &str = "name = 'corp'\nissuer = 'https://login.example'\nclient_id = 'wharf'\n";

/// What is said of a table with this in the place of `from` of a good one, or more of it.
fn errors(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    let table = match from {
        "" => format!("{GOOD}{to}\n"),
        from => GOOD.replacen(from, to, 1),
    };
    Setup::file(&format!("{SERVER}[[auth.oidc]]\n{table}")).errors()
}

#[test]
fn a_provider_that_is_well_described_is_taken() {
    let all = "client_secret = 's'\nscopes = ['openid', 'https://www.example/auth/groups.readonly']\nprompt = 'consent'\n\
               username_claim = 'name'\ngroups_claim = 'realm_access.roles'\nadmin_group = 'a'\ngroup_filter = ['dev-*']\n\
               onboarding = 'auto'\nlogout = 'provider'\n";
    let here = "[[auth.oidc]]\nname = 'here'\nissuer = 'http://127.0.0.1:8080/realms/a'\nclient_id = 'wharf'\n";
    let setup = Setup::file(&format!("{SERVER}[[auth.oidc]]\n{GOOD}{all}{here}"));
    let config = setup.load().unwrap().config;
    let settings = config.oidc_settings();
    assert_eq!(
        (settings.len(), settings[0].leaves, settings[1].leaves),
        (2, true, false)
    );
    assert_eq!(settings[0].prompt.as_deref(), Some("consent"));
    assert!(settings[0].onboards && !settings[1].onboards);
}

/// What one replica has and another has not, it says at its start.
#[test]
fn replicas_compare_their_providers_and_the_service_of_tokens() {
    let shared = |text: &str| {
        let config = Setup::file(&format!("{SERVER}{text}"))
            .load()
            .unwrap()
            .config;
        config.shared_settings()
    };
    let here =
        "[[auth.oidc]]\nname = 'a'\nissuer = 'http://127.0.0.1:8080'\nclient_id = 'secretly'\n";
    let one = shared(&format!("[[auth.oidc]]\n{GOOD}{here}"));
    let other = shared(&format!("{here}[[auth.oidc]]\n{GOOD}"));
    assert_eq!(one, other, "the order says nothing");
    assert_eq!(
        one["auth.oidc"],
        "a at http://127.0.0.1:8080, corp at https://login.example"
    );
    assert_eq!(shared("")["auth.oidc"], "unset");
    assert_eq!(shared("[auth]\nservice = 'x'\n")["auth.service"], "x");
}

#[test]
fn each_mistake_names_the_key_and_the_way_out() {
    let mut wrong = Vec::new();
    for (from, to, key, cure) in [
        (
            "'corp'",
            "'Corp 1'",
            "`name` = \"Corp 1\" is no name",
            "take a-z, 0-9",
        ),
        (
            "'corp'",
            "''",
            "`name` = \"\" is no name",
            "such as \"corp\"",
        ),
        ("name = 'corp'\n", "", "`name`", "name"),
        (
            "issuer = 'https://login.example'\n",
            "",
            "`issuer`",
            "issuer",
        ),
        ("client_id = 'wharf'\n", "", "`client_id`", "client_id"),
        (
            "'wharf'",
            "''",
            "`client_id` is empty",
            "the provider says what it is",
        ),
        (
            "https://login",
            "http://login",
            "`issuer` = \"http://login.example\" is not https",
            "only a provider on this machine goes without",
        ),
        (
            "'https://login.example'",
            "'login.example'",
            "issuer",
            "https://",
        ),
        (
            "'https://login.example'",
            "'ftp://login.example'",
            "issuer",
            "https://",
        ),
        (
            "",
            "client_secret = 'a'\nclient_secret_file = '/nonexistent'",
            "`client_secret_file` in",
            "keep one of them",
        ),
        (
            "",
            "client_secret_file = '/nonexistent/s'",
            "/nonexistent/s",
            "No such file",
        ),
        (
            "",
            "scopes = ['openid profile']",
            "`scopes` holds \"openid profile\"",
            "write each for itself",
        ),
        (
            "",
            "scopes = ['']",
            "`scopes` holds \"\"",
            "write each for itself",
        ),
        ("", "prompt = 'none'", "prompt", "select_account"),
        ("", "logout = 'everywhere'", "logout", "provider"),
        ("", "onboarding = 'all'", "onboarding", "invited"),
        (
            "",
            "groups_claim = ''",
            "`groups_claim` is empty",
            "leave the key out",
        ),
        (
            "",
            "username_claim = ''",
            "`username_claim` is empty",
            "leave the key out",
        ),
        (
            "",
            "group_filter = ['a', '']",
            "`group_filter` holds \"\"",
            "registry-*",
        ),
        (
            "",
            "redirect_uri = 'https://reg.example/back'",
            "redirect_uri",
            "wharf.toml:7",
        ),
        (
            "",
            "admin_group = ''",
            "`admin_group` is empty",
            "leave the key out",
        ),
        ("", "client_sekret = 'a'", "client_sekret", "client_secret"),
        ("", "title = 7", "title", "text"),
    ] {
        let told = errors(from, to);
        if !(told.contains(key) && told.contains(cure) && told.contains("wharf.toml:")) {
            wrong.push(format!("{to}: {told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let told = Setup::file(&format!("[[auth.oidc]]\n{GOOD}")).errors();
    assert!(
        told.contains("`server.external_url` is missing")
            && told.contains("set server.external_url = "),
        "{told}"
    );
    let told = Setup::file(&format!(
        "{SERVER}[[auth.oidc]]\n{GOOD}[[auth.oidc]]\n{GOOD}"
    ))
    .errors();
    assert!(
        told.contains("`name` = \"corp\" is another provider's")
            && told.contains("give each its own"),
        "{told}"
    );
    for (key, cure) in [
        ("session_lifetime = '0s'", "some minutes"),
        ("session_check = '9s'", "some minutes"),
    ] {
        let told = Setup::file(&format!("{SERVER}[auth]\n{key}\n[[auth.oidc]]\n{GOOD}")).errors();
        let (name, _) = key.split_once(' ').unwrap();
        assert!(
            told.contains(&format!("`auth.{name}` is too short")) && told.contains(cure),
            "{told}"
        );
    }
    // A secret is in no error, whatever else is wrong.
    let told = errors("", "client_secret = 'hunter2'\nlogout = 'x'");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn files_of_a_provider_are_looked_at() {
    let setup = Setup::file(&format!(
        "{SERVER}[[auth.oidc]]\n{GOOD}ca_file = '/nonexistent/ca'\n"
    ));
    let loaded = setup.load().unwrap();
    let told: Vec<_> = check_files(&loaded.config, &loaded.sources);
    let told: Vec<_> = told.iter().map(|one| one.what.as_str()).collect();
    assert_eq!(
        told,
        [
            "`auth.oidc[0].ca_file`: cannot read /nonexistent/ca: No such file or directory (os error 2)"
        ]
    );
    // A secret from a file is its text without the line's end.
    let secret = setup.folder.path().join("secret");
    std::fs::write(&secret, "hush\n").unwrap();
    let path = secret.to_str().unwrap();
    let setup = Setup::file(&format!(
        "{SERVER}[[auth.oidc]]\n{GOOD}client_secret_file = '{path}'\n"
    ));
    let config = setup.load().unwrap().config;
    let settings = config.oidc_settings();
    assert_eq!(settings[0].client_secret.as_ref().unwrap().reveal(), "hush");
}
