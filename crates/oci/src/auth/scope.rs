//! Scopes, what tokens are asked for (specification §4.2).

use std::fmt;

/// What a token is asked for: actions on one resource (§4.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// `repository`, `registry`, or something that we grant nothing on.
    pub kind: String,
    /// Old clients' class in brackets, such as `plugin`.
    pub class: Option<String>,
    /// The resource; may hold colons, since a host with port can stand in front.
    pub name: String,
    /// `pull`, `push`, `delete`, `*`, or others that we ignore.
    pub actions: Vec<String>,
}

impl Scope {
    /// Actions on a repository.
    pub fn repository(name: &str, actions: &[&str]) -> Scope {
        let actions = actions.iter().map(|&a| a.to_owned()).collect();
        Scope {
            kind: "repository".into(),
            class: None,
            name: name.into(),
            actions,
        }
    }

    /// The right to list repositories, `registry:catalog:*` (CAT-2).
    pub fn catalog() -> Scope {
        Scope {
            kind: "registry".into(),
            class: None,
            name: "catalog".into(),
            actions: vec!["*".into()],
        }
    }

    /// Reads one scope: the type ends at the first colon, the actions begin after the last (SCOPE-1).
    pub fn parse(text: &str) -> Option<Scope> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let (kind, class) = match kind.split_once('(') {
            Some((kind, class)) => (kind, Some(class.strip_suffix(')')?)),
            None => (kind, None),
        };
        let word = |s: &str| {
            !s.is_empty()
                && s.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        let plain = |s: &str| {
            !s.is_empty()
                && s.bytes()
                    .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
        };
        let known = word(kind) && class.is_none_or(word) && plain(name);
        let actions: Vec<String> = actions
            .split(',')
            .filter(|a| word(a) || *a == "*")
            .map(str::to_owned)
            .collect();
        (known && !actions.is_empty()).then(|| Scope {
            kind: kind.into(),
            class: class.map(str::to_owned),
            name: name.into(),
            actions,
        })
    }

    /// Reads scopes separated by spaces. What cannot be read is left out: asking for nonsense grants nothing, but is no
    /// error (SCOPE-2).
    pub fn parse_list(text: &str) -> Vec<Scope> {
        text.split_ascii_whitespace()
            .filter_map(Scope::parse)
            .collect()
    }

    /// Whether the action is among them; `*` stands for all (SCOPE-4).
    pub fn allows(&self, action: &str) -> bool {
        self.actions.iter().any(|a| a == action || a == "*")
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if let Some(class) = &self.class {
            write!(f, "({class})")?;
        }
        write!(f, ":{}:{}", self.name, self.actions.join(","))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Spec: SCOPE-1, SCOPE-4.
    #[test]
    fn scopes_split_at_the_first_and_the_last_colon() {
        let scope = Scope::parse("repository(plugin):host:5000/a/b:pull,push").unwrap();
        assert_eq!(
            (scope.kind.as_str(), scope.class.as_deref()),
            ("repository", Some("plugin"))
        );
        assert_eq!(
            (scope.name.as_str(), scope.actions.len()),
            ("host:5000/a/b", 2)
        );
        assert!(scope.allows("push") && !scope.allows("delete") && !scope.allows("*"));
        assert_eq!(
            scope.to_string(),
            "repository(plugin):host:5000/a/b:pull,push"
        );
        assert_eq!(Scope::parse("registry:catalog:*"), Some(Scope::catalog()));
        assert!(Scope::catalog().allows("anything"));
    }

    /// Spec: SCOPE-2.
    #[test]
    fn nonsense_in_a_scope_list_is_left_out() {
        let list = "repository:a/b:pull  x y:z repository:: repository:a: repo(:a:pull :a:pull other:thing:fly repository:c:pull,$$";
        let kept: Vec<_> = Scope::parse_list(list)
            .iter()
            .map(Scope::to_string)
            .collect();
        assert_eq!(
            kept,
            [
                "repository:a/b:pull",
                "other:thing:fly",
                "repository:c:pull"
            ]
        );
        assert!(Scope::parse_list("").is_empty());
    }

    proptest! {
        /// Spec: SCOPE-1, SCOPE-2.
        #[test]
        fn scopes_round_trip(text in ".{0,60}|([a-z]{1,4}(\\([a-z]{0,3}\\))?:[a-z0-9/:]{0,9}:[a-z,*]{0,9} ?){0,4}") {
            let scopes = Scope::parse_list(&text);
            let shown = scopes.iter().map(Scope::to_string).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(Scope::parse_list(&shown), scopes);
        }
    }
}
