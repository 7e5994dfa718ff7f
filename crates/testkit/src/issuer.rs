//! An issuer of tokens that machines sign in with: over HTTPS, with keys that can be changed, and with all that an issuer can do
//! wrong.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::ca::Ca;

/// A key that signs tokens.
pub struct TokenKey {
    key: EncodingKey,
    /// Its public half.
    pub jwk: Value,
}

impl TokenKey {
    /// A new one of that name.
    pub fn new(kid: &str) -> TokenKey {
        let pair = KeyPair::generate().expect("make a key");
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a public half");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["kid"] = kid.into();
        TokenKey { key, jwk }
    }

    /// Its public half under another name.
    pub fn jwk_named(&self, name: impl ToString) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["kid"] = name.to_string().into();
        jwk
    }

    /// A token that says this.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header {
            kid: self.jwk["kid"].as_str().map(str::to_owned),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, claims, &self.key).expect("a token")
    }
}

/// How the issuer answers.
#[derive(Clone, Debug, Default)]
pub enum Manner {
    /// As it should.
    #[default]
    Good,
    /// Not at all.
    Silent,
    /// With this instead of its keys.
    Garbage(String),
    /// By sending whoever asks for keys there.
    Redirect(String),
    /// With an error.
    Broken,
    /// With bytes that never end, slowly.
    Endless,
    /// With the discovery document of another issuer.
    Impostor,
}

struct State {
    keys: Vec<Value>,
    manner: Manner,
    asked: Vec<String>,
    bearer: Option<String>,
    /// What it says as a cluster that is asked about a token.
    review: Value,
}

/// An issuer in this process.
pub struct TokenIssuer {
    /// Who signed its certificate.
    pub ca: Ca,
    /// Its address, which its tokens say.
    pub url: String,
    state: Arc<Mutex<State>>,
}

fn now() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock");
    i64::try_from(now.as_secs()).expect("a time")
}

impl TokenIssuer {
    /// Starts it with these keys in the current runtime; it ends with that.
    pub async fn start(keys: &[&TokenKey]) -> TokenIssuer {
        let ca = Ca::new();
        let identity = ca.issue();
        let certificate = CertificateDer::from_pem_slice(identity.cert.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.expect("a certificate")],
                key.expect("a key"),
            )
            .expect("a key that fits");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let url = format!("https://localhost:{port}");
        let state = Arc::new(Mutex::new(State {
            keys: keys.iter().map(|key| key.jwk.clone()).collect(),
            manner: Manner::Good,
            asked: Vec::new(),
            bearer: None,
            review: json!({"authenticated": false}),
        }));
        let (of, at) = (state.clone(), url.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, of, at) = (acceptor.clone(), of.clone(), at.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    // Whoever goes away before the end is none of its business.
                    let _ = answer(stream, &of, &at).await;
                });
            }
        });
        TokenIssuer { ca, url, state }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes these from now on.
    pub fn publish(&self, keys: &[&TokenKey]) {
        self.state().keys = keys.iter().map(|key| key.jwk.clone()).collect();
    }

    /// Answers so from now on.
    pub fn behave(&self, manner: Manner) {
        self.state().manner = manner;
    }

    /// Answers only to who shows this from now on.
    pub fn ask_for(&self, bearer: &str) {
        self.state().bearer = Some(bearer.to_owned());
    }

    /// Says this of every token that it is asked about (TokenReview) from now on.
    pub fn review(&self, status: Value) {
        self.state().review = status;
    }

    /// The paths that it was asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// The key set as it is published.
    pub fn jwks(&self) -> Value {
        json!({"keys": self.state().keys})
    }

    /// What a bound token of a pod's service account says.
    pub fn pod(&self, audience: &str, namespace: &str, account: &str) -> Value {
        let now = now();
        json!({
            "iss": self.url, "sub": format!("system:serviceaccount:{namespace}:{account}"), "aud": [audience],
            "iat": now, "nbf": now, "exp": now + 3_600, "jti": "8c2e",
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": account, "uid": "0f4d"},
                "pod": {"name": "app-0", "uid": "71aa"}, "node": {"name": "node-1", "uid": "9b5c"},
            },
        })
    }

    /// What a token of a GitHub Actions job says, of a repository with the new form of `sub`.
    pub fn job(&self, audience: &str, repository_id: &str, event: &str) -> Value {
        let now = now();
        json!({
            "iss": self.url, "sub": format!("repo:acme@7/app@{repository_id}:ref:refs/heads/main"), "aud": audience,
            "iat": now, "nbf": now - 300, "exp": now + 300, "jti": "1f",
            "repository": "acme/app", "repository_id": repository_id, "repository_owner": "acme", "repository_owner_id": "7",
            "event_name": event, "ref": "refs/heads/main", "ref_type": "branch", "actor": "alice", "run_id": "1",
        })
    }

    /// What a token of a GitLab CI job says.
    pub fn pipeline(&self, audience: &str, project_id: &str, protected: bool) -> Value {
        let now = now();
        json!({
            "iss": self.url, "sub": "project_path:acme/app:ref_type:branch:ref:main", "aud": audience,
            "iat": now, "nbf": now - 5, "exp": now + 3_600, "jti": "2e",
            "project_path": "acme/app", "project_id": project_id, "namespace_id": "7", "pipeline_source": "push",
            "ref": "main", "ref_type": "branch", "ref_protected": protected.to_string(),
        })
    }
}

async fn answer<S>(mut stream: S, state: &Mutex<State>, url: &str) -> std::io::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if head.len() > 8_192 || stream.read(&mut byte).await? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok()).flatten()
    });
    let mut body = vec![0; length.unwrap_or(0).min(64 << 10)];
    stream.read_exact(&mut body).await?;
    let (manner, keys, bearer, review) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.push(path.clone());
        let keys = json!({"keys": state.keys}).to_string();
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": state.review});
        (
            state.manner.clone(),
            keys,
            state.bearer.clone(),
            review.to_string(),
        )
    };
    let shown = head.to_ascii_lowercase();
    let lets_in = bearer.is_none_or(|bearer| {
        shown.contains(&format!(
            "authorization: bearer {}\r\n",
            bearer.to_ascii_lowercase()
        ))
    });
    let document = match manner {
        Manner::Impostor => "https://somebody.example",
        _ => url,
    };
    let document = json!({"issuer": document, "jwks_uri": format!("{url}/keys")}).to_string();
    let (status, more, body) = match (&*path, manner) {
        _ if !lets_in => ("401 Unauthorized", String::new(), String::new()),
        (_, Manner::Silent) => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            return Ok(());
        }
        (_, Manner::Broken) => ("500 Internal Server Error", String::new(), String::new()),
        (_, Manner::Endless) => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"issuer\": \"")
                .await?;
            loop {
                stream.write_all(&[b'x'; 100]).await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        ("/apis/authentication.k8s.io/v1/tokenreviews", _) => {
            ("201 Created", String::new(), review)
        }
        ("/.well-known/openid-configuration", _) => ("200 OK", String::new(), document),
        ("/keys", Manner::Redirect(to)) => {
            ("302 Found", format!("Location: {to}\r\n"), String::new())
        }
        ("/keys", Manner::Garbage(text)) => ("200 OK", String::new(), text),
        ("/keys", _) => ("200 OK", String::new(), keys),
        _ => ("404 Not Found", String::new(), String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
