//! Two real slapd with the same people: TLS both ways, groups inside groups, one of them gone, and clients that sign in with a
//! directory's password.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use wharf_meta::test_server::free_port;

use super::Outside;
use crate::e2e::process::Daemon;
use crate::e2e::site::certificates;
use crate::e2e::{Step, noise};
use crate::run;

const PEOPLE: &str = "\
dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: ou=people,dc=example,dc=com
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=com
objectClass: organizationalUnit
ou: groups

dn: cn=search,dc=example,dc=com
objectClass: applicationProcess
objectClass: simpleSecurityObject
cn: search
userPassword: search-password

dn: uid=ada,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: ada
cn: Ada
sn: Lovelace
userPassword: ada-password
entryUUID: 2f0a6a52-7c1c-4c36-9d5e-0d5a8f7a1001

dn: uid=grace,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: grace
cn: Grace
sn: Hopper
userPassword: grace-password
entryUUID: 2f0a6a52-7c1c-4c36-9d5e-0d5a8f7a1002

dn: cn=developers,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: developers
member: uid=ada,ou=people,dc=example,dc=com

dn: cn=staff,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: staff
member: cn=developers,ou=groups,dc=example,dc=com
";

/// A running slapd.
struct Slapd {
    plain: u16,
    tls: u16,
    daemon: Daemon,
}

impl Slapd {
    /// Starts one with the people above, who prove themselves to nobody without TLS.
    fn start(dir: &Path, certificates: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir.join("db"))?;
        let (plain, tls) = (free_port(), free_port());
        let (at, from) = (dir.display(), certificates.display());
        let schemas = ["core", "cosine", "inetorgperson"];
        let schemas = schemas.map(|name| format!("include /etc/ldap/schema/{name}.schema\n"));
        let config = format!(
            "{}modulepath /usr/lib/ldap\nmoduleload back_mdb\nmoduleload memberof\npidfile {at}/pid\n\
             TLSCACertificateFile {from}/ca/ca.crt\nTLSCertificateFile {from}/tls.crt\nTLSCertificateKeyFile {from}/tls.key\n\
             security simple_bind=128\ndisallow bind_anon\n\
             access to attrs=userPassword by anonymous auth by * none\naccess to * by users read by * none\n\
             database mdb\nsuffix \"dc=example,dc=com\"\nrootdn \"cn=root,dc=example,dc=com\"\nrootpw root-password\n\
             directory {at}/db\noverlay memberof\n",
            schemas.concat()
        );
        let file = dir.join("slapd.conf");
        std::fs::write(&file, config)?;
        let program = run::find("slapd").context("no slapd: cargo xtask clients slapd")?;
        let urls = format!("ldap://127.0.0.1:{plain} ldaps://127.0.0.1:{tls}");
        let mut command = Command::new(program);
        command.arg("-f").arg(&file).args(["-h", &urls, "-d", "0"]);
        let mut daemon = Daemon::start("slapd", &mut command, &dir.join("slapd.log"))?;
        let open = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        daemon.wait_until(|| open(plain) && open(tls))?;
        let slapd = Self { plain, tls, daemon };
        std::fs::write(dir.join("people.ldif"), PEOPLE)?;
        // So that both servers know people by the same ids.
        slapd.change(
            "ldapadd",
            &["-e", "relax", "-f"],
            &dir.join("people.ldif"),
            certificates,
        )?;
        Ok(slapd)
    }

    fn change(
        &self,
        program: &str,
        words: &[&str],
        file: &Path,
        certificates: &Path,
    ) -> Result<()> {
        let url = format!("ldaps://localhost:{}", self.tls);
        let program =
            run::find(program).with_context(|| format!("no {program}: cargo xtask clients"))?;
        let mut command = Command::new(program);
        command
            .args([
                "-x",
                "-H",
                &url,
                "-D",
                "cn=root,dc=example,dc=com",
                "-w",
                "root-password",
            ])
            .args(words)
            .arg(file)
            .env("LDAPTLS_CACERT", certificates.join("ca/ca.crt"));
        run::read(&mut command).map(drop)
    }
}

/// A configuration that asks these servers.
fn config(urls: &[String], certificates: &Path, more: &str) -> String {
    format!(
        "[[auth.ldap]]\nname = \"corp\"\nurls = {urls:?}\nca_file = \"{}/ca/ca.crt\"\n\
         search_dn = \"cn=search,dc=example,dc=com\"\nsearch_password = \"search-password\"\n\
         base_dn = \"ou=people,dc=example,dc=com\"\nfilter = \"(objectClass=inetOrgPerson)\"\n\
         group_base_dn = \"ou=groups,dc=example,dc=com\"\nconnect_timeout = \"2s\"\n{more}\n",
        certificates.display()
    )
}

const SEARCHED: &str = "group_member_attribute = \"member\"\nnested = \"walk\"\n";
const NAMED: &str = "member_of = \"memberOf\"\nnested = \"walk\"\n";

/// Runs `wharf ldap check` with a password; gives whether it ended well, and all that it told.
fn check(
    step: &mut Step,
    wharf: &str,
    config: &str,
    user: &str,
    password: &str,
) -> Result<(bool, String)> {
    let file = step.write("run/wharf.toml", config)?;
    let password = step.write("run/password", password)?;
    // A step's commands have nothing to read by themselves.
    let words = [
        "-c",
        "exec \"$@\" < \"$0\"",
        &password,
        wharf,
        "ldap",
        "check",
        user,
        "--password-stdin",
        "--config",
        &file,
    ];
    let ended = step.any("sh", words)?;
    Ok((ended.code == Some(0), ended.out + &ended.err))
}

pub(super) fn run(outside: &mut Outside) -> Result<()> {
    let dir = outside.dir.join("ldap");
    std::fs::create_dir_all(&dir)?;
    certificates(&dir)?;
    let mut first = Slapd::start(&dir.join("first"), &dir)?;
    let second = Slapd::start(&dir.join("second"), &dir)?;
    let wharf = outside.wharf.clone();
    let tls = |slapd: &Slapd| format!("ldaps://localhost:{}", slapd.tls);
    let plain = |slapd: &Slapd| format!("ldap://localhost:{}", slapd.plain);
    for (name, url, more) in [
        (
            "LDAPS, groups by their members",
            tls(&first),
            SEARCHED.to_owned(),
        ),
        (
            "StartTLS, groups by memberOf",
            plain(&first),
            format!("start_tls = true\n{NAMED}"),
        ),
    ] {
        let config = config(&[url], &dir, &more);
        outside.step(name, |step| {
            let (good, told) = check(step, &wharf, &config, "ADA", "ada-password")?;
            ensure!(
                good && told.contains("groups that count: developers, staff"),
                "{told}"
            );
            ensure!(told.contains("entryuuid:2f0a6a52"), "{told}");
            let (good, told) = check(step, &wharf, &config, "ada", "wrong-password")?;
            ensure!(!good && told.contains("invalidCredentials (49)"), "{told}");
            ensure!(
                !told.contains("wrong-password") && !told.contains("search-password"),
                "{told}"
            );
            let (good, told) = check(step, &wharf, &config, "nobody", "ada-password")?;
            ensure!(!good && told.contains("no entry has this name"), "{told}");
            Ok(())
        });
    }
    outside.step("without TLS nobody proves anything", |step| {
        let config = config(
            &[format!("ldap://127.0.0.1:{}", first.plain)],
            &dir,
            SEARCHED,
        );
        let (good, told) = check(step, &wharf, &config, "ada", "ada-password")?;
        ensure!(!good && told.contains("start_tls = true"), "{told}");
        Ok(())
    });
    let both = config(&[tls(&first), tls(&second)], &dir, SEARCHED);
    outside.step("config check --online asks both", |step| {
        let file = step.write("run/wharf.toml", &both)?;
        let told = step.ok(&wharf, ["config", "check", "--online", "--config", &file])?;
        ensure!(
            told.matches("can be searched at ldaps://").count() == 2,
            "{told}"
        );
        Ok(())
    });
    let registry = outside.registry("ldap-registry", &both)?;
    outside.step("rights of a directory's group", |step| {
        let at = ["--data", registry.data.as_str()];
        for words in [
            vec!["group", "create", "builders"],
            vec!["group", "add", "builders", "--from", "corp:staff"],
            vec!["grant", "group:builders", "writer", "on", "team/a"],
        ] {
            step.ok(&wharf, words.into_iter().chain(at))?;
        }
        let file = step.write("run/wharf.toml", &both)?;
        let told = step.ok(
            &wharf,
            ["ldap", "check", "ada", "--config", &file]
                .into_iter()
                .chain(at),
        )?;
        ensure!(
            told.contains("corp:staff leads to group:builders here, which has writer on team/a"),
            "{told}"
        );
        Ok(())
    });
    let sign_in = |step: &mut Step, user: &str, password: &str| {
        let words = [
            "login",
            "--tls-verify=false",
            "-u",
            user,
            "-p",
            password,
            registry.address.as_str(),
        ];
        step.ok("skopeo", words)
    };
    outside.step("skopeo signs in and crane pushes", |step| {
        sign_in(step, "ada", "ada-password")?;
        ensure!(
            sign_in(step, "ada", "wrong-password").is_err(),
            "a wrong password was taken"
        );
        step.ok(
            "crane",
            [
                "auth",
                "login",
                registry.address.as_str(),
                "-u",
                "ada",
                "-p",
                "ada-password",
            ],
        )?;
        let file = step.path("run/layer");
        noise(&file, 5_000, 7)?;
        let tar = step.file("run/layer.tar");
        step.ok("tar", ["-cf", &tar, "-C", &step.file("run"), "layer"])?;
        let image = format!("{}/team/a/app:1", registry.address);
        step.ok("crane", ["append", "-f", &tar, "-t", &image])?;
        step.ok("crane", ["digest", &image])?;
        step.ok(
            "crane",
            [
                "auth",
                "login",
                registry.address.as_str(),
                "-u",
                "grace",
                "-p",
                "grace-password",
            ],
        )?;
        ensure!(
            step.ok("crane", ["digest", &image]).is_err(),
            "who is in no group may pull"
        );
        Ok(())
    });
    first.daemon.kill();
    outside.step("one server is gone", |step| {
        sign_in(step, "grace", "grace-password").map(drop)
    });
    let mut second = second;
    second.daemon.kill();
    outside.step("both are gone", |step| {
        // What was right a moment ago is remembered; another password is not looked at, and that is said.
        let refused =
            sign_in(step, "ada", "another-password").map_err(|error| format!("{error:#}"));
        ensure!(
            matches!(&refused, Err(text) if !text.contains("wrong")),
            "{refused:?}"
        );
        sign_in(step, "admin", "admin-password").map(drop)
    });
    Ok(())
}
