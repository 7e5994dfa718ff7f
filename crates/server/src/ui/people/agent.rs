//! What a browser says it is, for people. It may say anything: nothing hangs on it.

/// The first that a browser names, since most name those that they resemble, too.
const BROWSERS: [(&str, &str); 6] = [
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("HeadlessChrome/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Version/", "Safari"),
];
const SYSTEMS: [(&str, &str); 6] = [
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
];

/// Like "Firefox 140 on Linux", if it is known, and otherwise as it is.
pub(super) fn shown(agent: &str) -> String {
    let known = BROWSERS.iter().find_map(|(mark, name)| {
        let (_, rest) = agent.split_once(mark)?;
        let version: String = rest.chars().take_while(char::is_ascii_digit).collect();
        (!version.is_empty()).then(|| format!("{name} {version}"))
    });
    let system = SYSTEMS.iter().find(|(mark, _)| agent.contains(mark));
    match (known, system) {
        (Some(browser), Some((_, system))) => format!("{browser} on {system}"),
        (Some(browser), None) => browser,
        (None, _) => agent.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn browsers_are_called_as_people_call_them() {
        let like = "AppleWebKit/537.36 (KHTML, like Gecko)";
        for (agent, wanted) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".to_owned(),
                "Firefox 140 on Linux",
            ),
            (
                format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {like} Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0"),
                "Edge 156 on Windows",
            ),
            (
                format!("Mozilla/5.0 (Linux; Android 10; K) {like} Chrome/156.0.0.0 Mobile Safari/537.36"),
                "Chrome 156 on Android",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15".to_owned(),
                "Safari 18 on macOS",
            ),
            ("Browser/1".to_owned(), "Browser/1"),
            ("Firefox/".to_owned(), "Firefox/"),
            (String::new(), ""),
        ] {
            assert_eq!(shown(&agent), wanted);
        }
    }

    proptest! {
        #[test]
        fn whatever_a_browser_says_is_shown_no_longer_than_it_is_said(agent in "\\PC{0,80}") {
            prop_assert!(shown(&agent).len() <= agent.len() + 16);
        }
    }
}
