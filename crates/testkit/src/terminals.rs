//! A registry that signs in terminals and does nothing else: device flow and rotating refresh tokens in this process, with all that
//! such a server, or what stands before it, can do wrong.
//!
//! Threads of its own and plain HTTP/1.1 on the loopback interface, so that blocking clients in tests can talk to it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What goes wrong with one answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The work is done, and the connection ends without an answer.
    Cut,
    /// The work is done, and the answer stops before its last byte until [`FakeTerminals::let_go`].
    Held,
    /// Nothing is done; this is the answer, all of it.
    Says(String),
    /// Nothing is done; a body of so many bytes.
    Huge(usize),
    /// The work is done; the answer comes byte by byte with a pause after each, in ms.
    Slow(u64),
}

impl Fault {
    /// Nothing is done; this status, no sense in the body.
    pub fn status(status: u16) -> Self {
        Self::Says(format!(
            "HTTP/1.1 {status} Nonsense\r\nContent-Length: 6\r\n\r\n<html>"
        ))
    }

    /// Nothing is done; the client is sent elsewhere.
    pub fn redirect(to: &str) -> Self {
        Self::Says(format!(
            "HTTP/1.1 307 There\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
        ))
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method and path.
    pub what: String,
    /// The form in its body.
    pub form: BTreeMap<String, String>,
    /// The `Authorization` header.
    pub authorization: Option<String>,
}

struct State {
    metadata: Value,
    faults: VecDeque<(String, Fault)>,
    asked: Vec<Asked>,
    /// What the token endpoint says of the device code, before the person did something.
    replies: VecDeque<&'static str>,
    user: Option<String>,
    /// How long access tokens last, in s.
    lasts: u64,
    made: u64,
    terminals: Vec<Terminal>,
    graces: usize,
    ended: usize,
    held: bool,
}

/// One that is signed in.
struct Terminal {
    user: String,
    /// All refresh tokens, the one that is good last.
    refresh: Vec<String>,
    access: Vec<String>,
    /// Of those, the ones that nobody used before another was bought in their place.
    lost: Vec<String>,
}

/// The server.
pub struct FakeTerminals {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    addr: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl FakeTerminals {
    /// Starts it. Whoever asks is confirmed as alice at once.
    pub fn start() -> FakeTerminals {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let url = format!("http://{addr}");
        let metadata = json!({
            "issuer": url, "token_endpoint": format!("{url}/token"),
            "device_authorization_endpoint": format!("{url}/auth/device/code"),
            "revocation_endpoint": format!("{url}/auth/revoke"),
            "grant_types_supported": [DEVICE_GRANT, "refresh_token"],
            "token_endpoint_auth_methods_supported": ["none"], "response_types_supported": [],
        });
        let state = State {
            metadata,
            faults: VecDeque::new(),
            asked: Vec::new(),
            replies: VecDeque::new(),
            user: Some("alice".to_owned()),
            lasts: 900,
            made: 0,
            terminals: Vec::new(),
            graces: 0,
            ended: 0,
            held: false,
        };
        let state = Arc::new((Mutex::new(state), Condvar::new()));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), shared) = (stream, shared.clone()) else {
                    return;
                };
                // A client that goes away is its own matter.
                std::thread::spawn(move || serve(stream, &shared).ok());
            }
        });
        FakeTerminals { url, addr, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state.0)
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    /// What the next answer at this path does wrong. Several are taken one after the other.
    pub fn fail(&self, path: &str, fault: Fault) {
        self.state().faults.push_back((path.to_owned(), fault));
    }

    /// What the next questions for tokens of a device are told, before it is confirmed.
    pub fn reply(&self, errors: &[&'static str]) {
        self.state().replies.extend(errors);
    }

    /// Who confirms codes; nobody leaves them pending.
    pub fn confirm_as(&self, user: Option<&str>) {
        self.state().user = user.map(str::to_owned);
    }

    /// How long access tokens last from now on, in s.
    pub fn set_lasts(&self, seconds: u64) {
        self.state().lasts = seconds;
    }

    /// Another value of a field of the metadata; `null` takes it away.
    pub fn set_metadata(&self, field: &str, value: Value) {
        let mut state = self.state();
        let fields = state.metadata.as_object_mut().expect("an object");
        match value {
            Value::Null => drop(fields.remove(field)),
            value => drop(fields.insert(field.to_owned(), value)),
        }
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// How often tokens were bought with a refresh token, and how often of those because an answer had been lost.
    pub fn rotations(&self) -> (usize, usize) {
        let state = self.state();
        let bought = |asked: &&Asked| {
            asked
                .form
                .get("grant_type")
                .is_some_and(|kind| kind == "refresh_token")
        };
        (state.asked.iter().filter(bought).count(), state.graces)
    }

    /// How many terminals have ended: signed out, or since a spent token came again.
    pub fn ended(&self) -> usize {
        self.state().ended
    }

    /// Ends all terminals from here.
    pub fn end(&self) {
        let mut state = self.state();
        state.ended += std::mem::take(&mut state.terminals).len();
    }

    /// The access tokens so far no longer count.
    pub fn forget_access(&self) {
        let mut state = self.state();
        state
            .terminals
            .iter_mut()
            .for_each(|terminal| terminal.access.clear());
    }

    /// Waits until an answer is held, for 20 s.
    pub fn wait_held(&self) {
        let limit = Duration::from_secs(20);
        let waited = self
            .state
            .1
            .wait_timeout_while(self.state(), limit, |state| !state.held);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(state.held, "no answer was held: {:?}", state.asked);
    }

    /// Lets held answers go.
    pub fn let_go(&self) {
        self.state().held = false;
        self.state.1.notify_all();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Other tokens for a terminal.
    fn buy(&mut self, at: usize) -> (u16, Value) {
        self.made += 1;
        let (access, refresh) = (
            format!("access-{}", self.made),
            format!("wharf_terminal_{}", self.made),
        );
        let terminal = &mut self.terminals[at];
        terminal.access.push(access.clone());
        terminal.refresh.push(refresh.clone());
        let answer = json!({
            "access_token": access, "token_type": "Bearer", "expires_in": self.lasts, "refresh_token": refresh,
            "username": terminal.user,
        });
        (200, answer)
    }

    /// The terminal that ever had this refresh token.
    fn whose(&self, token: &str) -> Option<usize> {
        self.terminals
            .iter()
            .position(|terminal| terminal.refresh.iter().any(|one| one == token))
    }

    fn refresh(&mut self, token: &str) -> Option<(u16, Value)> {
        let at = self.whose(token)?;
        let terminal = &mut self.terminals[at];
        let good: Vec<&String> = terminal
            .refresh
            .iter()
            .rev()
            .filter(|one| !terminal.lost.contains(one))
            .take(2)
            .collect();
        let is_first = good.first().is_some_and(|one| *one == token);
        if !is_first && good.get(1).is_none_or(|one| *one != token) {
            self.ended += 1;
            self.terminals.remove(at);
            return None;
        }
        if !is_first {
            // The one before: its successor, which nobody has used, is void.
            let unused = terminal.refresh.last().cloned();
            terminal.lost.extend(unused);
            self.graces += 1;
        }
        Some(self.buy(at))
    }

    fn answer(&mut self, asked: &Asked) -> (u16, Value) {
        let refused = |error: &str| {
            (
                400,
                json!({"error": error, "error_description": format!("it is {error}")}),
            )
        };
        let field = |name: &str| asked.form.get(name).map_or("", String::as_str);
        match asked.what.as_str() {
            "GET /.well-known/oauth-authorization-server" => (200, self.metadata.clone()),
            "POST /auth/device/code" => {
                let host = self.metadata["issuer"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                let code = json!({
                    "device_code": "device-1", "user_code": "BCDF-GHJK", "verification_uri": format!("{host}/device"),
                    "verification_uri_complete": format!("{host}/device?user_code=BCDF-GHJK"), "expires_in": 600, "interval": 1,
                });
                (200, code)
            }
            "POST /auth/revoke" => {
                if let Some(at) = self.whose(field("token")) {
                    self.ended += 1;
                    self.terminals.remove(at);
                }
                (200, Value::Null)
            }
            "POST /token" if field("grant_type") == DEVICE_GRANT => {
                if let Some(error) = self.replies.pop_front() {
                    return refused(error);
                }
                let Some(user) = self.user.clone() else {
                    return refused("authorization_pending");
                };
                self.terminals.push(Terminal {
                    user,
                    refresh: Vec::new(),
                    access: Vec::new(),
                    lost: Vec::new(),
                });
                self.buy(self.terminals.len() - 1)
            }
            "POST /token" if field("grant_type") == "refresh_token" => {
                let bought = self.refresh(field("refresh_token"));
                bought.unwrap_or_else(|| refused("invalid_grant"))
            }
            "GET /api/v1/me" => {
                let token = asked.authorization.as_deref();
                let token = token.and_then(|text| text.strip_prefix("Bearer "));
                let has =
                    |terminal: &&Terminal| terminal.access.iter().any(|one| Some(&**one) == token);
                match self.terminals.iter().find(has) {
                    Some(terminal) => (200, json!({"name": terminal.user, "kind": "user"})),
                    None => (401, json!({"detail": "the token is not known"})),
                }
            }
            _ => (404, json!({"detail": "there is no such page"})),
        }
    }
}

/// One request, one answer, the end.
fn serve(mut stream: TcpStream, shared: &(Mutex<State>, Condvar)) -> std::io::Result<()> {
    let asked = read(&stream)?;
    let path = asked.what.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut state = lock(&shared.0);
    state.asked.push(asked.clone());
    let at = state.faults.iter().position(|(at, _)| *at == path);
    let fault = at
        .and_then(|at| state.faults.remove(at))
        .map(|(_, fault)| fault);
    match &fault {
        Some(Fault::Says(text)) => {
            drop(state);
            return stream.write_all(text.as_bytes());
        }
        Some(Fault::Huge(bytes)) => {
            drop(state);
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n")?;
            return stream.write_all(&vec![b' '; *bytes]);
        }
        _ => {}
    }
    let (status, body) = state.answer(&asked);
    drop(state);
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let answer = format!(
        "HTTP/1.1 {status} Well\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    match fault {
        Some(Fault::Cut) => Ok(()),
        Some(Fault::Held) => {
            let (most, last) = answer.split_at(answer.len() - 1);
            stream.write_all(most.as_bytes())?;
            let mut state = lock(&shared.0);
            state.held = true;
            shared.1.notify_all();
            let limit = Duration::from_secs(20);
            drop(
                shared
                    .1
                    .wait_timeout_while(state, limit, |state| state.held),
            );
            stream.write_all(last.as_bytes())
        }
        Some(Fault::Slow(pause)) => answer.bytes().try_for_each(|byte| {
            std::thread::sleep(Duration::from_millis(pause));
            stream.write_all(&[byte])
        }),
        _ => stream.write_all(answer.as_bytes()),
    }
}

fn read(stream: &TcpStream) -> std::io::Result<Asked> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let what = first
        .rsplit_once(' ')
        .map_or("", |(what, _)| what)
        .to_owned();
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or(0),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let form = body.split('&').filter_map(|pair| pair.split_once('='));
    let form = form.map(|(name, value)| (name.to_owned(), decode(value)));
    Ok(Asked {
        what,
        form: form.collect(),
        authorization,
    })
}

/// Percent signs and plus signs of a form.
fn decode(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex: Vec<u8> = rest.by_ref().take(2).collect();
                let hex = std::str::from_utf8(&hex).ok();
                hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())
                    .unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
