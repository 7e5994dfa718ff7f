//! `--tls-self-signed`: a certificate for laboratories, and a small authority behind it.
//!
//! Clients are told to trust the authority, once; the server's certificate can then be made anew (other names, another
//! year) without going round all clients again. Both live in a folder of the data folder. Never for the open net: the
//! authority's key lies beside the server.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{TlsError, fingerprint, read};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Apple's clients refuse longer ones.
const LIFE: Duration = DAY.saturating_mul(825);
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);
/// Age from which the next start makes a new one.
const RENEW: Duration = DAY.saturating_mul(365);

/// Where the made files are, and how to recognise them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfSigned {
    /// The server's certificate with the authority's, PEM.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority's certificate: what clients must trust.
    pub authority: PathBuf,
    /// SHA-256 of the server's certificate.
    pub fingerprint: String,
    /// SHA-256 of the authority's certificate.
    pub authority_fingerprint: String,
}

impl SelfSigned {
    /// Makes what is missing in `dir`: the authority once, the certificate when `hosts` (names and addresses) changed
    /// or a year is over at `now`.
    pub fn ensure(dir: &Path, hosts: &[String], now: SystemTime) -> Result<Self, TlsError> {
        std::fs::create_dir_all(dir).map_err(|source| TlsError::File {
            verb: "create",
            path: dir.to_owned(),
            source,
        })?;
        let file = |name: &str| dir.join(name);
        let (ca_key, ca_cert) = (file("authority-key.pem"), file("authority.pem"));
        if !(ca_key.exists() && ca_cert.exists()) {
            let key = KeyPair::generate()?;
            let cert = authority(&key, now).self_signed(&key)?;
            write(&ca_key, &key.serialize_pem(), 0o600)?;
            write(&ca_cert, &cert.pem(), 0o644)?;
            // A certificate of an authority that is gone is of no use.
            let _ = std::fs::remove_file(file("names"));
        }
        let (cert, key, names) = (file("cert.pem"), file("key.pem"), file("names"));
        let wanted = hosts.join("\n");
        if !is_current(&names, &wanted, now) || !cert.exists() || !key.exists() {
            let ca = KeyPair::from_pem(&String::from_utf8_lossy(&read(&ca_key)?))?;
            let params = authority(&ca, now);
            let issuer = Issuer::from_params(&params, &ca);
            let own = KeyPair::generate()?;
            let made = server(hosts, now)?.signed_by(&own, &issuer)?;
            let chain = format!(
                "{}{}",
                made.pem(),
                String::from_utf8_lossy(&read(&ca_cert)?)
            );
            write(&key, &own.serialize_pem(), 0o600)?;
            write(&cert, &chain, 0o644)?;
            write(&names, &wanted, 0o644)?;
        }
        Ok(Self {
            fingerprint: print_of(&cert)?,
            authority_fingerprint: print_of(&ca_cert)?,
            cert,
            key,
            authority: ca_cert,
        })
    }
}

fn is_current(names: &Path, wanted: &str, now: SystemTime) -> bool {
    let made = names.metadata().and_then(|meta| meta.modified());
    let young = made.is_ok_and(|made| {
        now.duration_since(made)
            .is_ok_and(|age| age < RENEW)
            // A clock that was set back says nothing about age.
            || made > now
    });
    young && std::fs::read(names).is_ok_and(|text| text == wanted.as_bytes())
}

fn print_of(path: &Path) -> Result<String, TlsError> {
    let cert = CertificateDer::from_pem_slice(&read(path)?).map_err(|_| TlsError::Content {
        path: path.to_owned(),
        expected: "certificate",
        hint: "; delete it, and the next start makes a new one",
    })?;
    Ok(fingerprint(&cert))
}

/// The same key gives the same name and key identifier, so the stored certificate stays the issuer of later ones.
fn authority(key: &KeyPair, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let id = params.key_identifier(key);
    let short: String = id
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    params.distinguished_name = name(&format!("Wharf self-signed authority {short}"));
    validity(&mut params, now, AUTHORITY_LIFE);
    params
}

fn server(hosts: &[String], now: SystemTime) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(hosts.to_vec())?;
    params.distinguished_name = name(hosts.first().map_or("wharf", String::as_str));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, now, LIFE);
    Ok(params)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn validity(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let since_epoch = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    // A day back, for clients whose clocks are slow.
    let from = date_time_ymd(1970, 1, 1) + since_epoch.saturating_sub(DAY);
    params.not_before = from;
    params.not_after = from + life;
}

/// Whole or not at all, and never readable by others when it must not be.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let new = path.with_extension("new");
    let result = (|| {
        let _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        // In the order in which they are written: after a power cut a certificate without its key would stop the start.
        match path.parent() {
            Some(folder) => std::fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    })();
    result.map_err(|source| TlsError::File {
        verb: "write",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn hosts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_restart_keeps_it_and_new_names_keep_the_authority() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let names = hosts(&["localhost", "127.0.0.1", "::1"]);
        let first = SelfSigned::ensure(dir.path(), &names, now).unwrap();
        assert_eq!(SelfSigned::ensure(dir.path(), &names, now).unwrap(), first);
        assert_eq!(first.fingerprint.len(), 32 * 3 - 1);

        let more = hosts(&["localhost", "reg.example"]);
        let second = SelfSigned::ensure(dir.path(), &more, now).unwrap();
        assert_ne!(second.fingerprint, first.fingerprint);
        assert_eq!(second.authority_fingerprint, first.authority_fingerprint);

        let later = SelfSigned::ensure(dir.path(), &more, now + RENEW + DAY).unwrap();
        assert_ne!(later.fingerprint, second.fingerprint);
        assert_eq!(later.authority_fingerprint, first.authority_fingerprint);
    }

    #[test]
    fn keys_are_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let made =
            SelfSigned::ensure(dir.path(), &hosts(&["localhost"]), SystemTime::now()).unwrap();
        for key in [made.key, dir.path().join("authority-key.pem")] {
            let mode = key.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", key.display());
        }
    }
}
