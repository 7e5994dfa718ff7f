//! Layers, errors and generated texts. Error texts are compared whole: they are what people see.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use wharf_core::access::Role;

use super::load::load_with;
use super::section::Section;
use super::*;

/// A configuration file that vanishes, and the environment and flags beside it.
pub(super) struct Setup {
    pub(super) folder: tempfile::TempDir,
    inputs: Inputs,
}

impl Setup {
    pub(super) fn file(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wharf.toml");
        std::fs::write(&path, text).unwrap();
        let inputs = Inputs {
            file: Some(path),
            ..Inputs::default()
        };
        Self { folder, inputs }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.inputs.env.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, path: &str, flag: &str, value: &str) -> Self {
        let (path, flag, value) = (path.into(), flag.into(), value.into());
        self.inputs.flags.push(FlagValue { path, flag, value });
        self
    }

    pub(super) fn load(&self) -> Result<Loaded, Problems> {
        load(&self.inputs)
    }

    /// The errors, without this machine's folder.
    pub(super) fn errors(&self) -> String {
        self.shorten(&self.load().unwrap_err().to_string())
    }

    fn shorten(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

#[test]
fn nothing_gives_the_defaults() {
    let loaded = load(&Inputs::default()).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.sources.is_empty() && loaded.warnings.is_empty());
    assert_eq!(
        loaded.config.server.listen,
        ["127.0.0.1:5000".parse().unwrap()]
    );
    assert_eq!(loaded.config.access.anonymous, AnonymousRole::None);
}

#[test]
fn later_layers_win_and_each_value_knows_its_source() {
    let file =
        "[server]\ndata = 'a'\nlisten = '127.0.0.1:1'\n\n[limits]\nmanifest_size = \"8MiB\"\n";
    let setup = Setup::file(file)
        .env("WHARF__SERVER__DATA", "b")
        .env("WHARF__SERVER__SHUTDOWN_GRACE", "2m")
        .env("PATH", "/bin")
        .env("WHARF_PORT", "tcp://10.0.0.1:5000")
        .flag("server.data", "--data", "c");
    let loaded = setup.load().unwrap();
    assert_eq!(loaded.config.server.data, Path::new("c"));
    assert_eq!(
        loaded.config.server.shutdown_grace,
        Duration::from_secs(120)
    );
    assert_eq!(loaded.config.limits.manifest_size, Size::mib(8));
    let sources = loaded.sources.iter();
    let sources: Vec<_> = sources
        .map(|(path, at)| setup.shorten(&format!("{path} {at}")))
        .collect();
    assert_eq!(
        sources,
        [
            "limits.manifest_size wharf.toml:6",
            "server.data --data",
            "server.listen wharf.toml:3",
            "server.shutdown_grace WHARF__SERVER__SHUTDOWN_GRACE",
        ]
    );
}

#[test]
fn lists_in_the_environment() {
    let setup = Setup::file("[[access.grant]]\nwho = 'bob'\nrole = 'admin'\n")
        .env(
            "WHARF__SERVER__LISTEN",
            "127.0.0.1:1, [::1]:2,unix:/run/w.sock",
        )
        .env(
            "WHARF__ACCESS__GRANT",
            r#"[{who = "alice", role = "writer", on = "team/a"}]"#,
        )
        .env(
            "WHARF__CONTENT__OVERRIDE",
            "[{on = 'mirror', require_blobs = false}]",
        );
    let config = setup.load().unwrap().config;
    assert_eq!(config.server.listen.len(), 3);
    let alice = Grant {
        who: "alice".into(),
        role: Role::Writer,
        on: Some("team/a".into()),
    };
    assert_eq!(config.access.grants, [alice]);
    assert_eq!(config.content.overrides[0].require_blobs, Some(false));
    assert_eq!(config.content.overrides[0].require_children, None);
}

#[test]
fn an_empty_variable_unsets() {
    let setup =
        Setup::file("[access.htpasswd]\nfile = 'users'\n").env("WHARF__ACCESS__HTPASSWD__FILE", "");
    assert_eq!(setup.load().unwrap().config.access.htpasswd.file, None);
}

#[test]
fn unknown_keys_name_file_line_and_the_nearest() {
    let setup = Setup::file(
        "[server]\nlsiten = ':5000'\n\n[sever]\ndata = 'x'\n[access]\nlisten = 1\nfrobnicate = true\n\
         [[access.grant]]\nwho = 'alice'\nrole = 'writer'\nonn = 'x'\n",
    )
    .env("WHARF__SERVER__DTA", "x")
    .env("WHARF__ACCESS__ADMIN_PASSWORT", "hunter2");
    assert_eq!(
        setup.errors(),
        "wharf.toml:2: unknown key `server.lsiten`\n  help: did you mean `server.listen`?\n\
         wharf.toml:4: unknown section `sever`\n  help: did you mean `server`?\n\
         wharf.toml:7: unknown key `access.listen`\n  help: did you mean `server.listen`?\n\
         wharf.toml:8: unknown key `access.frobnicate`\n  help: `wharf config defaults` prints every key\n\
         wharf.toml:12: unknown key `onn` in `[[access.grant]]`\n  help: did you mean `on`?\n\
         WHARF__SERVER__DTA: unknown key `server.dta`\n  help: did you mean WHARF__SERVER__DATA?\n\
         WHARF__ACCESS__ADMIN_PASSWORT: unknown key `access.admin_passwort`\n  \
         help: did you mean WHARF__ACCESS__ADMIN_PASSWORD?"
    );
}

#[test]
fn wrong_values_name_what_is_allowed() {
    let setup = Setup::file(
        "[server]\nlisten = ['nowhere']\nshutdown_grace = 30\ndata = 7\nexternal_url = 'https://h/reg'\n\
         [access]\nanonymous = 'raeder'\nallow_open = 'yes'\n[limits]\nmanifest_size = '4MiBs'\nconnections = -1\n\
         [tls]\nself_signed = 'no'\n[log]\nlevel = 3\n",
    )
    .env("WHARF__METRICS__REPOSITORY_LABEL", "yes")
    .env("WHARF__ACCESS__GRANT", "alice")
    .env("WHARF__ACCESS", "x")
    .flag("auth.challenge", "--challenge", "digest");
    assert_eq!(
        setup.errors(),
        "wharf.toml:2: `server.listen`: `nowhere` is none: it has no port; expected a list, each entry an address with a \
         port such as \"127.0.0.1:5000\", \"[::1]:5000\", \":5000\" (every address), or \"unix:/run/wharf.sock?mode=660\"\n\
         wharf.toml:3: `server.shutdown_grace`: found an integer; expected a duration: a whole number with its unit ms, \
         s, m, h or d, such as \"30s\"\n\
         wharf.toml:4: `server.data`: found an integer; expected a path\n\
         wharf.toml:5: `server.external_url`: `https://h/reg` has a path or a query: clients always ask for /v2/ right \
         behind the host; expected a URL with scheme and host only, such as \"https://registry.example.com\"\n\
         wharf.toml:7: `access.anonymous`: `raeder` is unknown (did you mean \"reader\"?); \
         expected \"none\", \"reader\", \"writer\" or \"maintainer\"\n\
         wharf.toml:8: `access.allow_open`: found a string; expected true or false\n\
         wharf.toml:10: `limits.manifest_size`: the unit `MiBs` is unknown; expected a size: a whole number with its \
         unit B, KiB, MiB, GiB, TiB (or kB, MB, GB, TB), such as \"4MiB\"\n\
         wharf.toml:11: `limits.connections`: `-1` is out of range; expected a whole number from 0 to 4294967295\n\
         wharf.toml:13: `tls.self_signed`: found a string; expected true or false\n\
         wharf.toml:15: `log.level`: found an integer; expected text\n\
         WHARF__METRICS__REPOSITORY_LABEL: `metrics.repository_label`: `yes` is neither; expected true or false\n\
         WHARF__ACCESS__GRANT: this is not TOML: string values must be quoted, expected literal string\n  \
         help: write a TOML array of tables, such as [{ who = \"…\", role = \"reader\", on = \"…\" }]\n\
         WHARF__ACCESS: `access` is a section\n  help: its keys are WHARF__ACCESS__…\n\
         --challenge: `auth.challenge`: `digest` is unknown; expected \"bearer\" or \"basic\""
    );
}

#[test]
fn broken_files() {
    let unclosed = Setup::file("a = 1\n[server\n").errors();
    assert_eq!(
        unclosed,
        "wharf.toml:2: this is not TOML: unclosed table, expected `]`"
    );
    let twice = Setup::file("[log]\nlevel = 'info'\nlevel = 'warn'\n").errors();
    assert_eq!(twice, "wharf.toml:3: this is not TOML: duplicate key");
    let section = Setup::file("server = 1\naccess.grant = 'x'\nlog = []").errors();
    assert_eq!(
        section,
        "wharf.toml:1: `server` is a section, found an integer\n  help: write `[server]` and its keys below\n\
         wharf.toml:2: `access.grant` is a list of tables, found a string\n  help: write `[[access.grant]]`\n\
         wharf.toml:3: `log` is a section, found an array\n  help: write `[log]` and its keys below"
    );
    let inputs = Inputs {
        file: Some(PathBuf::from("/nonexistent/wharf.toml")),
        ..Inputs::default()
    };
    let error = load(&inputs).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot read /nonexistent/wharf.toml: No such file or directory (os error 2)"
    );
}

#[test]
fn a_grant_lacks_what_it_needs() {
    let setup = Setup::file("[[access.grant]]\nwho = 'x'\n[[access.grant]]\nrole = 'reader'\n");
    assert_eq!(
        setup.errors(),
        "wharf.toml:1: this `[[access.grant]]` lacks `role`\n  help: What they may do.\n\
         wharf.toml:3: this `[[access.grant]]` lacks `who`\n  help: Name of the user, or `anonymous`."
    );
}

#[test]
fn errors_never_hold_a_secret() {
    let broken = Setup::file("[access]\nadmin_password = \"hunter2\nx\n").errors();
    let typo = Setup::file("[access]\nadmin_pasword = \"hunter2\"\n").errors();
    let kind = Setup::file("[access]\nadmin_password = [\"hunter2\"]\n").errors();
    let both = "[access]\nadmin_password = \"hunter2\"\nadmin_password_file = \"hunter2\"\n";
    let both = Setup::file(both).errors();
    for error in [broken, typo, kind, both] {
        assert!(error.starts_with("wharf.toml:"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let loaded = Setup::file("[access]\nadmin_password = \"hunter2 and more\"\n")
        .load()
        .unwrap();
    assert!(!format!("{loaded:?}").contains("hunter2"));
    assert!(!render::show(&loaded.config, &loaded.sources).contains("hunter2"));
    assert_eq!(
        loaded.config.access.admin_password.unwrap().expose(),
        "hunter2 and more"
    );
}

#[test]
fn a_url_with_a_password_is_not_shown() {
    let proxy = "[storage]\nproxy = \"http://wharf:hunter2@proxy.example:3128\"\n";
    let loaded = Setup::file(proxy).load().unwrap();
    let shown = render::show(&loaded.config, &loaded.sources);
    assert!(shown.contains("proxy = \"(hidden)\""), "{shown}");
    assert!(!format!("{shown}{loaded:?}").contains("hunter2"));
    assert!(!format!("{:?}", loaded.config.data_options()).contains("hunter2"));
    let url = loaded.config.storage.proxy.unwrap();
    assert_eq!(url.0.expose(), "http://wharf:hunter2@proxy.example:3128");
    for wrong in [
        "[storage]\nproxy = \"wharf:hunter2@proxy\"\n",
        "[storage.s3]\nendpoint = \"https://wharf:hunter2@s3.example\"\n",
    ] {
        let told = Setup::file(wrong).errors();
        assert!(
            told.contains("storage.") && !told.contains("hunter2"),
            "{told}"
        );
    }
}

#[test]
fn secrets_come_from_files() {
    let setup = Setup::file("");
    let secret = setup.folder.path().join("secret");
    std::fs::write(&secret, "from a file\n").unwrap();
    let path = secret.to_str().unwrap();
    for setup in [
        Setup::file(&format!("[access]\nadmin_password_file = '{path}'\n")),
        Setup::file("").env("WHARF__ACCESS__ADMIN_PASSWORD_FILE", path),
        Setup::file("").env("WHARF_ADMIN_PASSWORD_FILE", path),
        Setup::file("[access]\nadmin_password = 'other one'\n")
            .env("WHARF_ADMIN_PASSWORD_FILE", path),
    ] {
        let config = setup.load().unwrap().config;
        assert_eq!(
            config.access.admin_password.unwrap().expose(),
            "from a file"
        );
    }
    let both = Setup::file("")
        .env("WHARF_ADMIN_PASSWORD", "x")
        .env("WHARF_ADMIN_PASSWORD_FILE", path);
    assert_eq!(
        both.errors(),
        "WHARF_ADMIN_PASSWORD_FILE: `access.admin_password` and `access.admin_password_file` are both given\n  \
         help: keep one of them"
    );
    let twice = Setup::file("")
        .env("WHARF_ADMIN_PASSWORD", "x")
        .env("WHARF__ACCESS__ADMIN_PASSWORD", "y");
    assert_eq!(
        twice.errors(),
        "WHARF__ACCESS__ADMIN_PASSWORD: `access.admin_password` is given by WHARF_ADMIN_PASSWORD too\n  \
         help: keep one of them"
    );
    let missing = Setup::file("").env("WHARF_ADMIN_PASSWORD_FILE", "/nonexistent/secret");
    assert_eq!(
        missing.errors(),
        "WHARF_ADMIN_PASSWORD_FILE: `access.admin_password_file`: cannot read /nonexistent/secret: No such file or \
         directory (os error 2)"
    );
}

#[test]
fn renamed_keys_keep_working_with_a_warning() {
    let renamed = [
        ("server.address", "server.listen"),
        ("log_level", "log.level"),
        ("http.manifest_size", "limits.manifest_size"),
        ("access.admin_secret", "access.admin_password"),
    ];
    let mut setup = Setup::file(
        "log_level = 'debug'\n[server]\naddress = '127.0.0.1:1'\n[http]\nmanifest_size = '1MiB'\n\
         [access]\nadmin_secret = 'long enough'\n",
    );
    let loaded = load_with(&setup.inputs, &renamed).unwrap();
    assert_eq!(loaded.config.log.level, "debug");
    assert_eq!(
        loaded.config.server.listen,
        ["127.0.0.1:1".parse().unwrap()]
    );
    assert_eq!(loaded.config.limits.manifest_size, Size::mib(1));
    assert!(loaded.config.access.admin_password.is_some());
    let warnings = loaded.warnings.iter();
    let warnings: Vec<_> = warnings
        .map(|warning| setup.shorten(&warning.to_string()))
        .collect();
    let help = "\n  help: the old name will go away: rename it";
    assert_eq!(
        warnings,
        [
            format!("wharf.toml:1: `log_level` is now called `log.level`{help}"),
            format!("wharf.toml:3: `server.address` is now called `server.listen`{help}"),
            format!(
                "wharf.toml:5: `http.manifest_size` is now called `limits.manifest_size`{help}"
            ),
            format!(
                "wharf.toml:7: `access.admin_secret` is now called `access.admin_password`{help}"
            ),
        ]
    );

    setup.inputs.file = None;
    let setup = setup.env("WHARF__SERVER__ADDRESS", "127.0.0.1:2");
    let loaded = load_with(&setup.inputs, &renamed).unwrap();
    assert_eq!(
        loaded.config.server.listen,
        ["127.0.0.1:2".parse().unwrap()]
    );
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn renamed_keys_lead_somewhere() {
    for (old, new) in load::RENAMED {
        assert!(Config::OUTLINE.find(old).is_none(), "{old} still exists");
        assert!(Config::OUTLINE.find(new).is_some(), "{new} does not exist");
    }
}

const OPEN: &str = "strangers could push or delete: set `allow_open = true` in [access] if that is meant, listen on \
                    127.0.0.1 only, or take the role `reader`";

#[test]
fn what_cannot_be_together_is_refused() {
    let cases = [
        (
            "[server]\nlisten = ':5000'\n[access]\nanonymous = 'writer'\n",
            format!("wharf.toml:4: `access.anonymous` = \"writer\" beyond this machine is refused\n  help: {OPEN}"),
        ),
        (
            "[server]\nlisten = ':5000'\n[[access.grant]]\nwho = 'anonymous'\nrole = 'writer'\non = 'public'\n",
            format!("wharf.toml:3: role \"writer\" for anonymous beyond this machine is refused\n  help: {OPEN}"),
        ),
        (
            "[[access.grant]]\nwho = 'anonymous'\nrole = 'admin'\n",
            "wharf.toml:1: this `[[access.grant]]` cannot be meant: anonymous cannot be admin, owner or auditor; maintainer is the most \
             that a request without credentials may be\n  help: a grant reads: who = \"alice\", role = \"writer\", on \
             = \"team/a\""
                .to_owned(),
        ),
        (
            "[auth]\nchallenge = 'basic'\n[access]\nanonymous = 'reader'\n",
            "wharf.toml:2: `auth.challenge` = \"basic\" is refused while anonymous may do anything\n  help: clients \
             that are asked for Basic cannot pull anonymously: take \"bearer\", or `anonymous = \"none\"` and no grant \
             for it"
                .to_owned(),
        ),
        (
            "[tls]\ncert = 'c.pem'\n",
            "wharf.toml:2: `tls.cert` is given without `tls.key`\n  help: name the private key too: --tls-key FILE"
                .to_owned(),
        ),
        (
            "[tls]\nkey = 'k.pem'\n",
            "wharf.toml:2: `tls.key` is given without `tls.cert`\n  help: name the certificate too: --tls-cert FILE"
                .to_owned(),
        ),
        (
            "[tls]\nkey = 'k.pem'\ncert = 'c.pem'\nself_signed = true\n",
            "wharf.toml:4: `tls.self_signed` and `tls.cert` exclude each other\n  help: keep one of them".to_owned(),
        ),
        (
            "[tls.clients]\nmode = 'required'\n[[tls.clients.user]]\nfrom = 'email'\nmatches = '*@a.example'\n",
            "wharf.toml:2: `tls.clients.mode` is given without `tls.clients.ca`\n  help: name the authorities of clients: \
             ca = \"clients.pem\" in [tls.clients]\n\
             wharf.toml:3: `tls.clients.user` is given without `tls.clients.ca`\n  help: name the authorities of clients: \
             ca = \"clients.pem\" in [tls.clients]"
                .to_owned(),
        ),
        (
            "[tls.clients]\nca = 'c.pem'\n",
            "wharf.toml:2: `tls.clients.ca` is given, and the registry speaks plain HTTP\n  help: name its own certificate in \
             [tls] as well: only TLS shows clients' certificates, and a proxy in front hides them"
                .to_owned(),
        ),
        (
            "[server]\nlisten = ['127.0.0.1:5000', 'unix:/w.sock']\n[tls]\nself_signed = true\n[tls.clients]\nca = 'c.pem'\n\
             required_at = ['127.0.0.1:5001', 'unix:/w.sock']\nnever_at = '127.0.0.1:5000'\n\
             [[tls.clients.user]]\nfrom = 'email'\nmatches = '*'\n",
            "wharf.toml:7: `tls.clients.required_at` names 127.0.0.1:5001, where nothing listens\n  help: write it as it stands in \
             `server.listen`\n\
             wharf.toml:7: `tls.clients.required_at` names unix:/w.sock?mode=660, where there is no TLS\n  help: leave it out\n\
             wharf.toml:9: this `[[tls.clients.user]]` cannot be meant: matches: a star alone takes any email for a user's name; \
             write a form such as *@example.com\n  help: a rule reads: from = \"email\", matches = \"*@example.com\""
                .to_owned(),
        ),
        (
            "[server]\nlisten = []\n",
            "wharf.toml:2: `server.listen` names no address\n  help: name one, such as \"127.0.0.1:5000\"".to_owned(),
        ),
        (
            "[limits]\nmanifest_size = '0B'\nheader_size = '1KiB'\n",
            "wharf.toml:2: `limits.manifest_size` is 0: nothing would be let through\n  help: take a number above 0\n\
             wharf.toml:3: `limits.header_size` is under 16KiB\n  help: tokens of clients need that much"
                .to_owned(),
        ),
        (
            "[[rate_limits.override]]\nreads = '1/s'\n[[rate_limits.override]]\nrole = 'none'\non = 'a'\n",
            "wharf.toml:1: this `[[rate_limits.override]]` names neither `on` nor `role`\n  help: name a prefix, a role or both; \
             for everybody, write the keys in [rate_limits]\n\
             wharf.toml:3: this `[[rate_limits.override]]` is for role \"none\", which everybody has\n  help: leave `role` out, \
             or name one that gives something, such as \"writer\"\n\
             wharf.toml:3: this `[[rate_limits.override]]` sets no rate\n  help: give it `token`, `reads`, `writes` or `bytes`, \
             such as reads = \"100/s burst 5000\""
                .to_owned(),
        ),
        (
            "[[rate_limits.override]]\non = 'a'\nreads = '1/s'\n[[rate_limits.override]]\non = 'a/'\nreads = 'off'\n",
            "wharf.toml:4: this `[[rate_limits.override]]` sets `reads` again for the same `on` and `role`\n  help: keep one of them"
                .to_owned(),
        ),
        (
            "[[content.override]]\non = 'Team'\n",
            "wharf.toml:1: `on` = \"Team\" in this `[[content.override]]` is no prefix of a repository name\n  help: \
             write it like \"team/a\": lower-case letters, digits, `.`, `_`, `-`, parts separated by `/`"
                .to_owned(),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(Setup::file(text).errors(), expected, "{text}");
    }
    let flags = Setup::file("")
        .flag("server.listen", "--listen", ":5000")
        .flag("access.anonymous", "--anonymous", "writer");
    assert!(
        flags.errors().starts_with("--anonymous: "),
        "{}",
        flags.errors()
    );
}

#[test]
fn what_may_be_together_is_accepted() {
    for text in [
        "[access]\nanonymous = 'maintainer'\n",
        "[server]\nlisten = ['127.0.0.2:5000', '[::1]:5000', 'unix:/w.sock']\n[access]\nanonymous = 'writer'\n",
        "[server]\nlisten = ':5000'\n[access]\nanonymous = 'writer'\nallow_open = true\n",
        "[server]\nlisten = ':5000'\n[access]\nanonymous = 'reader'\n",
        "[auth]\nchallenge = 'basic'\n",
        "[tls]\nkey = 'k.pem'\ncert = 'c.pem'\n",
        "[server]\nlisten = ['127.0.0.1:0', '127.0.0.1:0']\n",
    ] {
        assert_eq!(Setup::file(text).load().err(), None, "{text}");
    }
}

#[test]
fn passwords_in_the_open_are_warned_about_with_the_cure() {
    let warned = |text: &str| {
        let loaded = Setup::file(text).load().unwrap();
        let mut warnings = loaded.warnings.iter();
        warnings.any(|warning| warning.what == validate::PLAIN_HTTP && warning.help.is_some())
    };
    assert!(warned("[server]\nlisten = ':5000'\n"));
    assert!(!warned(""));
    assert!(!warned(
        "[server]\nlisten = ':5000'\n[tls]\nself_signed = true\n"
    ));
    assert!(!warned(
        "[server]\nlisten = ':5000'\ntrusted_proxies = ['10.0.0.0/8']\n"
    ));
}

#[test]
fn named_files_are_looked_at() {
    let text =
        "[access.htpasswd]\nfile = '/nonexistent/users'\n[tls]\ncert = '/'\nkey = '/dev/null'\n";
    let setup = Setup::file(text);
    let loaded = setup.load().unwrap();
    let problems: Vec<_> = validate::check_files(&loaded.config, &loaded.sources)
        .iter()
        .map(|problem| setup.shorten(&problem.to_string()))
        .collect();
    assert_eq!(
        problems,
        [
            "wharf.toml:4: `tls.cert`: cannot read /: is a directory",
            "wharf.toml:2: `access.htpasswd.file`: cannot read /nonexistent/users: No such file or directory (os \
             error 2)",
        ]
    );
}

#[test]
fn the_printed_defaults_are_the_defaults() {
    let loaded = Setup::file(&render::defaults()).load().unwrap();
    assert_eq!(loaded.config, Config::default());
    // Uncommented, every example is accepted as well, but for those that exclude each other.
    // Directories' examples are words, not one directory: `config/ldap.rs` has some that are.
    let mut directory = false;
    let examples: String = render::defaults()
        .lines()
        .filter(|line| {
            directory = match *line {
                "# [[auth.ldap]]" => true,
                line => directory && !line.starts_with("[") && !line.starts_with("# [["),
            };
            !directory
        })
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.starts_with("[[")
                    || rest
                        .split_once(" = ")
                        .is_some_and(|(key, _)| !key.contains(' ')) =>
            {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let examples = examples
        .replace("on = \"…\"", "on = \"team/a\"")
        .replace("\nname = \"…\"", "\nname = \"corp\"")
        .replace(
            "\nurl = \"…\"",
            "\nurl = \"postgres://wharf@127.0.0.1/wharf\"",
        );
    let loaded = Setup::file(&examples).load().unwrap();
    assert_eq!(loaded.config.access.grants.len(), 1);
    assert_eq!(loaded.config.content.overrides.len(), 1);
    assert_eq!(loaded.config.storage.io_threads, Some(8));
}

#[test]
fn what_is_shown_reads_back_as_the_same() {
    let setup = Setup::file(
        "[server]\nlisten = ':5000'\nexternal_url = 'https://r.example.com'\ntrusted_proxies = ['10.0.0.0/8', 'unix']\n\
         [access]\nadmin_password = 'long enough'\n[[access.grant]]\nwho = 'alice'\nrole = 'writer'\n",
    )
    .flag("server.data", "--data", "/srv/wharf");
    let loaded = setup.load().unwrap();
    let shown = setup.shorten(&render::show(&loaded.config, &loaded.sources));
    for line in [
        "[server]\ndata = \"/srv/wharf\"",
        "# --data\n",
        "# wharf.toml:2\n",
        "# metrics_listen is unset",
        "admin_password = \"(hidden)\"",
        "[[access.grant]]\nwho = \"alice\"    # wharf.toml:7\nrole = \"writer\"  # wharf.toml:7\n# on is unset",
    ] {
        assert!(shown.contains(line), "{line} is missing in:\n{shown}");
    }
    let mut again = Setup::file(&shown).load().unwrap().config;
    again
        .access
        .admin_password
        .clone_from(&loaded.config.access.admin_password);
    assert_eq!(again, loaded.config);
}

#[test]
fn the_reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/configuration.md");
    let page = render::reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == page,
        "docs/reference/configuration.md is stale: run `UPDATE_DOCS=1 cargo test -p wharf --lib reference`"
    );
}

#[test]
fn every_key_is_documented_and_reachable() {
    for (full, key) in keys() {
        assert!(
            key.text().ends_with('.'),
            "{full} is not documented in sentences"
        );
        // By environment, with its example.
        let example = (key.example)();
        let text = example.trim_matches(['[', ']', '"']);
        let setup = Setup::file("").env(&load::variable_of(&full), text);
        match setup.load() {
            Ok(loaded) => assert!(loaded.sources.contains_key(&full), "{full}"),
            Err(problems) => assert!(
                !problems.to_string().contains("expected"),
                "{full}: {problems}"
            ),
        }
    }
}

#[test]
fn a_reload_applies_what_it_can_and_names_the_rest() {
    let setup = Setup::file("[access]\nanonymous = 'none'\n");
    let path = setup.inputs.file.clone().unwrap();
    let loaded = setup.load().unwrap();
    let reloader = reload::Reloader::new(setup.inputs.clone(), &loaded);
    assert!(!reloader.changed());

    let text = "[access]\nanonymous = 'reader'\nadmin_password = 'changed'\n[server]\ndata = 'elsewhere'\n\
                [[access.grant]]\nwho = 'alice'\nrole = 'writer'\n";
    std::fs::write(&path, text).unwrap();
    assert!(reloader.changed());
    assert!(!reloader.changed());
    let done = reloader.reload().unwrap();
    let paths = |changes: &[reload::Change]| {
        changes
            .iter()
            .map(|change| change.path.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(paths(&done.applied), ["access.anonymous", "access.grant"]);
    assert_eq!(
        paths(&done.waiting),
        ["server.data", "access.admin_password"]
    );
    assert_eq!(
        (done.applied[0].from.as_str(), done.applied[0].to.as_str()),
        ("\"none\"", "\"reader\"")
    );
    assert!(!format!("{done:?}").contains("changed\""));
    let current = reloader.current();
    assert_eq!(current.access.anonymous, AnonymousRole::Reader);
    assert_eq!(current.access.grants.len(), 1);
    assert_eq!(
        current.server.data,
        Path::new("./wharf-data"),
        "the folder stays until a restart"
    );

    std::fs::write(&path, "[access]\nanonymous = 'redaer'\n").unwrap();
    let error = reloader.reload().unwrap_err().to_string();
    assert!(error.contains("did you mean \"reader\"?"), "{error}");
    assert_eq!(reloader.current().access.anonymous, AnonymousRole::Reader);
}

#[test]
fn a_reload_never_opens_the_registry_on_addresses_that_stay() {
    let setup = Setup::file("[server]\nlisten = ':5000'\n");
    let loaded = setup.load().unwrap();
    let reloader = reload::Reloader::new(setup.inputs.clone(), &loaded);
    // Fine after a restart, but now the old address is still open to everybody.
    std::fs::write(
        setup.inputs.file.as_ref().unwrap(),
        "[access]\nanonymous = 'writer'\n",
    )
    .unwrap();
    let error = reloader.reload().unwrap_err().to_string();
    assert!(error.contains("beyond this machine is refused"), "{error}");
    assert_eq!(reloader.current().access.anonymous, AnonymousRole::None);
}

/// All keys outside of lists, with their paths.
fn keys() -> Vec<(String, &'static section::Key)> {
    let mut keys = Vec::new();
    Config::OUTLINE.walk("", &mut |path, outline| {
        keys.extend(
            outline
                .keys
                .iter()
                .map(|key| (section::join(path, key.name), key)),
        );
    });
    keys
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// An unknown key is reported with its own line, wherever it stands.
    #[test]
    fn unknown_keys_are_found_on_their_line(before in 0_usize..40, name in "[a-z]{12,16}", after in 0_usize..5) {
        let text = format!("{}[log]\n{name} = 1\n{}", "# padding\n".repeat(before), "\n".repeat(after));
        let error = Setup::file(&text).errors();
        let expected = format!("wharf.toml:{}: unknown key `log.{name}`\n", before + 2);
        prop_assert!(error.starts_with(&expected), "{error}");
    }

    /// Any text at all is either a configuration or errors that name a line inside of it.
    #[test]
    fn no_text_panics(
        text in "(\\[\\[?[a-z.]{0,12}\\]?\\]?|[a-z_.]{1,10} ?=? ?[a-z0-9\"'\\[\\]{},]{0,12}|[^\u{0}]{0,6}|\n){0,12}",
    ) {
        if let Err(Problems(problems)) = Setup::file(&text).load() {
            let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
            for problem in problems {
                if let Source::File { line, .. } = problem.at {
                    prop_assert!((1..=lines).contains(&line), "{line} of {lines}: {text:?}");
                }
            }
        }
    }

    /// A value means the same in a file and in the environment, and the environment wins.
    #[test]
    fn the_environment_overlays_the_file(
        seconds in 60_u64..100_000, mebibytes in 1_u64..64, switch in any::<bool>(), below in any::<bool>(),
    ) {
        let file = format!(
            "[auth]\npush_token_lifetime = '{seconds}s'\ntoken_lifetime = '60s'\n\
             [limits]\nmanifest_size = '{mebibytes}MiB'\n[content]\ncheck_sizes = {switch}\n"
        );
        let in_file = Setup::file(&file).load().unwrap().config;
        let other = "[auth]\npush_token_lifetime = '1h'\n[content]\ncheck_sizes = true\n";
        let in_env = Setup::file(if below { other } else { "" })
            .env("WHARF__AUTH__PUSH_TOKEN_LIFETIME", &format!("{seconds}s"))
            .env("WHARF__AUTH__TOKEN_LIFETIME", "60s")
            .env("WHARF__LIMITS__MANIFEST_SIZE", &format!("{mebibytes}MiB"))
            .env("WHARF__CONTENT__CHECK_SIZES", &switch.to_string())
            .load()
            .unwrap()
            .config;
        prop_assert_eq!(in_file, in_env);
    }

    /// Any key can be set to any text by environment without a panic; an error names the variable.
    #[test]
    fn errors_of_variables_name_them(which in any::<prop::sample::Index>(), text in "\\PC{0,12}") {
        let keys = keys();
        let (path, _) = &keys[which.index(keys.len())];
        let name = load::variable_of(path);
        if let Err(Problems(problems)) = Setup::file("").env(&name, &text).load() {
            for problem in problems {
                prop_assert!(problem.at == Source::Env(name.clone()) || problem.at == Source::Default, "{problem}");
            }
        }
    }

    /// Durations and sizes survive being printed.
    #[test]
    fn printed_values_read_back(number in 0_u64..(1 << 40)) {
        let duration = Duration::from_millis(number);
        let text = value::Value::to_toml(&duration).unwrap();
        prop_assert_eq!(<Duration as value::Value>::parse(text.trim_matches('"')), Ok(duration));
        let size = Size(number);
        prop_assert_eq!(<Size as value::Value>::parse(&size.to_string()), Ok(size));
    }
}

#[test]
fn setting_an_unknown_key_is_an_error_and_not_a_panic() {
    let mut config = Config::default();
    assert!(config.set("nothing", &value::Input::Text("x")).is_err());
    assert_eq!(config.get("nothing"), None);
    assert!(config.section("nothing").is_none() && config.push("nothing").is_none());
}
