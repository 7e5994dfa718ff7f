//! Holes that were found in other registries, each as a test that fails where the same hole is open.
//!
//! Those that concern tokens alone are in `core::access::tests::attacks`, those of framing in `http_smuggling`, of
//! HTTP/2 in `http_h2`, of ambiguous manifests in `manifest_push`, of secrets in logs in `command`.

use std::collections::BTreeSet;

use bytes::Bytes;
use wharf_testkit::content::random_bytes;
use wharf_testkit::{Client, Content, Image, Process, TestOptions, TestServer, Version};

use crate::support::{blob, holds, manifest, texts};

/// Alice may write to `mine` and read `shared`; Bob nothing at all.
async fn server() -> TestServer {
    TestServer::start(TestOptions {
        htpasswd: vec![("alice", "a"), ("bob", "b")],
        htpasswd_role: Some("none"),
        grants: vec![("alice", "writer", "mine"), ("alice", "reader", "shared")],
        ..Default::default()
    })
    .await
}

async fn token(client: &Client, scopes: &[&str]) -> Client {
    let answer = client.fetch_token(scopes).await.expect_status(200);
    let token = answer.json()["token"].as_str().expect("a token").to_owned();
    client.clone().anonymous().with_token(&token)
}

/// Memory of a process that only it uses, in bytes.
fn anonymous_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|text| text.trim().parse().ok())
        .expect("a number of kB");
    kib * 1024
}

/// Distribution, CVE-2023-2253: the page size of the catalogue was allocated before anything was read.
///
/// Spec: CAT-1, TAGS-3.
#[tokio::test]
async fn cve_2023_2253_a_huge_page_size_allocates_nothing() {
    let process =
        Process::start(env!("CARGO_BIN_EXE_wharf").as_ref(), TestOptions::default()).await;
    let client = process.admin(Version::Http1);
    client.push_image("team/app", "v1", &Image::random()).await;
    let before = anonymous_memory(process.id());
    for n in [
        "1000000000",
        "9223372036854775807",
        "18446744073709551615",
        "99999999999999999999999",
    ] {
        for path in ["/v2/_catalog", "/v2/team/app/tags/list"] {
            let answer = client.get(&format!("{path}?n={n}")).send().await;
            assert!(matches!(answer.status.as_u16(), 200 | 400), "{answer}");
        }
    }
    let grown = anonymous_memory(process.id()).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
}

/// Distribution, CVE-2017-11468, and Harbor #23500: a manifest body without end was read into memory.
///
/// Spec: MPUT-15.
#[tokio::test]
async fn cve_2017_11468_an_endless_manifest_is_cut_off() {
    let process =
        Process::start(env!("CARGO_BIN_EXE_wharf").as_ref(), TestOptions::default()).await;
    let client = process.admin(Version::Http1);
    client.push_image("team/app", "v1", &Image::random()).await;
    let before = anonymous_memory(process.id());
    let piece = Bytes::from(vec![b' '; 1 << 20]);
    let endless = std::iter::repeat_n(piece, 256);
    let pushed = client
        .put(&manifest("team/app", "v2"))
        .header("content-type", "application/vnd.oci.image.manifest.v1+json")
        .chunked(endless)
        .try_send()
        .await;
    if let Ok(answer) = pushed {
        answer.expect_status(413);
    }
    let grown = anonymous_memory(process.id()).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
    client
        .head(&manifest("team/app", "v2"))
        .send()
        .await
        .expect_status(404);
}

/// Harbor #23497: what came compressed was unpacked without a bound. Nothing is unpacked here at all.
///
/// Spec: MPUT-2.
#[tokio::test]
async fn harbor_23497_a_compressed_manifest_is_not_unpacked() {
    let server = server().await;
    let client = server.admin(Version::Http1);
    // A gzip header and noise behind it: whoever unpacks this fails in another way than whoever reads it as JSON.
    let bytes = [
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..],
        &random_bytes(1_000),
    ]
    .concat();
    client
        .put(&manifest("team/app", "v1"))
        .header("content-type", "application/vnd.oci.image.manifest.v1+json")
        .header("content-encoding", "gzip")
        .body(bytes)
        .send()
        .await
        .expect_error(400, "MANIFEST_INVALID");
}

/// zot, CVE-2024-39897: whoever knew a digest could have the blob, because another repository held it.
/// Harbor #23270: the right to pull from the source of a mount was not asked for.
///
/// Spec: MNT-2, MNT-3, BGET-1.
#[tokio::test]
async fn cve_2024_39897_knowing_a_digest_gives_nothing() {
    let server = server().await;
    for version in Version::ALL {
        let admin = server.admin(version);
        let alice = admin.clone().with_basic("alice", "a");
        for size in [100, 100_000] {
            let secret = Content::random(size);
            admin.push_blob("secret/app", &secret).await;
            let start = "/v2/mine/app/blobs/uploads/";
            for query in [
                format!("mount={}&from=secret/app", secret.digest),
                format!("mount={}", secret.digest),
            ] {
                let mount = alice.post(&format!("{start}?{query}"));
                mount.send().await.expect_status(202);
            }
            // An empty push of that digest must not be taken for the blob that is there.
            let empty = alice
                .post(&format!("{start}?digest={}", secret.digest))
                .body("");
            empty.send().await.expect_status(400);
            alice
                .head(&blob("mine/app", &secret.digest))
                .send()
                .await
                .expect_status(404);
            assert!(!holds(&alice, "mine/app", &secret).await);
            // Nor does a manifest that names it make it visible.
            let index = Image::random();
            admin.push_image("secret/app", "v1", &index).await;
            alice
                .put_manifest("mine/app", "v1", &index.manifest)
                .send()
                .await
                .expect_status(400);
            assert!(holds(&admin, "secret/app", &secret).await);
        }
    }
}

/// zot: the scopes of an API key were not asked for on every endpoint.
///
/// Spec: SCOPE-3, AUTH-2.
#[tokio::test]
async fn zot_a_narrow_token_is_narrow_everywhere() {
    let server = server().await;
    let admin = server.admin(Version::Http1);
    let image = Image::random();
    admin.push_image("mine/app", "v1", &image).await;
    admin.push_image("mine/other", "v1", &image).await;
    let alice = admin.clone().with_basic("alice", "a");
    let reader = token(&alice, &["repository:mine/app:pull"]).await;
    reader
        .get(&manifest("mine/app", "v1"))
        .send()
        .await
        .expect_status(200);
    let digest = &image.layers[0].digest;
    for refused in [
        reader.put_manifest("mine/app", "v2", &image.manifest),
        reader.post("/v2/mine/app/blobs/uploads/"),
        reader.post(&format!(
            "/v2/mine/app/blobs/uploads/?mount={digest}&from=mine/other"
        )),
        reader.post(&format!(
            "/v2/mine/other/blobs/uploads/?mount={digest}&from=mine/app"
        )),
        reader.delete(&manifest("mine/app", "v1")),
        reader.delete(&blob("mine/app", digest)),
        reader.get(&manifest("mine/other", "v1")),
        reader.head(&blob("mine/other", digest)),
        reader.get("/v2/mine/other/tags/list"),
        reader.get(&format!(
            "/v2/mine/other/referrers/{}",
            image.manifest.digest
        )),
        reader.get("/v2/_catalog"),
        reader.get("/metrics"),
    ] {
        let answer = refused.send().await;
        assert!(matches!(answer.status.as_u16(), 401 | 403), "{answer}");
    }
}

/// Harbor #22900: a token that was issued for a project before it existed opened the project that came later.
///
/// Spec: SCOPE-3.
#[tokio::test]
async fn harbor_22900_a_token_from_before_the_repository_opens_nothing() {
    let server = server().await;
    let admin = server.admin(Version::Http1);
    let bob = admin.clone().with_basic("bob", "b");
    let early = token(&bob, &["repository:secret/new:pull,push,delete"]).await;
    let image = Image::random();
    admin.push_image("secret/new", "v1", &image).await;
    for path in [
        manifest("secret/new", "v1"),
        blob("secret/new", &image.config.digest),
    ] {
        let answer = early.get(&path).send().await;
        assert!(matches!(answer.status.as_u16(), 401 | 403), "{answer}");
    }
}

/// Harbor's `authproxy` mode and several front ends take a user's name from a header. No header but one Authorization says
/// anything here; and of two none wins, since a proxy may have looked at the other.
///
/// Spec: AUTH-1.
#[tokio::test]
async fn nobody_is_somebody_by_a_header_of_a_proxy() {
    let server = server().await;
    let admin = server.admin(Version::Http1);
    admin.push_image("secret/app", "v1", &Image::random()).await;
    let path = manifest("secret/app", "v1");
    for name in [
        "Remote-User",
        "X-Remote-User",
        "X-Forwarded-User",
        "X-Forwarded-Preferred-Username",
        "X-Auth-Request-User",
        "X-WEBAUTH-USER",
        "X-Authenticated-User",
        "Proxy-Authorization",
        "X-Harbor-Robot",
        "Cookie",
    ] {
        for value in ["admin", "user=admin", "Basic YWRtaW46YWRtaW4="] {
            let stranger = admin.clone().anonymous();
            let answer = stranger.get(&path).header(name, value).send().await;
            assert_eq!(answer.status.as_u16(), 401, "{name}: {value}: {answer}");
            // Nor does one take away from who signed in.
            let alice = admin.clone().with_basic("alice", "a");
            let answer = alice.get(&path).header(name, value).send().await;
            assert_eq!(answer.status.as_u16(), 403, "{name}: {value}: {answer}");
        }
    }
    let good = admin.get(&path).send().await;
    good.expect_status(200);
    let other = "Basic YWxpY2U6YQ==";
    for client in [admin.clone(), admin.clone().with_basic("alice", "a")] {
        let answer = client
            .get(&path)
            .header("Authorization", other)
            .send()
            .await;
        assert!(matches!(answer.status.as_u16(), 400 | 401), "{answer}");
    }
}

/// Harbor, CVE-2020-29662: the catalogue was open to everybody through another way in.
///
/// Spec: CAT-2.
#[tokio::test]
async fn cve_2020_29662_the_catalogue_shows_what_one_may_pull() {
    let server = server().await;
    let admin = server.admin(Version::Http1);
    for name in ["mine/app", "shared/app", "secret/app"] {
        admin.push_blob(name, &Content::random(10)).await;
    }
    let stranger = admin.clone().anonymous();
    for path in [
        "/v2/_catalog",
        "/v2/_catalog/",
        "/v2/_catalog?n=1",
        "//v2/_catalog",
        "/v2/./_catalog",
    ] {
        let answer = stranger.get(path).send().await;
        assert!(!answer.status.is_success(), "{path}: {answer}");
    }
    let page = admin
        .with_basic("alice", "a")
        .get("/v2/_catalog")
        .send()
        .await;
    let names = texts(&page.expect_status(200).json()["repositories"]);
    assert_eq!(names, ["mine/app", "shared/app"]);
}

/// Harbor, CVE-2019-3990 and CVE-2020-13794: answers told which users and which projects exist.
///
/// Spec: AUTH-1.
#[tokio::test]
async fn cve_2020_13794_nobody_learns_who_or_what_is_there() {
    let server = server().await;
    let admin = server.admin(Version::Http1);
    admin.push_image("secret/app", "v1", &Image::random()).await;
    let shown = |answer: wharf_testkit::Response, name: &str| {
        let mut headers: Vec<_> = answer
            .headers
            .iter()
            .filter(|(header, _)| !matches!(header.as_str(), "x-request-id" | "date"))
            .map(|(header, value)| format!("{header}: {}", value.to_str().unwrap()))
            .collect();
        headers.sort();
        let id = answer.headers["x-request-id"].to_str().unwrap();
        let body = String::from_utf8(answer.body.to_vec())
            .unwrap()
            .replace(id, "ID");
        format!("{} {headers:?} {body}", answer.status).replace(name, "NAME")
    };
    let mut seen = Vec::new();
    for (user, password) in [("alice", "wrong"), ("carol", "wrong"), ("admin", "wrong")] {
        let client = admin.clone().with_basic(user, password);
        let answer = client.get(&manifest("secret/app", "v1")).send().await;
        seen.push(shown(answer, user));
    }
    assert!(seen.iter().all(|answer| *answer == seen[0]), "{seen:#?}");
    for stranger in [
        admin.clone().anonymous(),
        admin.clone().with_basic("bob", "b"),
    ] {
        let mut seen = Vec::new();
        for name in ["secret/app", "secret/nil"] {
            let answer = stranger.get(&manifest(name, "v1")).send().await;
            assert!(!answer.status.is_success());
            seen.push(shown(answer, name));
        }
        assert_eq!(seen[0], seen[1]);
    }
}

/// OpenTelemetry's HTTP instrumentation, CVE-2023-45142, in Distribution 3: a label for every method that anybody
/// makes up, until memory is gone.
#[tokio::test]
async fn cve_2023_45142_made_up_requests_make_no_figures() {
    let server = server().await;
    let admin = server.admin(Version::Http1);
    let figures = async || {
        let page = admin.get("/metrics").send().await.expect_status(200);
        let text = String::from_utf8(page.body.to_vec()).unwrap();
        let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        text.lines().map(name).collect::<BTreeSet<_>>()
    };
    let make_up = async |at: usize| {
        let method = http::Method::from_bytes(format!("MADE{at}UP").as_bytes()).unwrap();
        let _ = admin.request(method, "/v2/").try_send().await;
        for path in [
            format!("/v2/made{at}/up/tags/list"),
            format!("/made/{at}/up"),
        ] {
            let _ = admin.get(&path).try_send().await;
        }
    };
    for at in 0..5 {
        make_up(at).await;
    }
    // The page counts its own requests: from the second one on they are in it.
    figures().await;
    let before = figures().await;
    for at in 5..60 {
        make_up(at).await;
    }
    let after = figures().await;
    let made: Vec<_> = after.difference(&before).collect();
    assert!(made.is_empty(), "{made:?}");
}
