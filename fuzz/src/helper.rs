//! What clients send to `docker-credential-wharf`, and docker's configuration, which it changes.

use serde_json::Value;
use wharf::credential_helper::{
    Changed, Credentials, Server, forget_helper, name_helper, read_server, read_store,
};

const HOST: &str = "reg.example:5000";

/// The input is taken for a server's name, for credentials, and for a configuration.
pub(crate) fn credential_helper(input: &[u8]) {
    if let Ok((named, server)) = read_server(input) {
        assert!(!named.is_empty() && server.key().starts_with(server.host()));
        let again: Server = server.key().parse().expect("its own name is one");
        assert_eq!(again, server);
        assert!(!server.host().contains(['/', '@']) && !server.host().is_empty());
    }
    if let Ok((credentials, _)) = read_store(input) {
        let text = credentials.render();
        let (again, _) = read_store(text.as_bytes()).expect("what was read can be written");
        assert!(again == credentials);
        let shown: Credentials = serde_json::from_str(&text).expect("JSON");
        assert!(!shown.username.is_empty() && !shown.username.contains(':'));
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    // What no reader of JSON takes whole, as a number beyond all bounds, stays as it is; there is nothing to compare then.
    let before: Value = match text.trim().is_empty() {
        true => Value::Object(serde_json::Map::new()),
        false => match serde_json::from_str(text) {
            Ok(before) => before,
            Err(_) => return,
        },
    };
    let Ok(Changed::Text { text: named, .. }) = name_helper(text, HOST) else {
        return;
    };
    let after: Value = serde_json::from_str(&named).expect("JSON");
    assert_eq!(after["credHelpers"][HOST], "wharf");
    assert_eq!(name_helper(&named, HOST), Ok(Changed::Nothing));
    let server = HOST.parse().expect("a server");
    let Ok(Changed::Text { text: back, .. }) = forget_helper(&named, &server) else {
        panic!("what was named can be taken away: {named}");
    };
    let back: Value = serde_json::from_str(&back).expect("JSON");
    for (name, value) in before.as_object().expect("an object") {
        assert!(
            name == "credHelpers" || back[name] == *value,
            "{name} has changed"
        );
    }
}
