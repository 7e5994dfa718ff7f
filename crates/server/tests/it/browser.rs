//! A browser, as far as it matters, and an OpenID provider in this process, with much of what one can do wrong.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wharf_oci::percent::{encode_query, query_pairs};
use wharf_testkit::client::Response;
use wharf_testkit::issuer::TokenKey;
use wharf_testkit::{Client, TestOptions, TestServer, Version};

pub(crate) const HOST: &str = "localhost:5000";

/// A browser, as far as it matters: cookies, and what it says of where a form comes from.
pub(crate) struct Browser {
    pub(crate) client: Client,
    pub(crate) cookies: HashMap<String, String>,
}

impl Browser {
    pub(crate) fn new(server: &TestServer) -> Self {
        Self::at(&server.admin(Version::Http1))
    }

    /// One that talks to whom this client talks to.
    pub(crate) fn at(client: &Client) -> Self {
        Self::of(client.clone().anonymous())
    }

    pub(crate) fn of(client: Client) -> Self {
        Self {
            client,
            cookies: HashMap::new(),
        }
    }

    fn take(&mut self, answer: &Response) {
        for set in answer.headers.get_all("set-cookie") {
            let set = set.to_str().unwrap();
            assert!(set.contains("; HttpOnly; SameSite=Lax"), "{set}");
            let (pair, _) = set.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            match value {
                "" => self.cookies.remove(name),
                value => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
    }

    fn jar(&self) -> String {
        let pairs = self.cookies.iter();
        let pairs = pairs.map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("; ")
    }

    pub(crate) async fn get(&mut self, path: &str) -> Response {
        let request = self.client.get(path).without_header("host");
        let request = request.header("host", HOST).header("cookie", &self.jar());
        let answer = request.header("user-agent", "Browser/1").send().await;
        self.take(&answer);
        answer
    }

    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Response {
        let own = format!("http://{HOST}");
        self.post_from(path, fields, &own, "same-origin").await
    }

    pub(crate) async fn post_from(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        origin: &str,
        site: &str,
    ) -> Response {
        let pairs = fields.iter();
        let pairs = pairs.map(|(key, value)| format!("{key}={}", encode_query(value)));
        let body = pairs.collect::<Vec<_>>().join("&");
        let request = self.client.request(Method::POST, path);
        let request = request.without_header("host").header("host", HOST);
        let request = request
            .header("content-type", "application/x-www-form-urlencoded")
            .header("cookie", &self.jar())
            .header("user-agent", "Browser/1")
            .header("origin", origin)
            .header("sec-fetch-site", site);
        let answer = request.body(body).send().await;
        self.take(&answer);
        answer
    }

    /// What the form on a page says.
    pub(crate) async fn form(&mut self, path: &str) -> String {
        let page = text(&self.get(path).await.expect_status(200));
        form(&page)
    }

    pub(crate) async fn sign_in(&mut self, user: &str, password: &str) -> Response {
        let form = self.form("/auth/login").await;
        let fields = [
            ("form", &*form),
            ("user", user),
            ("password", password),
            ("return", "/account/sessions"),
        ];
        self.post("/auth/login", &fields).await
    }
}

pub(crate) fn text(answer: &Response) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

pub(crate) fn form(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"form\" value=\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

pub(crate) async fn start(config: String) -> TestServer {
    let options = TestOptions {
        config: format!("[server]\nexternal_url = \"http://{HOST}\"\n{config}"),
        ..TestOptions::default()
    };
    TestServer::start(options).await
}

/// How a path of the provider answers instead of as it should.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// Not at all, and the connection stays open.
    Silent,
    /// With a byte now and then, for ever.
    Slow,
    /// With this status and this body.
    Says(u16, String),
    /// By sending whoever asks to the same place again.
    Circle,
}

#[derive(Default)]
struct Kept {
    /// By code: nonce, challenge, who.
    codes: HashMap<String, (String, String, Value)>,
    person: Value,
    manners: HashMap<&'static str, Manner>,
    asked: Vec<String>,
    unpublished: bool,
}

/// An OpenID provider in this process.
pub(crate) struct Provider {
    pub(crate) url: String,
    kept: Arc<Mutex<Kept>>,
    key: Arc<TokenKey>,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kept = Arc::new(Mutex::new(Kept::default()));
        let key = Arc::new(TokenKey::new("one"));
        let (at, of, by) = (url.clone(), kept.clone(), key.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (at, of, key) = (at.clone(), of.clone(), by.clone());
                tokio::spawn(async move { serve(stream, &at, &of, &key).await });
            }
        });
        Self { url, kept, key }
    }

    /// A `[[auth.oidc]]` of this name.
    pub(crate) fn table(&self, name: &str, more: &str) -> String {
        format!(
            "[[auth.oidc]]\nname = \"{name}\"\ntitle = \"The Company\"\nissuer = \"{}\"\nclient_id = \"wharf\"\nclient_secret = \
             \"hush\"\nadmin_group = \"admins\"\n{more}\n",
            self.url
        )
    }

    pub(crate) fn config(&self, more: &str) -> String {
        format!(
            "[auth]\nsession_check = \"10s\"\n{}",
            self.table("corp", more)
        )
    }

    pub(crate) fn person(&self, person: Value) {
        self.kept.lock().unwrap().person = person;
    }

    /// From now on that path answers so.
    pub(crate) fn manner(&self, path: &'static str, manner: Manner) {
        self.kept.lock().unwrap().manners.insert(path, manner);
    }

    /// From now on tokens are signed with a key that it does not publish.
    pub(crate) fn signs_with_another_key(&self) {
        self.kept.lock().unwrap().unpublished = true;
    }

    /// How often that path was asked for.
    pub(crate) fn asked(&self, path: &str) -> usize {
        let kept = self.kept.lock().unwrap();
        kept.asked.iter().filter(|asked| *asked == path).count()
    }

    /// A token of its own.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.key.sign(claims)
    }
}

async fn serve(mut stream: TcpStream, url: &str, kept: &Mutex<Kept>, key: &TokenKey) {
    let mut all = Vec::new();
    let mut piece = [0; 4_096];
    let (head, body) = loop {
        let text = String::from_utf8_lossy(&all).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let length = lower.split("content-length: ").nth(1);
            let length = length.and_then(|rest| rest.lines().next()?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break (head.to_owned(), body.to_owned());
            }
        }
        match stream.read(&mut piece).await {
            Ok(count) if count > 0 => all.extend_from_slice(&piece[..count]),
            _ => return,
        }
    };
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let manner = {
        let mut kept = kept.lock().unwrap();
        kept.asked.push(path.to_owned());
        kept.manners.get(path).cloned()
    };
    match manner {
        None => {}
        // Until who asks has had enough.
        Some(Manner::Silent) => {
            while stream.read(&mut piece).await.is_ok_and(|count| count > 0) {}
            return;
        }
        Some(Manner::Slow) => {
            let mut sent = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                .await;
            while sent.is_ok() {
                sent = stream.write_all(b" ").await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            return;
        }
        Some(Manner::Circle) => {
            let head = format!(
                "HTTP/1.1 302 Found\r\nLocation: {url}{target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let _ = stream.write_all(head.as_bytes()).await;
            return;
        }
        Some(Manner::Says(status, body)) => {
            let head = format!(
                "HTTP/1.1 {status} Said\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(body.as_bytes()).await;
            return;
        }
    }
    let fields = |text: &str| -> HashMap<String, String> {
        let pairs = query_pairs(text);
        pairs
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect()
    };
    let (status, more, answer) = match path {
        "/.well-known/openid-configuration" => (
            "200 OK",
            String::new(),
            json!({
                "issuer": url, "authorization_endpoint": format!("{url}/authorize"),
                "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/keys"),
                "end_session_endpoint": format!("{url}/out"),
                "scopes_supported": ["openid", "profile", "offline_access"],
            }),
        ),
        "/keys" => ("200 OK", String::new(), json!({"keys": [key.jwk]})),
        "/authorize" => {
            let asked = fields(query);
            let mut kept = kept.lock().unwrap();
            let code = format!("code{}", kept.codes.len());
            let person = kept.person.clone();
            let given = (
                asked["nonce"].clone(),
                asked["code_challenge"].clone(),
                person,
            );
            kept.codes.insert(code.clone(), given);
            let to = format!(
                "{}?code={code}&state={}",
                asked["redirect_uri"],
                encode_query(&asked["state"])
            );
            ("303 See Other", format!("Location: {to}\r\n"), Value::Null)
        }
        "/token" => {
            let asked = fields(&body);
            let mut kept = kept.lock().unwrap();
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let now = now.unwrap().as_secs();
            let mut claims = json!({"iss": url, "aud": "wharf", "iat": now, "exp": now + 300});
            let shown =
                head.contains(&base64::engine::general_purpose::STANDARD.encode("wharf:hush"));
            let person = match asked.get("code").map(|code| kept.codes.remove(code)) {
                Some(Some((nonce, challenge, person))) if shown => {
                    let verifier = Sha256::digest(&asked["code_verifier"]);
                    assert_eq!(URL_SAFE_NO_PAD.encode(verifier), challenge);
                    claims["nonce"] = nonce.into();
                    Some(person)
                }
                None if shown => Some(kept.person.clone()),
                _ => None,
            };
            match person {
                Some(person) => {
                    for (name, value) in person.as_object().unwrap() {
                        claims[name] = value.clone();
                    }
                    let signed = match kept.unpublished {
                        true => TokenKey::new("two").sign(&claims),
                        false => key.sign(&claims),
                    };
                    let tokens =
                        json!({"id_token": signed, "access_token": "a", "refresh_token": "r"});
                    ("200 OK", String::new(), tokens)
                }
                None => (
                    "400 Bad Request",
                    String::new(),
                    json!({"error": "invalid_grant"}),
                ),
            }
        }
        _ => ("404 Not Found", String::new(), Value::Null),
    };
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n",
        answer.len()
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Follows the browser to the provider and back; gives what our callback answers.
pub(crate) async fn by_provider(browser: &mut Browser, provider: &Provider) -> Response {
    by_named(browser, provider, "corp").await
}

/// The same with a provider of another name; what is no way there is given as it is.
pub(crate) async fn by_named(browser: &mut Browser, provider: &Provider, name: &str) -> Response {
    let path = match to_provider(browser, provider, name).await {
        Ok(path) => path,
        Err(answer) => return answer,
    };
    let answer = browser.get(&path).await;
    assert!(!browser.cookies.contains_key("wharf_flow"), "it is over");
    answer
}

/// Follows the browser to the provider; gives the path that it is sent back to, or what is no way there.
pub(crate) async fn to_provider(
    browser: &mut Browser,
    provider: &Provider,
    name: &str,
) -> Result<String, Response> {
    let away = browser
        .get(&format!(
            "/auth/oidc/{name}/start?return=%2Faccount%2Fsessions"
        ))
        .await;
    if away.status != 303 {
        return Err(away);
    }
    let away = away.location().to_owned();
    let there = away
        .strip_prefix(&provider.url)
        .expect("the provider's address");
    let addr = provider
        .url
        .strip_prefix("http://")
        .unwrap()
        .parse()
        .unwrap();
    let back = Client::new(addr, Version::Http1).get(there).send().await;
    let back = back.expect_status(303).location().to_owned();
    let path = back.strip_prefix(&format!("http://{HOST}"));
    Ok(path.expect("our address").to_owned())
}
