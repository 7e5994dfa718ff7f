//! Targets of people's sign-in: what a directory says, names and filters of it, codes and paths that somebody types.

use wharf_core::directory::ber::{Reader, message_length};
use wharf_core::directory::message::Message;
use wharf_core::directory::{Dn, Filter, dn, filter};
use wharf_core::session::is_local_path;
use wharf_core::terminal::{LONGEST_DEVICE, read_code, read_device};

/// Most bytes of a message, as small as a test can make sense of.
const LARGEST: usize = 64 << 10;

/// What comes from a directory's server.
pub(crate) fn directory(input: &[u8]) {
    if let Ok(Some(whole)) = message_length(input, LARGEST) {
        assert!((2..=LARGEST).contains(&whole));
        if let Some(message) = input.get(..whole) {
            let mut side_by_side = Reader::new(message);
            assert!(side_by_side.element().is_ok() && side_by_side.is_empty());
            let _ = Message::read(message);
        }
    }
    let _ = Message::read(input);
}

/// A name of the directory, which is compared with others.
pub(crate) fn directory_name(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(read) = Dn::parse(text) {
        let normal = read.normal();
        if let Ok(again) = Dn::parse(&normal) {
            assert_eq!(again.normal(), normal, "one name, two forms");
            assert!(again.is_within(&read) && read.is_within(&again));
        }
    }
    // Whatever somebody is called: it stays a value.
    if let Ok(read) = Dn::parse(&format!("uid={},ou=people", dn::escape(text))) {
        let people = Dn::parse("ou=people").expect("a name");
        assert!(read.is_within(&people), "a value that leaves its place");
        assert_eq!(read.own("uid"), Some(text));
    }
}

/// A filter of the configuration, and a name put into one.
pub(crate) fn directory_filter(input: &[u8]) {
    let bytes = |filter: &Filter| {
        let mut out = Vec::new();
        filter.encode(&mut out);
        let mut read = Reader::new(&out);
        assert!(read.element().is_ok() && read.is_empty(), "not one element");
        out
    };
    if let Some(filter) = std::str::from_utf8(input)
        .ok()
        .and_then(|text| Filter::parse(text).ok())
    {
        bytes(&filter);
    }
    let meant = Filter::equal("uid", input).and(Filter::equal("objectClass", "person"));
    let text = format!("(&(uid={})(objectClass=person))", filter::escape(input));
    if let Ok(read) = Filter::parse(&text) {
        assert_eq!(bytes(&read), bytes(&meant), "a name that is a filter");
    } else {
        assert!(input.len() > 1_000, "a name that breaks the filter");
    }
}

/// What somebody types, or follows.
pub(crate) fn typed(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(code) = read_code(text) {
        assert_eq!(read_code(&code), Some(code.clone()), "one code, two forms");
        assert!(code.bytes().all(|byte| byte.is_ascii_uppercase()));
    }
    if let Ok(device) = read_device(text) {
        assert!(device.len() <= LONGEST_DEVICE && !device.chars().any(char::is_control));
    }
    assert!(!is_local_path(&format!("/{text}")) || !text.starts_with('/'));
    if is_local_path(text) {
        assert!(text.starts_with('/') && !text.starts_with("//") && !text.contains('\\'));
        assert!(
            text.bytes().all(|byte| byte.is_ascii_graphic()),
            "a browser cleans it first"
        );
    }
}
