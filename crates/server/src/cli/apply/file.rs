//! The file of `wharf apply`: read with errors that name line and field, and written.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use wharf_core::access::{
    Network, Permission, SignIn, Subject, TagPattern, Visibility, split_robot_name,
};
use wharf_core::workload;
use wharf_oci::RepositoryName;

use super::nothing;
use crate::cli::access::moment;
use crate::cli::exit::{Exit, Failure};
use crate::cli::identity::span;
use crate::config::nearest::nearest;
use crate::config::problem::{Problem, Problems, in_file};
use crate::config::value::{describe, quote};

/// Longest file: the registry takes no longer request.
const LONGEST: u64 = 1 << 20;

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Text(fn(&str) -> Result<Value, String>),
    List(fn(&str) -> Result<Value, String>),
}

/// A field of a table.
struct Field {
    /// In the file.
    name: &'static str,
    /// In the request.
    json: &'static str,
    kind: Kind,
    required: bool,
}

const fn text(
    name: &'static str,
    json: &'static str,
    check: fn(&str) -> Result<Value, String>,
) -> Field {
    Field {
        name,
        json,
        kind: Kind::Text(check),
        required: false,
    }
}

const fn list(name: &'static str, check: fn(&str) -> Result<Value, String>) -> Field {
    Field {
        name,
        json: name,
        kind: Kind::List(check),
        required: false,
    }
}

const fn required(mut field: Field) -> Field {
    field.required = true;
    field
}

/// The tables: in the file, in the request, and their fields.
const TABLES: [(&str, &str, &[Field]); 7] = [
    (
        "namespace",
        "namespaces",
        &[
            required(text("path", "path", path)),
            text("visibility", "visibility", visibility),
        ],
    ),
    (
        "role",
        "roles",
        &[
            required(text("name", "name", word)),
            required(list("permissions", permission)),
        ],
    ),
    (
        "issuer",
        "issuers",
        &[
            required(text("name", "name", word)),
            required(text("kind", "kind", kind)),
            text("issuer", "issuer", any),
            list("audiences", word),
            list("algorithms", algorithm),
            text("jwks_url", "jwks_url", word),
            text("jwks", "jwks", keys),
            text("token_review", "token_review", word),
            text("authority", "authority", any),
            text("leeway", "leeway", lifetime),
            text("longest_life", "longest_life", lifetime),
            text("session", "session", lifetime),
            text("principal", "principal", word),
        ],
    ),
    (
        "rule",
        "rules",
        &[
            required(text("name", "name", word)),
            required(text("issuer", "issuer", word)),
            required(list("conditions", condition)),
        ],
    ),
    (
        "group",
        "groups",
        &[
            required(text("name", "name", word)),
            list("members", member),
            list("from", source),
        ],
    ),
    (
        "robot",
        "robots",
        &[
            required(text("name", "name", robot)),
            text("lifetime", "lifetime", lifetime),
            list("networks", network),
        ],
    ),
    (
        "binding",
        "bindings",
        &[
            required(text("who", "who", subject)),
            required(text("role", "role", word)),
            text("on", "on", place),
            text("expires", "expires_at", expires),
            list("networks", network),
            text("tags", "tags", tags),
            text("sign_in", "sign_in", sign_in),
        ],
    ),
];

fn path(text: &str) -> Result<Value, String> {
    let bare = text.strip_suffix('/').unwrap_or(text);
    let parsed = RepositoryName::parse(bare).map_err(|error| format!("`{text}`: {error}"));
    parsed.map(|_| bare.into())
}

fn place(text: &str) -> Result<Value, String> {
    match text {
        "" => Err("leave `on` out for everywhere".to_owned()),
        text => path(text),
    }
}

fn visibility(text: &str) -> Result<Value, String> {
    let parsed = text.parse::<Visibility>();
    parsed
        .map(|one| one.as_str().into())
        .map_err(|error| error.to_string())
}

fn word(text: &str) -> Result<Value, String> {
    match text {
        "" => Err("it is empty".to_owned()),
        text => Ok(text.into()),
    }
}

fn any(text: &str) -> Result<Value, String> {
    Ok(text.into())
}

fn permission(text: &str) -> Result<Value, String> {
    let parsed = text.parse::<Permission>();
    parsed
        .map(|one| one.as_str().into())
        .map_err(|error| error.to_string())
}

fn kind(text: &str) -> Result<Value, String> {
    let all = workload::Kind::ALL.map(workload::Kind::as_str);
    match all.contains(&text) {
        true => Ok(text.into()),
        false => Err(format!(
            "`{text}` is no kind of issuer; write one of {}",
            all.join(", ")
        )),
    }
}

fn algorithm(text: &str) -> Result<Value, String> {
    let parsed = text.parse::<workload::Algorithm>();
    parsed.map(|one| one.as_str().into())
}

/// A key set, which is JSON in the file too.
fn keys(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(keys @ Value::Object(_)) => Ok(keys),
        _ => Err("it is no key set; write the JSON of one, as {\"keys\": […]}".to_owned()),
    }
}

/// As `wharf workload trust --claim` takes it.
fn condition(text: &str) -> Result<Value, String> {
    let at = text
        .find(['=', '~'])
        .filter(|at| *at > 0 && at + 1 < text.len());
    let at = at.ok_or_else(|| format!("`{text}`: write CLAIM=VALUE or CLAIM~PATTERN"))?;
    let (claim, value) = (&text[..at], &text[at + 1..]);
    Ok(match text.as_bytes()[at] {
        b'=' => json!({"claim": claim, "in": [value]}),
        _ => json!({"claim": claim, "glob": [value]}),
    })
}

/// One condition for each claim, with all that it may be.
fn gathered(conditions: &mut Value) {
    let mut all: Vec<Value> = Vec::new();
    for one in conditions
        .as_array_mut()
        .into_iter()
        .flatten()
        .map(Value::take)
    {
        match all.iter_mut().find(|known| known["claim"] == one["claim"]) {
            None => all.push(one),
            Some(known) => {
                for list in ["in", "glob"] {
                    for value in one[list].as_array().into_iter().flatten() {
                        match known[list].as_array_mut() {
                            Some(values) => values.push(value.clone()),
                            None => known[list] = json!([value]),
                        }
                    }
                }
            }
        }
    }
    *conditions = all.into();
}

/// A table of the request as the file has it.
fn flat(table: &str, one: &Value) -> Value {
    let mut one = one.clone();
    match table {
        "issuer" => {
            if let Some(settings) = one["settings"].as_object().cloned() {
                settings
                    .into_iter()
                    .for_each(|(name, value)| one[name] = value);
            }
        }
        "rule" => {
            let conditions = one["conditions"].as_array().into_iter().flatten();
            let each = |condition: &Value, list: &str, sign: char| {
                let claim = condition["claim"].as_str().unwrap_or_default().to_owned();
                let values = condition[list].as_array().cloned().unwrap_or_default();
                let values = values.into_iter().filter_map(move |value| {
                    Some(Value::from(format!("{claim}{sign}{}", value.as_str()?)))
                });
                values.collect::<Vec<_>>()
            };
            one["conditions"] = conditions
                .flat_map(|one| [each(one, "in", '='), each(one, "glob", '~')].concat())
                .collect();
        }
        _ => {}
    }
    one
}

fn member(text: &str) -> Result<Value, String> {
    match text.parse::<Subject>() {
        Ok(Subject::User(_) | Subject::Robot(_) | Subject::Workload(_)) => Ok(text.into()),
        Ok(other) => Err(format!(
            "{other} cannot be in a group; users, robots and rules on workloads can"
        )),
        Err(error) => Err(error.to_string()),
    }
}

fn source(text: &str) -> Result<Value, String> {
    match text.split_once(':') {
        Some((provider, name)) if !provider.is_empty() && !name.is_empty() => Ok(text.into()),
        _ => Err(format!(
            "`{text}` is no source; write PROVIDER:GROUP, such as corp:developers"
        )),
    }
}

fn robot(text: &str) -> Result<Value, String> {
    match split_robot_name(text) {
        Some(_) => Ok(text.into()),
        None => Err(format!(
            "`{text}` is no robot's name; write <namespace>+<name> in lower case, such as team/a+ci"
        )),
    }
}

fn lifetime(text: &str) -> Result<Value, String> {
    span(text).map(Value::from)
}

fn network(text: &str) -> Result<Value, String> {
    let parsed = text.parse::<Network>();
    parsed
        .map(|network| network.to_string().into())
        .map_err(|error| error.to_string())
}

fn subject(text: &str) -> Result<Value, String> {
    let parsed = text.parse::<Subject>();
    parsed
        .map(|_| text.into())
        .map_err(|error| error.to_string())
}

/// No span: the same file would mean something else each day.
fn expires(text: &str) -> Result<Value, String> {
    let moment = moment(text).and_then(|end| jiff::Timestamp::from_millisecond(end).ok());
    moment.map(|end| end.to_string().into()).ok_or_else(|| {
        format!("`{text}` is no day; write one such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z")
    })
}

fn tags(text: &str) -> Result<Value, String> {
    let parsed = text.parse::<TagPattern>();
    parsed
        .map(|pattern| pattern.to_string().into())
        .map_err(|error| error.to_string())
}

fn sign_in(text: &str) -> Result<Value, String> {
    // Nobody is the first of them, and no way to sign in.
    let ways = &SignIn::ALL[1..];
    match ways.iter().find(|way| way.as_str() == text) {
        Some(way) => Ok(way.as_str().into()),
        None => Err(format!(
            "`{text}` is no way to sign in; write one of {}",
            SignIn::ALL.map(SignIn::as_str)[1..].join(", ")
        )),
    }
}

/// Reads a file as the request that it stands for.
pub(super) fn read(file: &Path) -> Result<Value, Failure> {
    let unread = |error: std::io::Error| {
        let text = format!("{}: {error}", file.display());
        Failure::text(Exit::Usage, text)
    };
    let mut content = String::new();
    let mut source: Box<dyn std::io::Read> = match file.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(file).map_err(unread)?),
    };
    let length = source
        .by_ref()
        .take(LONGEST + 1)
        .read_to_string(&mut content);
    if length.map_err(unread)? as u64 > LONGEST {
        let text = format!("{}: longer than 1 MiB; split it", file.display());
        return Err(Failure::text(Exit::Usage, text));
    }
    parse(file, &content).map_err(|problems| Failure::new(Exit::Usage, problems))
}

/// Collects what is wrong while it reads.
struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    problems: Vec<Problem>,
}

fn parse(file: &Path, text: &str) -> Result<Value, Problems> {
    let mut reader = Reader {
        file,
        text,
        problems: Vec::new(),
    };
    let mut wish = nothing();
    match DeTable::parse(text) {
        Ok(table) => reader.tables(table.get_ref(), &mut wish),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            reader.wrong(at, format!("this is not TOML: {}", error.message()), None);
        }
    }
    match reader.problems.is_empty() {
        true => Ok(wish),
        false => {
            // The parser sorts by name; people read from the top.
            reader.problems.sort_by_key(|problem| problem.at.line());
            Err(Problems(reader.problems))
        }
    }
}

impl Reader<'_> {
    fn wrong(&mut self, at: usize, what: String, help: Option<String>) {
        let at = in_file(self.file, self.text, at);
        self.problems.push(Problem { at, what, help });
    }

    fn unknown(&mut self, at: usize, what: String, name: &str, known: &[&str]) {
        let help = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", known.join(", ")),
        };
        self.wrong(at, what, Some(help));
    }

    fn tables(&mut self, table: &DeTable<'_>, wish: &mut Value) {
        for (name, value) in table {
            let (at, name) = (name.span().start, name.get_ref().as_ref());
            let known = TABLES.iter().find(|(known, ..)| *known == name);
            let Some((_, json, fields)) = known else {
                let names = TABLES.map(|(known, ..)| known);
                self.unknown(at, format!("`{name}` is unknown"), name, &names);
                continue;
            };
            let DeValue::Array(items) = value.get_ref() else {
                let help = format!("write `[[{name}]]`");
                let found = describe(value.get_ref());
                let what = format!("`{name}` is a list of tables, found {found}");
                self.wrong(at, what, Some(help));
                continue;
            };
            for item in items {
                if let Some(one) = self.item(name, fields, item)
                    && let Value::Array(all) = &mut wish[*json]
                {
                    all.push(one);
                }
            }
        }
    }

    fn item(
        &mut self,
        table: &str,
        fields: &[Field],
        item: &Spanned<DeValue<'_>>,
    ) -> Option<Value> {
        let at = item.span().start;
        let DeValue::Table(found) = item.get_ref() else {
            let what = format!("`{table}` is a list of tables");
            self.wrong(at, what, Some(format!("write `[[{table}]]`")));
            return None;
        };
        let mut one = Map::new();
        for (name, value) in found {
            let (at, name) = (name.span().start, name.get_ref().as_ref());
            let Some(field) = fields.iter().find(|field| field.name == name) else {
                let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
                let what = format!("`{name}` in `[[{table}]]` is unknown");
                self.unknown(at, what, name, &names);
                continue;
            };
            match self.value(field, value.get_ref()) {
                Ok(value) => drop(one.insert(field.json.to_owned(), value)),
                Err(what) => self.wrong(at, format!("`{name}` in `[[{table}]]`: {what}"), None),
            }
        }
        for field in fields.iter().filter(|field| field.required) {
            let there = found.iter().any(|(name, _)| name.get_ref() == field.name);
            if !there {
                let name = field.name;
                self.wrong(at, format!("this `[[{table}]]` lacks `{name}`"), None);
            }
        }
        match table {
            "namespace" => drop(one.entry("visibility").or_insert_with(|| json!("private"))),
            "issuer" => {
                one.entry("issuer").or_insert_with(|| json!(""));
                let name = one.remove("name");
                one = Map::from_iter([
                    ("name".to_owned(), name.unwrap_or_default()),
                    ("settings".to_owned(), Value::Object(one)),
                ]);
            }
            "rule" => {
                if let Some(conditions) = one.get_mut("conditions") {
                    gathered(conditions);
                }
            }
            "binding" => drop(one.entry("on").or_insert_with(|| json!(""))),
            _ => {}
        }
        Some(Value::Object(one))
    }

    fn value(&self, field: &Field, value: &DeValue<'_>) -> Result<Value, String> {
        match (field.kind, value) {
            (Kind::Text(check), DeValue::String(text)) => check(text),
            (Kind::Text(_), other) => Err(format!(
                "expected text in quotes, found {}",
                describe(other)
            )),
            (Kind::List(check), DeValue::Array(items)) => {
                let items = items.iter().map(|item| match item.get_ref() {
                    DeValue::String(text) => check(text),
                    other => Err(format!(
                        "expected text in quotes, found {} in it",
                        describe(other)
                    )),
                });
                items.collect::<Result<Vec<_>, _>>().map(Value::Array)
            }
            (Kind::List(_), other) => Err(format!(
                "expected a list such as [\"…\"], found {}",
                describe(other)
            )),
        }
    }
}

/// Writes a request as the file that stands for it.
pub(super) fn write(wish: &Value) -> String {
    let mut out = String::from("# Rights, as wharf apply reads them.\n");
    for (table, json, fields) in TABLES {
        for one in wish[json].as_array().into_iter().flatten() {
            let _ = write!(out, "\n[[{table}]]\n");
            let one = flat(table, one);
            for field in fields {
                let written = match &one[field.json] {
                    Value::String(text) if text.is_empty() => continue,
                    Value::String(text) => quote(text),
                    Value::Object(keys) => quote(&Value::from(keys.clone()).to_string()),
                    Value::Number(seconds) => quote(&format!("{seconds}s")),
                    Value::Array(items)
                        if items.is_empty() && matches!(field.name, "networks" | "from") =>
                    {
                        continue;
                    }
                    Value::Array(items) => {
                        let items = items.iter().filter_map(Value::as_str).map(quote);
                        format!("[{}]", items.collect::<Vec<_>>().join(", "))
                    }
                    _ => continue,
                };
                let _ = writeln!(out, "{} = {written}", field.name);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn errors(text: &str) -> String {
        let parsed = parse(Path::new("access.toml"), text);
        parsed.map_or_else(
            |problems| problems.to_string(),
            |wish| format!("no error: {wish}"),
        )
    }

    #[test]
    fn everything_that_can_be_written_is_read() {
        let text = r#"
            [[namespace]]
            path = "team/a/"
            visibility = "public"
            [[namespace]]
            path = "team/b"
            [[role]]
            name = "scanner"
            permissions = ["pull", "catalog"]
            [[issuer]]
            name = "prod"
            kind = "kubernetes"
            issuer = "https://cluster.example"
            audiences = ["wharf"]
            token_review = "https://10.0.0.1:6443"
            session = "30m"
            [[rule]]
            name = "prod-default"
            issuer = "prod"
            conditions = ["kubernetes.io.namespace=prod", "sub~system:**", "kubernetes.io.namespace=dev"]
            [[group]]
            name = "developers"
            members = ["alice", "team/a+ci"]
            from = ["corp:developers"]
            [[robot]]
            name = "team/a+ci"
            lifetime = "30d"
            networks = ["10.0.0.0/8"]
            [[binding]]
            who = "group:developers"
            role = "writer"
            on = "team/a"
            expires = "2027-01-31"
            networks = ["192.0.2.0/24"]
            tags = "v*"
            sign_in = "password"
            [[binding]]
            who = "root"
            role = "admin"
        "#;
        let wish = parse(Path::new("access.toml"), text).unwrap();
        assert_eq!(
            wish,
            json!({
                "namespaces": [
                    { "path": "team/a", "visibility": "public" },
                    { "path": "team/b", "visibility": "private" },
                ],
                "roles": [{ "name": "scanner", "permissions": ["pull", "catalog"] }],
                "issuers": [{ "name": "prod", "settings": {
                    "kind": "kubernetes", "issuer": "https://cluster.example", "audiences": ["wharf"],
                    "token_review": "https://10.0.0.1:6443", "session": 1_800,
                } }],
                "rules": [{ "name": "prod-default", "issuer": "prod", "conditions": [
                    { "claim": "kubernetes.io.namespace", "in": ["prod", "dev"] }, { "claim": "sub", "glob": ["system:**"] },
                ] }],
                "groups": [{ "name": "developers", "members": ["alice", "team/a+ci"], "from": ["corp:developers"] }],
                "robots": [{ "name": "team/a+ci", "lifetime": 2_592_000, "networks": ["10.0.0.0/8"] }],
                "bindings": [
                    {
                        "who": "group:developers", "role": "writer", "on": "team/a", "expires_at": "2027-02-01T00:00:00Z",
                        "networks": ["192.0.2.0/24"], "tags": "v*", "sign_in": "password",
                    },
                    { "who": "root", "role": "admin", "on": "" },
                ],
            })
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_the_way_out() {
        for (text, told) in [
            (
                "[[bindings]]\nwho = 'a'\n",
                "access.toml:1: `bindings` is unknown\n  help: did you mean `binding`?",
            ),
            (
                "users = 1",
                "access.toml:1: `users` is unknown\n  help: there are namespace, role, issuer, rule, group, robot, binding",
            ),
            (
                "[binding]\nwho = 'a'\n",
                "access.toml:1: `binding` is a list of tables, found a table\n  help: write `[[binding]]`",
            ),
            (
                "[[binding]]\nwho = 'a'\nrole = 'reader'\nexpire = '2027-01-31'\n",
                "access.toml:4: `expire` in `[[binding]]` is unknown\n  help: did you mean `expires`?",
            ),
            (
                "[[binding]]\nrole = 'reader'\n",
                "access.toml:1: this `[[binding]]` lacks `who`",
            ),
            (
                "[[binding]]\nwho = 'a'\nrole = 'reader'\nexpires = '30d'\n",
                "access.toml:4: `expires` in `[[binding]]`: `30d` is no day; write one such as 2027-01-31, or a time such as \
                 2027-01-31T12:00:00Z",
            ),
            (
                "[[binding]]\nwho = 'a'\nrole = 'reader'\non = ''\n",
                "access.toml:4: `on` in `[[binding]]`: leave `on` out for everywhere",
            ),
            (
                "[[namespace]]\npath = 'a'\nvisibility = 'open'\n",
                "access.toml:3: `visibility` in `[[namespace]]`: \"open\" is no visibility; a namespace is private, internal or public",
            ),
            (
                "[[group]]\nname = 'g'\nmembers = 'alice'\n",
                "access.toml:3: `members` in `[[group]]`: expected a list such as [\"…\"], found a string",
            ),
            (
                "[[group]]\nname = 'g'\nmembers = ['group:h']\n",
                "access.toml:3: `members` in `[[group]]`: group:h cannot be in a group; users, robots and rules on workloads can",
            ),
            (
                "[[rule]]\nname = 'r'\nissuer = 'i'\nconditions = ['sub']\n",
                "access.toml:4: `conditions` in `[[rule]]`: `sub`: write CLAIM=VALUE or CLAIM~PATTERN",
            ),
            (
                "[[issuer]]\nname = 'i'\nkind = 'jenkins'\nbearer = 'x'\n",
                "access.toml:3: `kind` in `[[issuer]]`: `jenkins` is no kind of issuer; write one of kubernetes, github, gitlab, oidc, \
                 certificate\naccess.toml:4: `bearer` in `[[issuer]]` is unknown\n  help: there are name, kind, issuer, audiences, \
                 algorithms, jwks_url, jwks, token_review, authority, leeway, longest_life, session, principal",
            ),
            (
                "[[role]]\nname = 'r'\npermissions = ['fly']\n",
                "access.toml:3: `permissions` in `[[role]]`: \"fly\" is no permission; the permissions are pull, push, tag-create, \
                 tag-move, delete, catalog, read-settings, manage-settings, manage-bindings, manage-robots, read-audit and admin",
            ),
            (
                "[[robot]]\nname = 'ci'\nlifetime = 'long'\n",
                "access.toml:2: `name` in `[[robot]]`: `ci` is no robot's name; write <namespace>+<name> in lower case, such as \
                 team/a+ci\naccess.toml:3: `lifetime` in `[[robot]]`: \"long\" is no span of time; write a whole number with s, m, h \
                 or d, such as 90d",
            ),
            (
                "[[binding]]\nwho = 'a'\nrole = 'reader'\nsign_in = 'magic'\n",
                "access.toml:4: `sign_in` in `[[binding]]`: `magic` is no way to sign in; write one of password, api-token, robot-secret, workload, certificate, terminal",
            ),
        ] {
            assert_eq!(errors(text), told, "{text}");
        }
        assert!(errors("[[binding]\n").starts_with("access.toml:1: this is not TOML: "));
    }

    #[test]
    fn what_is_written_reads_back_as_the_same() {
        let wish = json!({
            "namespaces": [{ "path": "team/a", "visibility": "public" }],
            "roles": [{ "name": "scanner", "permissions": ["pull"] }],
            "issuers": [{ "name": "i", "settings": {
                "kind": "oidc", "issuer": "https://a.example", "audiences": ["x"], "algorithms": ["ES256"], "jwks": { "keys": [] },
                "authority": "-----BEGIN\nx\"'y", "leeway": 60, "principal": "{sub}",
            } }],
            "rules": [{ "name": "r", "issuer": "i", "conditions": [
                { "claim": "sub", "in": ["a=b", "c"], "glob": ["d/*"] }, { "claim": "ref", "glob": ["x~y"] },
            ] }],
            "groups": [{ "name": "g", "members": [] }, { "name": "h", "members": ["alice"] }],
            "robots": [{ "name": "team/a+ci", "networks": ["10.0.0.0/8"] }],
            "bindings": [
                { "who": "alice", "role": "reader", "on": "", "networks": [] },
                { "who": "bob", "role": "writer", "on": "team/a", "tags": "v*", "expires_at": "2027-02-01T00:00:00Z" },
            ],
        });
        let mut read = parse(Path::new("x"), &write(&wish)).unwrap();
        read["bindings"][0]["networks"] = json!([]);
        assert_eq!(read, wish);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_with_a_line(text in "(\\[\\[(binding|group|robot|namespace|role|issuer|rule)\\]\\]\n|[a-z_]{1,8} = ['\\[\"a-z/+:.\\],-]{0,12}\n|\\PC{0,8}){0,8}") {
            if let Err(problems) = parse(Path::new("x.toml"), &text) {
                prop_assert!(problems.0.iter().all(|problem| problem.to_string().starts_with("x.toml:")));
            }
        }
    }
}
