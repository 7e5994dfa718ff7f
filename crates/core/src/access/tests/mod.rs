//! What the tests of access share: a store in memory that counts, can fail, and a registry with a few users.

mod attacks;
mod cost;
mod duties;
mod endpoint;
mod follow;
mod keys;
mod model;
mod rights;
mod sign_in;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::store::{
    BoxFuture, CredentialRow, CredentialRows, PrincipalRow, RefreshTokenRow, Secrets,
    SigningKeyRow, TerminalRow, TerminalRows,
};
use super::*;
use crate::{Error, Result};
use wharf_oci::{Authorization, Scope};

/// 2026-11-21, in ms.
pub(super) const NOW: i64 = 1_795_219_200_000;
pub(super) const MINUTE: i64 = 60_000;
pub(super) const HOUR: i64 = 60 * MINUTE;

#[derive(Default)]
pub(super) struct Memory {
    pub(super) principals: Mutex<BTreeMap<String, String>>,
    pub(super) keys: Mutex<Vec<SigningKeyRow>>,
    pub(super) refresh: Mutex<BTreeMap<Vec<u8>, RefreshTokenRow>>,
    pub(super) calls: AtomicU64,
    pub(super) broken: AtomicBool,
    /// Reads go on, writes do not.
    pub(super) full: AtomicBool,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

impl Memory {
    /// An answer to a write.
    fn keep<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&Self) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        if self.full.load(Ordering::SeqCst) {
            return Box::pin(async { Err(Error::NoSpace) });
        }
        self.answer(work)
    }

    fn answer<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&Self) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            if self.broken.load(Ordering::SeqCst) {
                return Err(Error::Internal("the store is broken".into()));
            }
            let found = work(self);
            // As over a network: the answer is on its way for a moment, and others run meanwhile.
            tokio::task::yield_now().await;
            Ok(found)
        })
    }
}

/// The tests of credentials use a real store.
impl CredentialRows for Memory {
    fn credential_by_hash(&self, _: [u8; 32]) -> BoxFuture<'_, Result<Option<CredentialRow>>> {
        self.answer(|_| None)
    }

    fn credential_by_id<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<CredentialRow>>> {
        self.answer(|_| None)
    }

    fn note_use(&self, _: String, _: i64, _: String) -> BoxFuture<'_, Result<()>> {
        self.keep(|_| ())
    }

    fn forget_credentials(&self, _: i64) -> BoxFuture<'_, Result<u32>> {
        self.answer(|_| 0)
    }
}

impl TerminalRows for Memory {
    fn terminal<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<TerminalRow>>> {
        self.answer(|_| None)
    }

    fn note_terminal(&self, _: String, _: i64, _: String) -> BoxFuture<'_, Result<()>> {
        self.keep(|_| ())
    }
}

impl Secrets for Memory {
    fn is_shared(&self) -> bool {
        false
    }

    fn principal<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<PrincipalRow>>> {
        self.answer(move |memory| {
            let hash = memory.principals.lock().unwrap().get(name).cloned();
            hash.map(|hash| PrincipalRow {
                name: name.into(),
                kind: "user".into(),
                secret_hash: Some(hash),
                created_at: NOW,
                changed_at: NOW,
                disabled_at: None,
                expires_at: None,
                networks: String::new(),
                created_by: String::new(),
            })
        })
    }

    fn create_principal<'a>(
        &'a self,
        name: &'a str,
        hash: &'a str,
        _: i64,
    ) -> BoxFuture<'a, Result<bool>> {
        self.answer(move |memory| {
            let mut principals = memory.principals.lock().unwrap();
            let free = !principals.contains_key(name);
            if free {
                principals.insert(name.into(), hash.into());
            }
            free
        })
    }

    fn set_secret<'a>(
        &'a self,
        name: &'a str,
        hash: &'a str,
        _: i64,
    ) -> BoxFuture<'a, Result<bool>> {
        self.answer(move |memory| {
            let mut principals = memory.principals.lock().unwrap();
            principals
                .get_mut(name)
                .map(|held| *held = hash.into())
                .is_some()
        })
    }

    fn let_in<'a>(&'a self, _: &'a str, _: i64) -> BoxFuture<'a, Result<()>> {
        self.answer(|_| ())
    }

    fn signing_keys(&self) -> BoxFuture<'_, Result<Vec<SigningKeyRow>>> {
        self.answer(|memory| memory.keys.lock().unwrap().clone())
    }

    fn add_signing_key(&self, key: SigningKeyRow) -> BoxFuture<'_, Result<()>> {
        self.keep(move |memory| memory.keys.lock().unwrap().push(key))
    }

    fn forget_signing_keys(&self, retired_before: i64) -> BoxFuture<'_, Result<()>> {
        self.keep(move |memory| {
            let old = |key: &SigningKeyRow| key.retired_at.is_some_and(|at| at < retired_before);
            memory.keys.lock().unwrap().retain(|key| !old(key));
        })
    }

    fn retire_signing_key<'a>(&'a self, kid: &'a str, at: i64) -> BoxFuture<'a, Result<()>> {
        self.answer(move |memory| {
            let mut keys = memory.keys.lock().unwrap();
            keys.iter_mut()
                .filter(|key| key.kid == kid)
                .for_each(|key| key.retired_at = Some(at));
        })
    }

    fn create_refresh_token(
        &self,
        hash: Vec<u8>,
        token: RefreshTokenRow,
    ) -> BoxFuture<'_, Result<()>> {
        self.keep(move |memory| {
            memory.refresh.lock().unwrap().insert(hash, token);
        })
    }

    fn refresh_token(&self, hash: Vec<u8>) -> BoxFuture<'_, Result<Option<RefreshTokenRow>>> {
        self.answer(move |memory| memory.refresh.lock().unwrap().get(&hash).cloned())
    }

    fn delete_refresh_token(&self, hash: Vec<u8>) -> BoxFuture<'_, Result<()>> {
        self.answer(move |memory| {
            memory.refresh.lock().unwrap().remove(&hash);
        })
    }
}

/// A registry of access with `admin` (password "administrator at home") and, in the htpasswd file, `alice` ("wonderland") and
/// `bob` ("builder").
pub(super) struct Fixture {
    pub(super) access: Arc<Access>,
    pub(super) memory: Arc<Memory>,
    pub(super) folder: tempfile::TempDir,
}

pub(super) fn line(name: &str, password: &str) -> String {
    format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap())
}

impl Fixture {
    pub(super) async fn new(change: impl FnOnce(&mut AccessOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("htpasswd");
        std::fs::write(&file, line("alice", "wonderland") + &line("bob", "builder")).unwrap();
        let mut options = AccessOptions {
            htpasswd: Some(file),
            ..AccessOptions::default()
        };
        change(&mut options);
        let memory = Arc::new(Memory::default());
        let access = Arc::new(
            Access::with_secrets(options, SecretKeys::of_tests(), memory.clone(), NOW)
                .await
                .unwrap(),
        );
        let fixture = Self {
            access,
            memory,
            folder,
        };
        let chosen = Password::new("administrator at home");
        let made = fixture
            .access
            .bootstrap_admin(Some(chosen.clone()), NOW)
            .await
            .unwrap();
        assert_eq!(made, Bootstrap::Created(chosen));
        fixture
    }

    pub(super) async fn plain() -> Self {
        Self::new(|_| {}).await
    }

    pub(super) fn file(&self) -> PathBuf {
        Path::new(self.folder.path()).join("htpasswd")
    }

    pub(super) fn calls(&self) -> u64 {
        self.memory.calls.load(Ordering::SeqCst)
    }

    pub(super) async fn basic(
        &self,
        user: &str,
        password: &str,
    ) -> std::result::Result<Caller, AuthFailure> {
        self.basic_at(user, password, NOW).await
    }

    pub(super) async fn basic_at(
        &self,
        user: &str,
        password: &str,
        now: i64,
    ) -> std::result::Result<Caller, AuthFailure> {
        let header = Authorization::Basic {
            user: user.into(),
            password: password.into(),
        };
        self.access.authenticate(Some(&header), now).await
    }

    pub(super) async fn bearer(
        &self,
        token: &str,
        now: i64,
    ) -> std::result::Result<Caller, AuthFailure> {
        self.access
            .authenticate(Some(&Authorization::Bearer(token.into())), now)
            .await
    }

    pub(super) async fn grant(
        &self,
        proof: Proof,
        scopes: &str,
        offline: bool,
    ) -> std::result::Result<TokenGrant, TokenRefusal> {
        let request = TokenRequest {
            proof,
            scopes: Scope::parse_list(scopes),
            offline,
        };
        self.access.grant_token(request, NOW).await
    }

    /// A token for alice.
    pub(super) async fn token(&self, scopes: &str) -> String {
        let grant = self
            .grant(password("alice", "wonderland"), scopes, false)
            .await
            .unwrap();
        grant.token.reveal().to_owned()
    }

    /// Looks at the htpasswd file until a change has counted.
    pub(super) async fn settle(&self) {
        for _ in 0..2 {
            self.access.upkeep(NOW).await.unwrap();
        }
    }
}

pub(super) fn password(name: &str, password: &str) -> Proof {
    Proof::Password {
        name: name.into(),
        password: Password::new(password),
    }
}

pub(super) fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

pub(super) fn fault(result: std::result::Result<Caller, AuthFailure>) -> TokenFault {
    match result {
        Err(AuthFailure::Token(fault)) => fault,
        other => panic!("expected a refused token, got {other:?}"),
    }
}
