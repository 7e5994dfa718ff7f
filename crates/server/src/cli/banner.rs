//! What a start says: where the data lies, at which addresses the registry answers, and how to log in.
//!
//! On a terminal it is a block of text on standard output. Otherwise each fact is a line of the log, and no password is
//! among them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use wharf_core::access::Password;
use wharf_meta::Opened;
use wharf_meta::repository::Totals;

use super::human::{bytes, count};
use crate::config::Config;
use crate::http::listener::BoundAddr;

/// How the administrator's password can be known.
#[derive(Debug)]
pub(super) enum AdminPassword {
    /// Made now, shown only now.
    Shown(Password),
    /// Made now or at an earlier start, in this file.
    Written(PathBuf),
    /// Made now, chosen by configuration.
    Chosen,
    /// From an earlier start.
    Known,
}

/// Everything that a start says.
#[derive(Debug)]
pub(super) struct Banner<'a> {
    pub(super) folder: &'a Path,
    pub(super) opened: &'a Opened,
    pub(super) totals: Totals,
    pub(super) addresses: &'a [BoundAddr],
    pub(super) metrics: &'a [BoundAddr],
    pub(super) tls: bool,
    /// The self-signed authority: its file and its fingerprint.
    pub(super) authority: Option<(PathBuf, String)>,
    /// Host as clients name it, or `None` when only Unix sockets are listened on.
    pub(super) host: Option<String>,
    pub(super) password: AdminPassword,
}

impl Banner<'_> {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut out = format!("Wharf {} is running.\n\n", env!("CARGO_PKG_VERSION"));
        let mut line = |name: &str, text: &str| {
            let _ = writeln!(out, "  {name:<10}{text}");
        };
        line(
            "data",
            &format!("{} ({})", self.folder.display(), self.content()),
        );
        for address in self.addresses {
            line("address", &self.url(address));
        }
        for address in self.metrics {
            line("metrics", &format!("http://{address}/metrics"));
        }
        if let Some((file, fingerprint)) = &self.authority {
            line("authority", &file.display().to_string());
            line("SHA-256", fingerprint);
        }
        line("user", "admin");
        line("password", &self.password_text());
        if let Some(login) = self.login() {
            let _ = write!(out, "\nLog in:\n  {login}\n");
        }
        if let (Some(host), Some(_)) = (&self.host, &self.authority) {
            let _ = write!(
                out,
                "\nWhat clients need to trust the certificate:\n  wharf trust docker|containerd|podman {host}\n"
            );
        }
        if let Some(first) = self.addresses.first().filter(|_| self.host.is_some()) {
            let _ = write!(
                out,
                "\nHow to push and pull: {}/   Stop: Ctrl-C\n",
                self.url(first)
            );
        }
        out
    }

    /// For logs.
    pub(super) fn log(&self) {
        let addresses: Vec<_> = self
            .addresses
            .iter()
            .map(|address| self.url(address))
            .collect();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            data = %self.folder.display(),
            content = self.content(),
            addresses = addresses.join(" "),
            "Wharf is running"
        );
        if let Some((file, fingerprint)) = &self.authority {
            tracing::info!(file = %file.display(), sha256 = fingerprint, "self-signed: clients must trust this authority");
        }
        if let Some(login) = self.login() {
            tracing::info!(
                command = login,
                password = self.password_place(),
                "how to log in"
            );
        }
    }

    fn content(&self) -> String {
        if self.opened.fresh {
            return "new".to_owned();
        }
        let totals = &self.totals;
        let mut text = format!(
            "{}, {}, {}, {} in {}",
            count(totals.repositories, "repository"),
            count(totals.tags, "tag"),
            count(totals.manifests, "manifest"),
            count(totals.blobs, "blob"),
            bytes(totals.blob_bytes)
        );
        if totals.uploads > 0 {
            let _ = write!(text, ", {} to be resumed", count(totals.uploads, "upload"));
        }
        if let Some(from) = self.opened.migrated_from {
            let _ = write!(text, "; migrated from schema {from}");
        }
        text
    }

    fn url(&self, address: &BoundAddr) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        match address {
            BoundAddr::Tcp(address) => format!("{scheme}://{address}"),
            BoundAddr::Unix(_) => address.to_string(),
        }
    }

    fn login(&self) -> Option<String> {
        self.host
            .as_ref()
            .map(|host| format!("docker login {host} -u admin"))
    }

    fn password_text(&self) -> String {
        match &self.password {
            AdminPassword::Shown(password) => {
                format!("{}   (shown only now: keep it)", password.reveal())
            }
            AdminPassword::Written(file) => format!("in the file {}", file.display()),
            AdminPassword::Chosen => "as you chose it".to_owned(),
            AdminPassword::Known => "as before; forgotten? wharf admin reset-password".to_owned(),
        }
    }

    /// Where the password is, never what it is.
    fn password_place(&self) -> String {
        match &self.password {
            AdminPassword::Shown(_) => "shown on the terminal".to_owned(),
            _ => self.password_text(),
        }
    }
}

/// The host in `docker login`: that of `external_url`, or the first address that can be named.
pub(super) fn login_host(
    config: &Config,
    addresses: &[BoundAddr],
    tls: bool,
    machine: Option<&str>,
) -> Option<String> {
    if let Some(url) = &config.server.external_url {
        return Some(url.authority.clone());
    }
    let address = addresses.iter().find_map(BoundAddr::tcp)?;
    if !address.ip().is_unspecified() {
        return Some(address.to_string());
    }
    // Docker takes plain HTTP from its own machine only; certificates are made out to names.
    match machine.filter(|_| tls) {
        Some(machine) => Some(format!("{machine}:{}", address.port())),
        None => Some(format!("127.0.0.1:{}", address.port())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner<'a>(
        opened: &'a Opened,
        addresses: &'a [BoundAddr],
        password: AdminPassword,
    ) -> Banner<'a> {
        Banner {
            folder: Path::new("/srv/wharf"),
            opened,
            totals: Totals {
                repositories: 1,
                tags: 2,
                manifests: 3,
                blobs: 4,
                blob_bytes: 5 << 20,
                ..Totals::default()
            },
            addresses,
            metrics: &[],
            tls: false,
            authority: None,
            host: login_host(&Config::default(), addresses, false, None),
            password,
        }
    }

    #[test]
    fn a_first_start_tells_everything_needed() {
        let opened = Opened {
            fresh: true,
            migrated_from: None,
        };
        let addresses = [BoundAddr::Tcp("127.0.0.1:5000".parse().unwrap())];
        let text = banner(
            &opened,
            &addresses,
            AdminPassword::Shown(Password::new("pass-word")),
        )
        .text();
        assert_eq!(
            text,
            format!(
                "Wharf {} is running.\n\n  data      /srv/wharf (new)\n  address   http://127.0.0.1:5000\n  \
                 user      admin\n  password  pass-word   (shown only now: keep it)\n\nLog in:\n  docker login \
                 127.0.0.1:5000 -u admin\n\nHow to push and pull: http://127.0.0.1:5000/   Stop: Ctrl-C\n",
                env!("CARGO_PKG_VERSION")
            )
        );
    }

    #[test]
    fn a_later_start_says_how_much_there_is() {
        let opened = Opened {
            fresh: false,
            migrated_from: Some(1),
        };
        let addresses = [BoundAddr::Unix("/run/w.sock".into())];
        let text = banner(&opened, &addresses, AdminPassword::Known).text();
        let content =
            "(1 repository, 2 tags, 3 manifests, 4 blobs in 5.0 MiB; migrated from schema 1)";
        assert!(text.contains(content), "{text}");
        assert!(
            text.contains("unix:/run/w.sock") && !text.contains("docker login"),
            "{text}"
        );
        assert!(text.contains("wharf admin reset-password"), "{text}");
    }

    #[test]
    fn log_lines_never_hold_the_password() {
        let opened = Opened {
            fresh: true,
            migrated_from: None,
        };
        let banner = banner(
            &opened,
            &[],
            AdminPassword::Shown(Password::new("pass-word")),
        );
        assert!(!banner.password_place().contains("pass-word"));
    }

    #[test]
    fn the_login_line_names_a_host_that_works() {
        let tcp = |text: &str| BoundAddr::Tcp(text.parse().unwrap());
        let mut config = Config::default();
        let host = |config: &Config, address, tls| {
            login_host(config, &[address], tls, Some("dock")).unwrap()
        };
        assert_eq!(host(&config, tcp("10.0.0.1:5000"), false), "10.0.0.1:5000");
        assert_eq!(host(&config, tcp("[::1]:5000"), false), "[::1]:5000");
        assert_eq!(host(&config, tcp("[::]:5000"), false), "127.0.0.1:5000");
        assert_eq!(host(&config, tcp("[::]:5000"), true), "dock:5000");
        config.server.external_url = Some(crate::config::ExternalUrl {
            secure: true,
            authority: "r.example.com".into(),
        });
        assert_eq!(host(&config, tcp("[::]:5000"), true), "r.example.com");
        assert_eq!(
            login_host(
                &Config::default(),
                &[BoundAddr::Unix("/x".into())],
                false,
                None
            ),
            None
        );
    }
}
