//! `/token`: HTTP for the token endpoint (§4.3). [`super::V2::token`] calls [`answer`]; what a token is worth
//! is decided in `wharf_core::access`.
//!
//! GET takes Basic credentials or none, POST the OAuth2 form. Errors are OCI JSON, which is what clients print. Nothing
//! here is cached by anyone, and no secret is ever repeated.

use std::sync::Arc;

use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use serde_json::json;
use wharf_core::access::{
    Access, AuthFailure, Circumstances, Password, Proof, TokenGrant, TokenRefusal, TokenRequest,
};
use wharf_core::audit::Sight;
use wharf_oci::{Challenge, ErrorCode, Scope, media_type, percent};

use crate::http::error::ApiError;
use crate::http::oauth::{DEVICE_CODE, EXCHANGE};
use crate::http::route::Route;
use crate::http::{Body, Request, Response};

/// Largest form, in bytes: a password, a user, and more scopes than a token can carry.
pub(super) const LARGEST_FORM: u64 = 64 << 10;

/// What such a token can be called; they are the same here.
const JWT_TYPES: [&str; 3] = [
    "urn:ietf:params:oauth:token-type:jwt",
    "urn:ietf:params:oauth:token-type:id_token",
    ACCESS_TOKEN,
];
/// What ours is called.
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Why no token was given: as it is answered, and as it is noted.
type Refusal = (ApiError, Refused);

/// Who was given a token.
pub(super) struct Asked {
    /// The principal's name.
    pub(super) principal: String,
    /// It was nobody in particular.
    pub(super) anonymous: bool,
    /// The id of the credential that was proved, or how the principal signed in.
    pub(super) credential: String,
}

/// Who was not.
pub(super) struct Refused {
    /// The reason, for metrics.
    pub(super) word: &'static str,
    /// The name that was given.
    pub(super) name: String,
    /// The reason, for people.
    pub(super) reason: String,
    /// What is noted instead when it was too much for a rate.
    pub(super) limited: Option<Sight>,
}

/// Answers one request that came so. Also tells who asked, or why there is no token.
pub(super) async fn answer(
    access: &Access,
    came: Circumstances,
    request: &mut Request,
) -> (Response, Result<Asked, Refused>) {
    let mut name = String::new();
    let mut exchanged = false;
    let granted = grant(access, came, request, &mut name, &mut exchanged).await;
    let (mut response, who) = match granted {
        Ok(grant) => {
            let asked = Asked {
                principal: grant.principal.name().to_owned(),
                anonymous: grant.principal.is_anonymous(),
                credential: grant.credential.clone(),
            };
            let how = match (request.method == Method::POST, exchanged) {
                (true, true) => How::Exchanged,
                (true, false) => How::Posted,
                (false, _) => How::Asked,
            };
            (success(&grant, how), Ok(asked))
        }
        Err(refusal) => {
            let (error, refused) = *refusal;
            (error.into_response(), Err(Refused { name, ..refused }))
        }
    };
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (response, who)
}

async fn grant(
    access: &Access,
    came: Circumstances,
    request: &mut Request,
    name: &mut String,
    exchanged: &mut bool,
) -> Result<TokenGrant, Box<Refusal>> {
    let mut asked = match request.method {
        Method::GET | Method::HEAD => {
            from_query(request).map_err(|failure| refuse(access, failure))
        }
        Method::POST => from_form(request).await.map_err(malformed),
        _ => Err(malformed(ApiError::method_not_allowed(
            Route::Token.methods(),
        ))),
    }?;
    if let (Proof::Nobody, Some(certificate)) = (&asked.proof, &request.certificate) {
        asked.proof = Proof::Certificate(Arc::clone(certificate));
    }
    if let Proof::Password { name: given, .. } = &asked.proof {
        name.clone_from(given);
    }
    *exchanged = matches!(asked.proof, Proof::Workload(_));
    access
        .grant_token(asked, came)
        .await
        .map_err(|refusal| match refusal {
            TokenRefusal::Auth(failure) => refuse(access, failure),
            TokenRefusal::TooManyScopes => malformed(bad_request(refusal.to_string())),
        })
}

fn malformed(error: ApiError) -> Box<Refusal> {
    let refused = Refused {
        word: "request",
        name: String::new(),
        reason: String::new(),
        limited: None,
    };
    Box::new((error, refused))
}

/// GET: credentials in the header, everything else in the query. `service`, `account` and `client_id` change nothing
/// (TOK-4).
fn from_query(request: &Request) -> Result<TokenRequest, AuthFailure> {
    let authorization = request.headers.get_all(AUTHORIZATION);
    let proof = Proof::from_header(authorization.iter().map(HeaderValue::as_bytes))?;
    let mut asked = TokenRequest {
        proof,
        scopes: Vec::new(),
        offline: false,
    };
    for (key, value) in percent::query_pairs(&request.query) {
        match &*key {
            "scope" => asked.scopes.extend(Scope::parse_list(&value)),
            "offline_token" => asked.offline = matches!(&*value, "true" | "1"),
            _ => {}
        }
    }
    Ok(asked)
}

/// POST: everything in the form.
async fn from_form(request: &mut Request) -> Result<TokenRequest, ApiError> {
    let form_type = "application/x-www-form-urlencoded";
    let content_type = request
        .headers
        .get(CONTENT_TYPE)
        .map(|value| value.to_str().unwrap_or_default());
    if !content_type.is_none_or(|found| media_type::bare(found).eq_ignore_ascii_case(form_type)) {
        return Err(ApiError::new(
            ErrorCode::Unsupported,
            format!("send the form as {form_type}"),
        )
        .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let form = request.body.collect(LARGEST_FORM).await?;
    let form = std::str::from_utf8(&form).map_err(|_| bad_request("the form is not UTF-8"))?;
    let (mut grant_type, mut name, mut password, mut refresh_token) = (None, None, None, None);
    let (mut subject_token, mut subject_token_type) = (None, None);
    let (mut requested_token_type, mut actor_token) = (None, None);
    let (mut scopes, mut offline) = (Vec::new(), false);
    for (key, value) in percent::query_pairs(form) {
        let field = match &*key {
            "grant_type" => &mut grant_type,
            "username" => &mut name,
            "password" => &mut password,
            "refresh_token" => &mut refresh_token,
            "subject_token" => &mut subject_token,
            "subject_token_type" => &mut subject_token_type,
            "requested_token_type" => &mut requested_token_type,
            "actor_token" => &mut actor_token,
            "scope" => {
                scopes.extend(Scope::parse_list(&value));
                continue;
            }
            "access_type" => {
                offline = value == "offline";
                continue;
            }
            _ => continue,
        };
        if field.replace(value.into_owned()).is_some() {
            return Err(bad_request(format!("the form has {key} more than once")));
        }
    }
    let secret = |secret: Option<String>| Password::new(secret.unwrap_or_default());
    let proof = match grant_type.as_deref() {
        Some("password") => Proof::Password {
            name: name.unwrap_or_default(),
            password: secret(password),
        },
        Some("refresh_token") => Proof::RefreshToken(secret(refresh_token)),
        Some(EXCHANGE) => {
            if actor_token.is_some() {
                return Err(bad_request(
                    "actor_token: nobody acts for others here; leave it out",
                ));
            }
            let kind = subject_token_type.as_deref();
            if !kind.is_some_and(|kind| JWT_TYPES.contains(&kind)) {
                let all = JWT_TYPES.join(" or ");
                return Err(bad_request(format!("subject_token_type must be {all}")));
            }
            let wanted = requested_token_type.as_deref();
            if wanted.is_some_and(|kind| kind != ACCESS_TOKEN) {
                return Err(bad_request(format!(
                    "requested_token_type can only be {ACCESS_TOKEN}"
                )));
            }
            if subject_token
                .as_ref()
                .is_none_or(|token| token.trim().is_empty())
            {
                return Err(bad_request("subject_token is missing"));
            }
            // Nobody gets a refresh token for one.
            offline = false;
            // Files that hold one end with a line.
            let token = subject_token.unwrap_or_default();
            Proof::Workload(Password::new(token.trim()))
        }
        _ => {
            return Err(bad_request(format!(
                "grant_type must be password, refresh_token, {DEVICE_CODE} or {EXCHANGE}"
            )));
        }
    };
    Ok(TokenRequest {
        proof,
        scopes,
        offline,
    })
}

/// How a token was asked for.
#[derive(Clone, Copy, PartialEq)]
enum How {
    /// By GET.
    Asked,
    /// By the form of OAuth2.
    Posted,
    /// By the form of RFC 8693.
    Exchanged,
}

/// The names are those of the specification; a POST is answered as OAuth2 wants it.
fn success(grant: &TokenGrant, how: How) -> Response {
    // A clock beyond the year 9999 is the machine's mistake and no reason to refuse.
    let issued_at = jiff::Timestamp::from_millisecond(grant.issued_at).unwrap_or_default();
    let mut body = json!({
        "token": grant.token.reveal(),
        "access_token": grant.token.reveal(),
        "expires_in": grant.expires_in,
        "issued_at": issued_at.to_string(),
    });
    if let Some(refresh_token) = &grant.refresh_token {
        body["refresh_token"] = refresh_token.reveal().into();
    }
    if how == How::Exchanged {
        body["issued_token_type"] = ACCESS_TOKEN.into();
    }
    if how != How::Asked {
        let granted: Vec<_> = grant.granted.iter().map(Scope::to_string).collect();
        body["scope"] = granted.join(" ").into();
        body["token_type"] = "Bearer".into();
    }
    let mut response = Response::new(Body::full(body.to_string()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 401 for credentials that are no good; the challenge is Basic, since that is what this address takes.
fn refuse(access: &Access, failure: AuthFailure) -> Box<Refusal> {
    let refused = Refused {
        word: failure.reason(),
        name: String::new(),
        reason: failure.told(),
        limited: failure.limited(),
    };
    let error = match (failure.retry_after(), failure) {
        (Some(retry_after), failure) => {
            ApiError::new(ErrorCode::TooManyRequests, failure.to_string())
                .with_retry_after(retry_after)
        }
        (None, AuthFailure::Store(error) | AuthFailure::Directory(error)) => error.into(),
        (None, failure) => {
            let challenge = Challenge {
                scheme: "Basic".into(),
                realm: access.service().into(),
                ..Challenge::default()
            };
            let error = ApiError::new(ErrorCode::Unauthorized, failure.to_string());
            match HeaderValue::from_str(&challenge.to_string()) {
                Ok(value) => error.with_header(WWW_AUTHENTICATE, value),
                Err(_) => error,
            }
        }
    };
    Box::new((error, refused))
}

fn bad_request(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Unsupported, message).with_status(StatusCode::BAD_REQUEST)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Uri, Version};
    use http_body_util::BodyExt as _;
    use serde_json::Value;
    use wharf_core::access::{AccessOptions, Bootstrap, Rights, Role, SecretKeys};
    use wharf_meta::{Meta, SqliteOptions};
    use wharf_oci::Authorization;

    use super::*;
    use crate::http::id::RequestIds;
    use crate::http::{Peer, RequestBody, Scheme};

    /// 2026-11-21T00:00:00Z.
    const NOW: i64 = 1_795_219_200_000;

    struct Fixture {
        access: Access,
        password: String,
        _folder: tempfile::TempDir,
    }

    struct Answer {
        status: u16,
        headers: HeaderMap,
        json: Value,
        who: Result<String, &'static str>,
    }

    impl Fixture {
        async fn new(change: impl FnOnce(&mut AccessOptions)) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (meta, _) = Meta::open(SqliteOptions::new(folder.path().join("db"))).unwrap();
            let mut options = AccessOptions {
                service: "reg.example".into(),
                ..AccessOptions::default()
            };
            change(&mut options);
            let access = Access::open(options, SecretKeys::of_tests(), meta, NOW)
                .await
                .unwrap();
            let Bootstrap::Created(password) = access.bootstrap_admin(None, NOW).await.unwrap()
            else {
                panic!()
            };
            Self {
                access,
                password: password.reveal().into(),
                _folder: folder,
            }
        }

        async fn send(
            &self,
            method: Method,
            query: &str,
            headers: &[(http::HeaderName, &str)],
            body: &str,
        ) -> Answer {
            let mut request = Request {
                id: RequestIds::new(1).make(),
                method,
                route: Ok(Route::Token),
                uri: format!("/token?{query}").parse::<Uri>().unwrap(),
                query: query.into(),
                headers: headers
                    .iter()
                    .map(|(name, value)| (name.clone(), value.parse().unwrap()))
                    .collect(),
                body: RequestBody::from(Bytes::from(body.to_owned())),
                peer: Peer {
                    addr: None,
                    unix: true,
                    secure: true,
                    proxied: false,
                },
                certificate: None,
                scheme: Scheme::Http,
                host: Some("reg.example".into()),
                version: Version::HTTP_11,
            };
            let (response, who) = answer(&self.access, NOW.into(), &mut request).await;
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            Answer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                json,
                who: who
                    .map(|asked| asked.principal)
                    .map_err(|refused| refused.word),
            }
        }

        async fn get(&self, query: &str, user: &str, password: &str) -> Answer {
            let basic = Authorization::basic(user, password);
            self.send(Method::GET, query, &[(AUTHORIZATION, &basic)], "")
                .await
        }

        async fn post(&self, form: &str) -> Answer {
            let form_type = "application/x-www-form-urlencoded; charset=utf-8";
            self.send(Method::POST, "", &[(CONTENT_TYPE, form_type)], form)
                .await
        }

        async fn holder(&self, answer: &Answer) -> (String, Vec<Scope>) {
            let token = answer.json["token"].as_str().unwrap();
            assert_eq!(answer.json["access_token"], token);
            let caller = self
                .access
                .authenticate(Some(&Authorization::Bearer(token.into())), NOW)
                .await
                .unwrap();
            (
                caller.principal.name().to_owned(),
                caller.scopes.unwrap().to_vec(),
            )
        }
    }

    /// Spec: TOK-3, TOK-5.
    #[tokio::test]
    async fn docker_login_gets_a_token_without_scope() {
        let it = Fixture::new(|_| {}).await;
        let query = "account=admin&client_id=docker&offline_token=true&service=reg.example";
        let answer = it.get(query, "admin", &it.password).await;
        assert_eq!((answer.status, answer.who.as_deref()), (200, Ok("admin")));
        assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
        assert_eq!(answer.json["expires_in"], 900);
        assert_eq!(answer.json["issued_at"], "2026-11-21T00:00:00Z");
        assert_eq!(answer.json.get("refresh_token"), None);
        assert_eq!(it.holder(&answer).await, ("admin".into(), vec![]));
    }

    /// Spec: TOK-4, AUTH-4.
    #[tokio::test]
    async fn scopes_come_repeated_or_in_one_parameter_and_the_service_does_not_matter() {
        let it = Fixture::new(|_| {}).await;
        let expected = Scope::parse_list("repository:a/b:pull repository:c:pull,push");
        for query in [
            "scope=repository:a/b:pull&scope=repository:c:pull,push&service=reg.example",
            "scope=repository%3Aa%2Fb%3Apull+repository:c:pull%2Cpush&service=another",
            "scope=repository:a/b:pull%20repository:c:pull,push&scope=nonsense",
        ] {
            let answer = it.get(query, "admin", &it.password).await;
            assert_eq!(
                it.holder(&answer).await,
                ("admin".into(), expected.clone()),
                "{query}"
            );
        }
    }

    /// Spec: TOK-1.
    #[tokio::test]
    async fn wrong_credentials_get_401_in_json_and_anonymous_gets_200() {
        let it = Fixture::new(|_| {}).await;
        for (user, password) in [("admin", "wrong"), ("nobody", "wrong"), ("", "x")] {
            let answer = it.get("", user, password).await;
            assert_eq!(
                (answer.status, answer.who),
                (401, Err("password")),
                "{user}"
            );
            assert_eq!(answer.json["errors"][0]["code"], "UNAUTHORIZED");
            assert_eq!(
                answer.headers[WWW_AUTHENTICATE],
                "Basic realm=\"reg.example\""
            );
            assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
        }
        let wrong = it
            .post("grant_type=password&username=admin&password=wrong")
            .await;
        assert_eq!(wrong.status, 401);
        for answer in [
            it.send(Method::GET, "scope=repository:a:pull", &[], "")
                .await,
            it.get("scope=repository:a:pull", "", "").await,
            // Ollama signs this request in a scheme of its own.
            it.send(
                Method::GET,
                "scope=repository:a:pull",
                &[(AUTHORIZATION, "AAAAC3Nz:c2ln")],
                "",
            )
            .await,
        ] {
            assert_eq!(
                (answer.status, answer.who.as_deref()),
                (200, Ok("anonymous"))
            );
            assert_eq!(it.holder(&answer).await.0, "anonymous");
        }
    }

    #[tokio::test]
    async fn a_bearer_token_buys_no_other_and_two_headers_are_none() {
        let it = Fixture::new(|_| {}).await;
        let answer = it.get("", "admin", &it.password).await;
        let bearer = format!("Bearer {}", answer.json["token"].as_str().unwrap());
        let widened = it
            .send(
                Method::GET,
                "scope=repository:a:push",
                &[(AUTHORIZATION, &bearer)],
                "",
            )
            .await;
        assert_eq!(widened.status, 401);
        let basic = Authorization::basic("admin", &it.password);
        let both = it
            .send(
                Method::GET,
                "",
                &[(AUTHORIZATION, &basic), (AUTHORIZATION, &basic)],
                "",
            )
            .await;
        assert_eq!(both.status, 401);
        assert!(
            both.json["errors"][0]["message"]
                .as_str()
                .unwrap()
                .contains("more than one")
        );
    }

    /// Spec: TOK-2.
    #[tokio::test]
    async fn the_form_gives_a_token_and_says_what_it_is_good_for_now() {
        let it = Fixture::new(|_| {}).await;
        let form = format!(
            "grant_type=password&username=admin&password={}&service=reg.example&client_id=containerd-client\
             &scope=repository%3Aa%3Apull%2Cpush+registry:catalog:*&scope=repository:b:fly",
            it.password
        );
        let answer = it.post(&form).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.json["scope"],
            "repository:a:pull,push registry:catalog:*"
        );
        assert_eq!(
            (&answer.json["token_type"], &answer.json["expires_in"]),
            (&"Bearer".into(), &3600.into())
        );
        assert_eq!(it.holder(&answer).await.0, "admin");
    }

    #[tokio::test]
    async fn a_password_with_every_awkward_character_survives_the_form() {
        let it = Fixture::new(|_| {}).await;
        let awkward = "a&b=c+d e%f:ü/?#";
        it.access
            .reset_admin_password(Some(Password::new(awkward)), NOW)
            .await
            .unwrap();
        let encoded = percent::encode_query(awkward);
        assert_eq!(
            it.post(&format!(
                "grant_type=password&username=admin&password={encoded}"
            ))
            .await
            .status,
            200
        );
        assert_eq!(it.get("", "admin", awkward).await.status, 200);
    }

    #[tokio::test]
    async fn identity_tokens_go_round_unchanged() {
        let it = Fixture::new(|options| options.identity_tokens = true).await;
        let first = it.get("offline_token=true", "admin", &it.password).await;
        let refresh = first.json["refresh_token"].as_str().unwrap().to_owned();
        assert!(refresh.starts_with("wharf_refresh_"));
        for _ in 0..2 {
            let form = format!(
                "grant_type=refresh_token&refresh_token={refresh}&access_type=offline&scope=repository:a:pull"
            );
            let answer = it.post(&form).await;
            assert_eq!(
                (answer.status, &answer.json["refresh_token"]),
                (200, &Value::from(refresh.as_str()))
            );
        }
        let wrong = it
            .post("grant_type=refresh_token&refresh_token=wharf_refresh_x")
            .await;
        assert_eq!(wrong.status, 401);
        assert!(!wrong.json.to_string().contains("wharf_refresh"));
    }

    #[tokio::test]
    async fn broken_forms_get_a_reason() {
        let it = Fixture::new(|_| {}).await;
        for (form, part) in [
            ("", "grant_type"),
            ("grant_type=authorization_code&code=x", "grant_type"),
            (
                "grant_type=password&grant_type=refresh_token",
                "more than once",
            ),
            (
                "grant_type=password&username=a&username=b",
                "more than once",
            ),
        ] {
            let answer = it.post(form).await;
            let message = answer.json["errors"][0]["message"].as_str().unwrap();
            assert!(
                answer.status == 400 && message.contains(part),
                "{form}: {} {message}",
                answer.status
            );
        }
        let json = it
            .send(
                Method::POST,
                "",
                &[(CONTENT_TYPE, "application/json")],
                "{}",
            )
            .await;
        assert_eq!(json.status, 415);
        let large = it.post(&"a".repeat(70_000)).await;
        assert_eq!(large.status, 413);
        let method = it.send(Method::PUT, "", &[], "").await;
        assert_eq!(
            (method.status, &method.headers[http::header::ALLOW]),
            (405, &HeaderValue::from_static("GET, HEAD, POST"))
        );
    }

    /// Spec: TOK-8.
    #[tokio::test]
    async fn too_many_scopes_are_refused_with_the_limit() {
        let it = Fixture::new(|options| {
            options.rights = Rights {
                anonymous: Role::Reader,
                ..Rights::default()
            }
        })
        .await;
        let query: String = (0..60)
            .map(|n| format!("scope=repository:r{n}:pull&"))
            .collect();
        let answer = it.send(Method::GET, &query, &[], "").await;
        assert_eq!(answer.status, 400);
        assert!(
            answer.json["errors"][0]["message"]
                .as_str()
                .unwrap()
                .contains("at most 50")
        );
    }
}
