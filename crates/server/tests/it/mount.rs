//! Blobs from other repositories (end-11).

use wharf_oci::Digest;
use wharf_testkit::{Content, TestOptions, TestServer};

use crate::support::{algorithms, blob, both, both_on, finish, holds};

/// Spec: MNT-1, MNT-4, MNT-5, CS-4, CS-7.
#[tokio::test]
async fn blobs_are_mounted_from_another_repository() {
    both(async |client, name| {
        for (algorithm, size) in algorithms()
            .into_iter()
            .flat_map(|a| [5, 100_000].map(|size| (a, size)))
        {
            let content = Content::random_of(algorithm, size);
            client.push_blob(&name, &content).await;
            let (raw, encoded) = (
                content.digest.to_string(),
                content.digest.as_str().replace(':', "%3A"),
            );
            for (at, query) in [
                format!("mount={raw}&from={name}"),
                format!("from={}&mount={encoded}", name.replace('/', "%2F")),
                format!("mount={raw}&from={name}&origin=other.example"),
            ]
            .iter()
            .enumerate()
            {
                let target = format!("{name}-mount-{size}-{at}");
                let mounted = client
                    .post(&format!("/v2/{target}/blobs/uploads/?{query}"))
                    .body("")
                    .send()
                    .await;
                let mounted = mounted.expect_status(201);
                assert_eq!(mounted.location(), blob(&target, &content.digest));
                assert_eq!(mounted.digest(), content.digest);
                assert!(holds(&client, &target, &content).await);
            }
        }
    })
    .await;
}

/// Spec: MNT-2.
#[tokio::test]
async fn a_mount_that_cannot_be_is_a_session() {
    both(async |client, name| {
        let (content, missing) = (Content::random(100), Content::random(100));
        client.push_blob(&name, &content).await;
        for query in [
            format!("mount={}&from={name}", missing.digest),
            format!("mount={}&from={name}-never", content.digest),
            format!("mount={}&from=BAD//NAME", content.digest),
            format!("mount={}&from=", missing.digest),
            format!("mount={}", missing.digest),
        ] {
            let target = format!("{name}-target");
            let session = client
                .post(&format!("/v2/{target}/blobs/uploads/?{query}"))
                .send()
                .await
                .expect_status(202);
            assert!(!holds(&client, &target, &missing).await);
            let other = Content::random(10);
            finish(
                &client,
                session.location(),
                &other.digest,
                other.bytes.clone(),
            )
            .send()
            .await
            .expect_status(201);
        }
    })
    .await;
}

/// Spec: MNT-3.
#[tokio::test]
async fn without_a_source_any_repository_that_the_caller_may_pull_will_do() {
    let server = TestServer::start(TestOptions {
        htpasswd: vec![("alice", "a")],
        htpasswd_role: Some("none"),
        grants: vec![("alice", "writer", "shared"), ("alice", "writer", "mine")],
        ..Default::default()
    })
    .await;
    both_on(&server, async |admin, name| {
        let alice = admin.clone().with_basic("alice", "a");
        let (visible, hidden) = (Content::random(100), Content::random(100));
        admin.push_blob(&format!("shared/{name}"), &visible).await;
        admin.push_blob(&format!("secret/{name}"), &hidden).await;
        let post = |digest: &Digest, more: &str| {
            alice.post(&format!(
                "/v2/mine/{name}/blobs/uploads/?mount={digest}{more}"
            ))
        };
        post(&visible.digest, "").send().await.expect_status(201);
        // Neither unnamed nor named does a source that alice cannot pull tell her anything (MNT-2).
        post(&hidden.digest, "").send().await.expect_status(202);
        post(&hidden.digest, &format!("&from=secret/{name}"))
            .send()
            .await
            .expect_status(202);
        assert!(!holds(&alice, &format!("mine/{name}"), &hidden).await);
        // A token for the target alone is enough, since its subject may pull the source.
        let scope = format!("repository:mine/{name}:pull,push");
        let token = alice.fetch_token(&[&scope]).await.expect_status(200).json()["token"]
            .as_str()
            .unwrap()
            .to_owned();
        let another = Content::random(100);
        admin.push_blob(&format!("shared/{name}"), &another).await;
        let path = format!(
            "/v2/mine/{name}/blobs/uploads/?mount={}&from=shared/{name}",
            another.digest
        );
        alice
            .clone()
            .with_token(&token)
            .post(&path)
            .send()
            .await
            .expect_status(201);
    })
    .await;
}
