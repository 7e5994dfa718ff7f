use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn server(text: &str) -> Server {
    text.parse().unwrap()
}

#[test]
fn spellings_of_one_registry_are_the_same() {
    for spelling in [
        "reg.example",
        "https://reg.example",
        "HTTPS://Reg.Example/",
        "reg.example:443",
        "https://reg.example:443//",
        "http://reg.example:80",
        "http://reg.example",
        "reg.example?x=y",
    ] {
        assert_eq!(server(spelling).key(), "reg.example", "{spelling}");
    }
    assert_eq!(server("reg.example:5000/").key(), "reg.example:5000");
    assert_eq!(server("[::1]:5000").key(), "[::1]:5000");
    assert_eq!(server("https://[::1]").key(), "[::1]");
    // Docker Hub's has a path, and one more for each of two tokens.
    let hub = server("https://index.docker.io/v1/");
    assert_eq!(
        (hub.key(), hub.host()),
        ("index.docker.io/v1", "index.docker.io")
    );
    assert_ne!(hub, server("https://index.docker.io/v1/access-token"));
    for wrong in [
        "",
        "/",
        "a b",
        "ftp://x",
        "u:secret@x",
        "x:99999",
        "x:+1",
        "x:",
        "[::1",
        "[x]",
        "x\ny",
        "ü.example",
    ] {
        let refused = wrong.parse::<Server>().unwrap_err().to_string();
        assert!(!refused.contains("secret"), "{refused}");
    }
}

#[test]
fn what_clients_send_is_read_as_they_send_it() {
    let read = |text: &str| {
        read_server(text.as_bytes()).map(|(text, server)| (text, server.key().to_owned()))
    };
    assert_eq!(
        read("https://reg.example/\n"),
        Ok(("https://reg.example/".into(), "reg.example".into()))
    );
    assert_eq!(read("  \r\n"), Err(Refused::NoServer));
    assert_eq!(read(&"x".repeat(LARGEST_REQUEST + 1)), Err(Refused::Large));
    assert_eq!(read_server(&[0xff]).err(), Some(Refused::Text));

    let stored = br#"{"ServerURL":"https://reg.example","Username":"alice","Secret":"p \"w\""}"#;
    let (credentials, at) = read_store(stored).ok().unwrap();
    assert_eq!(at.key(), "reg.example");
    assert_eq!(
        credentials.render().as_bytes(),
        [&stored[..], b"\n"].concat()
    );
}

#[test]
fn what_cannot_be_kept_is_refused_without_quoting_it() {
    let refused = |value: Value| read_store(value.to_string().as_bytes()).err().unwrap();
    assert_eq!(
        refused(json!({"Username": "a", "Secret": "s"})),
        Refused::NoServer
    );
    assert_eq!(
        refused(json!({"ServerURL": "x", "Secret": "s"})),
        Refused::NoUser
    );
    assert_eq!(
        refused(json!({"ServerURL": "x", "Username": "a", "Secret": "s\r\n"})),
        Refused::Secret
    );
    for wrong in ["a:b", "a\nb", &"a".repeat(LONGEST_USER + 1)] {
        let wrong = refused(json!({"ServerURL": "x", "Username": wrong, "Secret": "hidden"}));
        assert!(matches!(wrong, Refused::User(_)));
    }
    for input in [
        r#"{"ServerURL":"x","Username":"a","Secret":"hidden""#,
        r#"{"ServerURL":"x","Username":"a","Secret":["hidden"]}"#,
        "hidden",
        "",
    ] {
        let told = read_store(input.as_bytes()).err().unwrap().to_string();
        assert!(
            told.contains("standard input") && !told.contains("hidden"),
            "{told}"
        );
    }
}

fn named(text: &str, host: &str) -> String {
    match name_helper(text, host).unwrap() {
        Changed::Text { text, .. } => text,
        Changed::Nothing => panic!("nothing to change in {text}"),
    }
}

#[test]
fn everything_else_in_dockers_configuration_stays() {
    let before = "{\n\t\"zebra\": 1.0e5,\n\t\"auths\": {\n\t\t\"b\": {},\n\t\t\"a\": {}\n\t},\n\t\"credHelpers\": {\n\t\t\"other\": \"ecr-login\"\n\t},\n\t\"psFormat\": \"é\\u0041\"\n}";
    let after = named(before, "reg.example:5000");
    assert_eq!(
        after,
        before.replace(
            "ecr-login\"",
            "ecr-login\",\n\t\t\"reg.example:5000\": \"wharf\""
        ) + "\n"
    );
    assert_eq!(
        name_helper(&after, "reg.example:5000"),
        Ok(Changed::Nothing)
    );
    let back = forget_helper(&after, &server("reg.example:5000"));
    let text = before.to_owned() + "\n";
    assert_eq!(
        back,
        Ok(Changed::Text {
            text,
            before: Some("wharf".into())
        })
    );
    assert_eq!(
        forget_helper(before, &server("other")),
        Ok(Changed::Nothing),
        "another helper's"
    );
    let twice = name_helper(r#"{"credHelpers":{"x":"wharf","y":"z","x":"last"}}"#, "x");
    let wanted = "{\n\t\"credHelpers\": {\n\t\t\"x\": \"wharf\",\n\t\t\"y\": \"z\"\n\t}\n}\n";
    assert_eq!(
        twice,
        Ok(Changed::Text {
            text: wanted.into(),
            before: Some("last".into())
        })
    );
    let taken = name_helper(before, "other").unwrap();
    assert!(matches!(taken, Changed::Text { before: Some(was), .. } if was == "ecr-login"));
}

#[test]
fn an_empty_configuration_gets_and_loses_the_field() {
    for empty in ["", " \n", "{}", "{\"credHelpers\":null}"] {
        let text = named(empty, "reg.example");
        assert_eq!(
            text,
            "{\n\t\"credHelpers\": {\n\t\t\"reg.example\": \"wharf\"\n\t}\n}\n"
        );
        // Named with its port, too.
        let text = named(&text, "Reg.example:443");
        let back = forget_helper(&text, &server("reg.example")).unwrap();
        assert_eq!(
            back,
            Changed::Text {
                text: "{}\n".into(),
                before: Some("wharf".into())
            }
        );
    }
}

#[test]
fn a_damaged_configuration_is_left_alone() {
    let refused = |text: &str| name_helper(text, "x").unwrap_err();
    assert_eq!(refused("{\n\"auths\": {"), ConfigError::Form(2));
    assert_eq!(refused("[]"), ConfigError::Form(1));
    assert_eq!(refused("{} {}"), ConfigError::Form(1));
    assert_eq!(refused(r#"{"credHelpers": []}"#), ConfigError::Helpers);
    assert_eq!(
        refused(r#"{"credHelpers": {"a": 1}}"#),
        ConfigError::Helpers
    );
    assert_eq!(
        refused(r#"{"credHelpers": {}, "credHelpers": {}}"#),
        ConfigError::Twice
    );
    assert_eq!(refused(&" ".repeat(LARGEST_CONFIG + 1)), ConfigError::Large);
}

proptest! {
    #[test]
    fn any_request_is_answered_or_refused(input in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_server(&input);
        let _ = read_store(&input);
    }

    #[test]
    fn a_key_names_the_same_registry_again(text in "(https?://)?[A-Za-z0-9.-]{1,12}(:[0-9]{1,4})?(/[a-z/]{0,8})?") {
        let Ok(read) = text.parse::<Server>() else { return Ok(()); };
        prop_assert_eq!(read.key().parse::<Server>().map(|again| again.key().to_owned()), Ok(read.key().to_owned()));
        prop_assert!(read.key().starts_with(read.host()));
    }

    #[test]
    fn any_credentials_come_back_as_they_were_stored(user in "[^:\\p{Cc}]{1,20}", secret in "\\P{Cc}{0,40}") {
        let sent = Credentials { server_url: "reg.example".into(), username: user, secret };
        let (read, _) = read_store(sent.render().as_bytes()).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert!(read == sent);
    }

    #[test]
    fn naming_and_forgetting_leaves_the_other_fields(keys in proptest::collection::btree_map("[a-z]{1,6}", any::<f64>().prop_filter("a number", |n| n.is_finite()), 0..6)) {
        let text = json!(keys).to_string();
        let Changed::Text { text: after, .. } = name_helper(&text, "reg.example").unwrap() else { panic!() };
        let Changed::Text { text: back, .. } = forget_helper(&after, &server("reg.example")).unwrap() else { panic!() };
        prop_assert_eq!(serde_json::from_str::<Value>(&back).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
    }
}
